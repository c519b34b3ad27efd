"""Chapter 0's checks accept right answers in any form and reject plausible wrong ones."""

import math
import re

import numpy as np
import pytest
import torch

from utils import checks

RIGHT = {
    "sequence_probability": [
        np.prod,
        lambda p: math.prod(p.tolist()),
        lambda p: torch.tensor(p, dtype=torch.float32).prod(),
        lambda p: np.exp(np.log(p).sum()),
    ],
    "sequence_log_probability": [
        lambda p: np.log(p).sum(),
        lambda p: sum(math.log(x) for x in p),
        lambda p: torch.tensor(p, dtype=torch.float32).log().sum(),
    ],
    "all_dot_products": [
        lambda q, k: q @ k.T,
        lambda q, k: np.einsum("td,sd->ts", q, k),
        lambda q, k: torch.tensor(q).float() @ torch.tensor(k).float().T,
        lambda q, k: [[float(np.dot(a, b)) for b in k] for a in q],
    ],
}
WRONG = [
    ("sequence_probability", np.mean, "average"),
    ("sequence_probability", np.sum, "between 0 and 1|not right"),
    ("sequence_probability", lambda p: np.log(p).sum(), "logarithm"),
    ("sequence_probability", lambda p: p[-1], "not right"),
    ("sequence_probability", np.cumprod, "one number"),
    ("sequence_probability", lambda p: 1 - np.prod(p), "not right"),
    ("sequence_log_probability", lambda p: math.log(max(np.prod(p), 1e-300)), "not right"),
    ("sequence_log_probability", lambda p: np.log(np.prod(p)), "underflows"),
    ("sequence_log_probability", lambda p: -np.log(p).sum(), "sign"),
    ("sequence_log_probability", lambda p: np.log2(p).sum(), "natural"),
    ("sequence_log_probability", lambda p: np.log(p).mean(), "average"),
    ("sequence_log_probability", np.log, "one number"),
    ("all_dot_products", lambda q, k: k @ q.T, "transposed"),
    ("all_dot_products", lambda q, k: (q @ k.T).T, "transposed"),
    ("all_dot_products", lambda q, k: q @ k, "raised ValueError"),
    ("all_dot_products", lambda q, k: np.sum(q[:1] * k, axis=1), "shape"),
    ("all_dot_products", lambda q, k: q @ k.T / np.sqrt(q.shape[1]), "numbers are not"),
    ("all_dot_products", lambda q, k: np.abs(q @ k.T), "numbers are not"),
]


@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_right_answers_pass(name, answer, seed):
    assert getattr(checks, name)(answer, seed=seed).passed


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
def test_wrong_answers_are_rejected_for_the_right_reason(name, answer, words):
    result = getattr(checks, name)(answer)
    assert result.status == "failed"
    assert re.search(words, result.message), result


def test_every_check_of_the_chapter_is_tested_with_at_least_four_wrong_answers():
    for name in checks.names(chapter=0):
        assert sum(case[0] == name for case in WRONG) >= 4, name
        assert len(RIGHT[name]) >= 2, name
