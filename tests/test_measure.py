"""Counting operations and bytes agrees with torch's counter and with arithmetic."""

import time

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from utils import measure


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 5, 7), (1, 64, 64), (32, 16, 8)])
def test_operations_equal_torchs_counter(sizes):
    rows, inner, columns = sizes
    with FlopCounterMode(display=False) as counter:
        torch.ones(rows, inner) @ torch.ones(inner, columns)
    flops, traffic = measure.matmul_cost(*sizes, bytes_each=4)
    assert flops == counter.get_total_flops()
    assert traffic == 4 * (rows * inner + inner * columns + rows * columns)


def test_the_roofline_is_the_lower_of_two_limits():
    got = measure.attainable(np.array([1.0, 10.0, 100.0]), peak=50.0, bandwidth=5.0)
    np.testing.assert_allclose(got, [5.0, 50.0, 50.0])


def test_every_counted_run_is_kept_and_the_warm_up_is_not():
    calls = []
    timing = measure.time_call(lambda: calls.append(time.sleep(0.001)), repeats=4, warmup=3)
    assert len(calls) == 7
    assert len(timing.seconds) == 4
    assert min(timing.seconds) >= 0.001
    assert "ms" in repr(timing)


def test_median_and_spread_are_the_textbooks():
    timing = measure.Timing((1.0, 2.0, 3.0, 4.0, 100.0))
    assert timing.median == 3
    assert timing.spread == pytest.approx((4 - 2) / 3)


def test_saved_bytes_counts_a_storage_once():
    x = torch.randn(10, 10, requires_grad=True)
    assert measure.saved_bytes(x.exp) == 400  # its result
    assert measure.saved_bytes(x.sum) == 0
    assert measure.saved_bytes(lambda: x * x.T) == 400  # both views of one storage
    w = torch.randn(10, 5, requires_grad=True)
    assert measure.saved_bytes(lambda: x @ w) == 400 + 200


def test_fused_attention_keeps_no_table():
    q, k, v = (torch.randn(1, 2, 128, 16, requires_grad=True) for _ in range(3))
    table = 2 * 128 * 128 * 4
    assert measure.saved_bytes(lambda: F.scaled_dot_product_attention(q, k, v)) < table
    assert measure.saved_bytes(lambda: (q @ k.mT).softmax(-1) @ v) >= table


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: measure.matmul_cost(0, 1, 1), "at least 1"),
        (lambda: measure.attainable(0.0, 1.0, 1.0), "positive"),
        (lambda: measure.attainable(1.0, -1.0, 1.0), "positive"),
        (lambda: measure.time_call(lambda: None, repeats=0), "repeats"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
