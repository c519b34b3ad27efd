"""All examples together, and what deliberately has none."""

from __future__ import annotations

import robust_examples_arguments
import robust_examples_models
import robust_examples_numbers
import robust_examples_texts
import robust_examples_training
from robust_inventory import Public

EXAMPLES = {
    **robust_examples_arguments.EXAMPLES,
    **robust_examples_numbers.EXAMPLES,
    **robust_examples_texts.EXAMPLES,
    **robust_examples_models.EXAMPLES,
    **robust_examples_training.EXAMPLES,
}

# Not called with wrong arguments, and why.
NOT_CALLED = {
    "arguments.check_alike": "gets tensors that check_tensor has looked at",
    "arguments.check_ids_range": "gets tensors that check_tensor has looked at",
    "arguments.check_shape": "gets arrays that as_floats or check_tensor has looked at",
    "arguments.check_sizes": "called when a configuration is made, with that and its own names",
    "audit.Finding": "made by the audits only; it holds what they found",
    "beam.Decoder": "a protocol: it says what a decoder has, and does nothing",
    "beam.Decoder.__call__": "of a protocol",
    "beam.Decoder.select": "of a protocol",
    "data.sources.Source": "entries of one table in its own module",
    "data.store.fetch": "downloads; tests/test_data.py gives it bad archives, disks and networks",
    "history.History": "made by train only; it holds what a run did",
    "inside.Heads": "made by record_heads only; it holds what was recorded",
    "interrupt.Interrupt": "takes no arguments",
    "interrupt.Interrupt.handle": "called by the operating system on Ctrl-C",
    "measure.Timing": "made by time_call only; it holds what was measured",
    "parallel.average_gradients": "needs a group of processes; see tests/test_parallel.py",
    "parallel.launch": "starts processes; see tests/test_parallel.py",
    "parallel.main": "joins a group of processes; argparse checks its arguments",
    "parallel.play_batches": "takes Settings only, which are checked when they are made",
    "quantise.Quantised": "made by quantise only; it holds what was rounded",
    "scaling.train_width": "trains; its sizes go to Recipe, which checks them",
    "speedrun.plays": "reads the plays; its only argument goes into a slice",
    "training.Run": "made by train only, whose arguments these are",
    "views.Frame": "made by the views only; it holds their page",
}


def reason_to_leave_out(public: Public) -> str | None:
    """Return why a public callable has no example, or None if it must have one."""
    kind = public.function
    if isinstance(kind, type) and issubclass(kind, BaseException):
        return "an error: it is raised, not computed with"
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return "a record: as every NamedTuple it holds what it is given"
    return NOT_CALLED.get(public.name)
