"""Right arguments for the checks that all other modules share.

What is checked varies here; what it is checked against is written in the code that calls.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from robust_judge import FOLDER, Example
from robust_tools import B, C, ChatTokenizer, T, V, array, gpt, ids, right, rng, tensor, whole
from torch import nn

WRITTEN = "is written in the code that calls"


def check(parameter: str, **arguments: Any) -> Example:
    """Return an example in which only one parameter comes from a user."""
    others = {name: WRITTEN for name in arguments if name != parameter}
    return right(**arguments, skip=others, called={parameter: "some"})


EXAMPLES = {
    "arguments.shown": lambda: right(value=array(2, 3)),
    "arguments.as_whole_number": lambda: check("value", name="some", value=3, least=1, most=9),
    "arguments.as_whole_numbers": lambda: check("values", least=1, values={"some": 3, "more": 4}),
    "arguments.as_number": lambda: check("value", name="some", value=0.5, low=0.0, high=1.0),
    "arguments.as_positive": lambda: check("value", name="some", value=0.5),
    "arguments.as_eps": lambda: check("value", name="some", value=1e-5),
    "arguments.check_text": lambda: check("values", values={"some": "text"}),
    "arguments.check_choice": lambda: check("value", name="some", value="a", choices=("a", "b")),
    "arguments.check_type": lambda: check(
        "value", name="some", value=FOLDER / "a", kinds=(Path,), hint="make a path"
    ),
    "arguments.check_function": lambda: check("values", values={"some": array}),
    "arguments.check_entries": lambda: check(
        "mapping", name="some", mapping={"a": 1, "b": 2}, keys=("a", "b")
    ),
    "arguments.as_list": lambda: check(
        "values", name="some", values=[1, 2], kinds=(int,), least=1, hint="make a list"
    ),
    "arguments.as_texts": lambda: check("texts", name="some", texts=["a", "b"]),
    "arguments.as_path": lambda: check("path", name="some", path=FOLDER / "a"),
    "arguments.as_ids": lambda: check("ids", name="some", ids=[1, 2], size=V),
    "arguments.as_array": lambda: check("x", name="some", x=array(2, 3)),
    "arguments.as_floats": lambda: check(
        "x",
        name="some",
        x=array(2, 3),
        shape="(..., 3)",
        finite=True,
        some=True,
        instead="another",
    ),
    "arguments.as_integers": lambda: check(
        "x", name="some", x=whole(2, 3), shape="(..., 3)", low=0, high=V, some=True
    ),
    "arguments.as_float_entries": lambda: check(
        "mapping", name="some", mapping={"a": array(2, 3)}, shapes={"a": "(2, 3)"}
    ),
    "arguments.check_tensor": lambda: check(
        "x",
        name="some",
        x=tensor(2, 3),
        shape="(..., 3)",
        kind="float",
        like=tensor(1),
        some=True,
        values=True,
    ),
    "arguments.check_features": lambda: check(
        "x", name="some", x=tensor(B, T, C), reader=tensor(C), axes=3
    ),
    "arguments.check_ids": lambda: check("ids", ids=ids(), table=tensor(V, C), name="some"),
    "arguments.check_ids_shape": lambda: check("ids", ids=ids(), name="some"),
    "arguments.as_device": lambda: check("device", name="some", device="cpu"),
    "arguments.as_generator": lambda: check("seed", name="some", seed=3),
    "arguments.check_rng": lambda: check("rng", name="some", rng=rng()),
    "arguments.check_generator": lambda: check(
        "generator", name="some", generator=torch.Generator()
    ),
    "arguments.check_tokenizer": lambda: check("tokenizer", name="some", tokenizer=ChatTokenizer()),
    "arguments.check_rows": lambda: check("rows", name="some", rows=torch.tensor([1, 0]), count=2),
    "arguments.check_model": lambda: check("model", name="some", model=gpt(), kinds=(nn.Module,)),
    "arguments.check_scalar": lambda: check("result", name="some", result=tensor(1)),
}
