"""Try every kind of wrong value for every argument of a function.

python tests/robustness/robust_sweep.py            how many functions and cases, how many fail
python tests/robustness/robust_sweep.py gpt.GPT    what fails in those whose name begins so
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from robust_examples import EXAMPLES
from robust_inventory import Public, inventory
from robust_judge import Example, Outcome, judge
from robust_mutations import mutations

SWEEPS = 3  # of each function: hypothesis's plainest values first, then drawn ones

# The same values on every machine and in every run.
fixed = settings(
    max_examples=SWEEPS,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Case(NamedTuple):
    """One call with one wrong argument, and what it came to."""

    function: str
    argument: str
    kind: str
    shown: str
    outcome: Outcome


def called(public: Public, example: Example) -> Callable[..., Any]:
    """Return the function, bound to the object it is a method of."""
    return public.function if example.on is None else getattr(example.on, public.attribute)


def sweep(
    public: Public, draw: Callable[[st.SearchStrategy[Any]], Any], hung: set[tuple[str, str]]
) -> list[Case]:
    """Call a function once with each kind of wrong value for each of its arguments.

    What has hung once is not tried again, and is added to `hung`.
    """
    make = EXAMPLES[public.name]
    right = make()
    cases = []
    for argument, value in right.arguments.items():
        if argument in right.skip:
            continue
        for kind, strategy in mutations(value).items():
            skipped = (kind.startswith(k) for name, k in right.skip_kinds if name == argument)
            if any(skipped) or (argument, kind) in hung:
                continue
            wrong, example = draw(strategy), make()
            example.arguments[argument] = wrong
            finite = not any(word in kind for word in ("NaN", "nfinite"))
            outcome = judge(called(public, example), example, argument, finite)
            if outcome.kind == "hang":
                hung.add((argument, kind))
            cases.append(Case(public.name, argument, kind, _short(wrong), outcome))
    return cases


def all_cases(public: Public) -> list[Case]:
    """Return the cases of all sweeps of one function."""
    cases: list[Case] = []
    hung: set[tuple[str, str]] = set()

    @fixed
    @given(st.data())
    def run(data: Any) -> None:
        cases.extend(sweep(public, data.draw, hung))

    run()
    return cases


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray | torch.Tensor):
        return f"{tuple(value.shape)} {value.dtype} {_first(value)}"
    try:
        return repr(value)[:60]
    except Exception as error:
        return f"{type(value).__name__} ({error})"


def _first(value: Any) -> str:
    on_meta = isinstance(value, torch.Tensor) and value.is_meta
    return "meta" if on_meta else str(value.ravel()[:3].tolist())


def main(beginning: str = "") -> None:
    """Print how many functions and cases there are, and what fails."""
    started, every = time.process_time(), inventory()
    chosen = [every[name] for name in EXAMPLES if name in every and name.startswith(beginning)]
    cases, seconds = [], {}
    for public in chosen:
        begun = time.process_time()
        cases += all_cases(public)
        seconds[public.name] = time.process_time() - begun
        print(f"{len(cases):7} {public.name:60}", end="\r", file=sys.stderr, flush=True)
    failed = [case for case in cases if not case.outcome.good]
    if beginning:
        once = {(case.function, case.argument, case.kind): case for case in failed}
        for case in once.values():
            given = f"{case.function}({case.argument}: {case.kind} {case.shown!r})"
            print(f"{given}\n    {case.outcome.kind}: {case.outcome.text}")
    arguments = {(case.function, case.argument) for case in cases}
    kinds = Counter(case.outcome.kind for case in cases)
    print(f"public callables  {len(every)}, with wrong arguments tried {len(chosen)}")
    print(f"arguments         {len(arguments)}")
    print(f"cases             {len(cases)} in {time.process_time() - started:.0f} s")
    print(
        f"failing           {len(failed)}, in {len({case.function for case in failed})} callables"
    )
    for kind, number in kinds.most_common():
        print(f"    {number:6}  {kind}")
    slowest = sorted(seconds, key=seconds.get, reverse=True)[:5]
    print("slowest          ", ", ".join(f"{name} {seconds[name]:.1f} s" for name in slowest))


if __name__ == "__main__":
    main(*sys.argv[1:])
