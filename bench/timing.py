"""Time several functions side by side: alternating runs, medians, ratios with their spread.

The clock is the process's own processor time. In one thread, which is how measurements run (see
`bench/__init__.py`), it agrees with the clock on the wall where the machine has nothing else to do,
and where it has, the others' share does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

SHORTEST_RUN = 0.02  # seconds; a shorter call is repeated within one run


@dataclass(frozen=True)
class Comparison:
    """Processor time per call of several functions, in seconds, one for each round.

    Round by round the functions ran one after the other, so that a slow spell of the machine
    hits all of them, and ratios within a round are more trustworthy than the seconds.
    """

    seconds: dict[str, np.ndarray]  # name -> (rounds,)

    def milliseconds(self, name: str) -> str:
        """Return the median as text, in milliseconds with three figures."""
        return figures(1e3 * float(np.median(self.seconds[name])))

    def ratio(self, name: str, reference: str) -> str:
        """Return by which factor `name` takes longer: the median, and the middle half."""
        ratios = self.seconds[name] / self.seconds[reference]
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        return f"{figures(middle, 2)} ({figures(low, 2)} to {figures(high, 2)})"


def figures(value: float, count: int = 3) -> str:
    """Write a positive number with `count` significant figures and without an exponent."""
    if value <= 0:
        return "0"
    decimals = max(count - 1 - int(np.floor(np.log10(value))), 0)
    return f"{value:,.{decimals}f}"


def side_by_side(
    functions: Mapping[str, Callable[[], object]], rounds: int = 15, shortest: float = SHORTEST_RUN
) -> Comparison:
    """Time functions in alternating order, after one round that does not count.

    Parameters
    ----------
    functions : mapping from name to callable
        Each is called without arguments.
    rounds : int
    shortest : float
        Seconds; a function that is faster is called as often in one run as fills that time.

    Raises
    ------
    ValueError
        If there is no function or no round.
    """
    if not functions or rounds < 1:
        raise ValueError(f"needs at least 1 function and 1 round: {list(functions)}, {rounds}")
    calls = {name: _calls_per_run(function, shortest) for name, function in functions.items()}
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds):
        order = list(functions) if number % 2 else list(functions)[::-1]
        for name in order:
            start = time.process_time()
            for _ in range(calls[name]):
                functions[name]()
            seconds[name].append((time.process_time() - start) / calls[name])
    return Comparison({name: np.array(runs) for name, runs in seconds.items()})


def _calls_per_run(function: Callable[[], object], shortest: float) -> int:
    function()  # may allocate memory, load kernels
    start = time.process_time()
    function()
    once = max(time.process_time() - start, 1e-9)
    return max(1, round(shortest / once))
