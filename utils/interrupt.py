"""Ctrl-C (in a notebook the stop button) that waits for a good moment."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Interrupt:
    """A context in which the first Ctrl-C only sets `asked`; a second one stops at once.

    So no update is left half made. Only the main thread gets Ctrl-C; in another thread, and where
    it is ignored (as under nohup), nothing changes.
    """

    def __enter__(self) -> Interrupt:
        """Take over Ctrl-C."""
        self.asked = False
        self.previous = signal.getsignal(signal.SIGINT)
        in_main_thread = threading.current_thread() is threading.main_thread()
        self.installed = in_main_thread and callable(self.previous)
        if self.installed:
            signal.signal(signal.SIGINT, self.handle)
        return self

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Remember the first signal; raise KeyboardInterrupt at the second."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *exception: object) -> None:
        """Give Ctrl-C back to whoever had it."""
        if self.installed:
            signal.signal(signal.SIGINT, self.previous)
