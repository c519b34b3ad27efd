"""No wrong argument gets a reader an error from deep inside, a warning, a silent NaN, or silence.

For each public function of `utils` an example of right arguments is kept in `robust_examples*.py`.
From each, wrong arguments are made (`robust_mutations.py`), and what then happens is judged
(`robust_judge.py`): a defined result, or an error that says in words what was wrong with what.

    python tests/robustness/robust_sweep.py            how many functions and cases, how many fail
    python tests/robustness/robust_sweep.py gpt.GPT    what fails in those whose name begins so
"""

from __future__ import annotations

import pytest
from robust_examples import EXAMPLES, NOT_CALLED, reason_to_leave_out
from robust_inventory import inventory
from robust_judge import judge
from robust_sweep import SWEEPS, all_cases, called

PUBLIC = inventory()


def test_every_public_callable_has_an_example_or_a_reason():
    without = [n for n, p in PUBLIC.items() if n not in EXAMPLES and not reason_to_leave_out(p)]
    assert not without, (
        f"no right arguments are known for {without}: add an example to "
        "tests/robustness/robust_examples_*.py, or a reason to NOT_CALLED in robust_examples.py"
    )
    gone = sorted((EXAMPLES.keys() | NOT_CALLED.keys()) - PUBLIC.keys())
    assert not gone, f"these are no longer in utils: remove {gone} from the tables"
    both = sorted(EXAMPLES.keys() & NOT_CALLED.keys())
    assert not both, f"{both} have an example and a reason to have none"


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_is_right_and_complete(name):
    """Every parameter has a value, the call works, and nothing it was given is changed."""
    public, example = PUBLIC[name], EXAMPLES[name]()
    missing = set(public.takes) - set(example.arguments)
    assert not missing, f"the example of {name} says nothing about {sorted(missing)}"
    outcome = judge(called(public, example), example, None)
    assert outcome.kind == "returned", outcome


@pytest.mark.parametrize("name", [name for name in EXAMPLES if PUBLIC[name].takes])
def test_wrong_arguments_get_words_or_a_defined_result(name):
    cases = all_cases(PUBLIC[name])
    example = EXAMPLES[name]()
    tried = {case.argument for case in cases}
    assert tried == set(example.arguments) - set(example.skip)
    assert len(cases) >= SWEEPS * len(tried)
    failed = {
        f"{case.argument}: {case.kind} = {case.shown}\n        {case.outcome.kind}: "
        f"{case.outcome.text}"
        for case in cases
        if not case.outcome.good
    }
    assert not failed, f"{len(failed)} wrong arguments of {name}:" + "".join(
        f"\n    {each}" for each in sorted(failed)
    )
