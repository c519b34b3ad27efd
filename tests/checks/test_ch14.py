"""Chapter 14's checks accept right answers in any form and reject plausible wrong ones."""

import re
from math import comb

import numpy as np
import pytest
import torch

from utils import checks


def split_right(groups, share, rng):
    names = np.unique(groups)
    return np.isin(groups, rng.choice(names, size=round(share * len(names)), replace=False))


def split_loops(groups, share, rng):
    names = sorted(set(groups.tolist()))
    rng.shuffle(names)
    held_out = set(names[: round(share * len(names))])
    return [group in held_out for group in groups]


def split_torch(groups, share, rng):
    return torch.from_numpy(split_right(groups, share, rng))


def split_rows(groups, share, rng):
    return rng.random(len(groups)) < share


def split_first(groups, share, rng):
    names = np.unique(groups)
    return np.isin(groups, names[: round(share * len(names))])


def split_by_count(groups, share, rng):
    """Fill up with groups until the share of the examples is reached."""
    held_out, size = [], 0
    for name in rng.permutation(np.unique(groups)):
        if size < share * len(groups):
            held_out.append(name)
            size += (groups == name).sum()
    return np.isin(groups, held_out)


def split_sorted_rows(groups, share, rng):
    """Cut the sorted rows at the share: one group is torn."""
    names = rng.permutation(np.unique(groups))
    place = {name: i for i, name in enumerate(names)}
    order = np.argsort([place[g] for g in groups], kind="stable")
    mask = np.zeros(len(groups), dtype=bool)
    mask[order[: len(groups) // 2 + 7]] = True
    return mask


def share_right(lengths, batches):
    computed = sum(len(b) * lengths[b].max() for b in batches)
    return 1 - lengths.sum() / computed


def share_loops(lengths, batches):
    padded = total = 0
    for batch in batches:
        width = max(lengths[i] for i in batch)
        total += width * len(batch)
        padded += sum(width - lengths[i] for i in batch)
    return np.float32(padded / total)


def share_consecutive(lengths, batches):
    cuts = np.cumsum([len(b) for b in batches])[:-1]
    rows = np.split(lengths, cuts)
    return 1 - lengths.sum() / sum(len(row) * row.max() for row in rows)


def share_torch(lengths, batches):
    lengths = torch.as_tensor(lengths)
    widths = torch.stack([lengths[torch.as_tensor(b)].max() for b in batches])
    sizes = torch.tensor([len(b) for b in batches])
    return 1 - lengths.sum() / (widths * sizes).sum()


def buckets(lengths, batch_size, rng, pool=10, shuffle=True, drop=False):
    order, size, batches = rng.permutation(len(lengths)), pool * batch_size, []
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        chosen = chosen[np.argsort(lengths[chosen], kind="stable")]
        batches += [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]
    if drop:
        batches = [b for b in batches if len(b) == batch_size]
    return [batches[i] for i in rng.permutation(len(batches))] if shuffle else batches


def buckets_noisy(lengths, batch_size, rng):
    """Another way: sort by length plus noise."""
    order = np.argsort(lengths + rng.uniform(-2, 2, size=len(lengths))).tolist()
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    rng.shuffle(batches)
    return batches


def buckets_sorted(lengths, batch_size, rng, shuffle=False):
    order = np.argsort(lengths, kind="stable")
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))] if shuffle else batches


def rates_right(num_layers, lr, decay):
    return [lr * decay**depth for depth in range(num_layers + 1, -1, -1)]


def rates_numpy(num_layers, lr, decay):
    return lr * np.cumprod(np.r_[1.0, np.full(num_layers + 1, decay)])[::-1]


def rates_torch(num_layers, lr, decay):
    return lr * decay ** torch.arange(num_layers + 1, -1, -1, dtype=torch.float32)


def counts(first, second):
    return int((first & ~second).sum()), int((~first & second).sum())


def mcnemar_right(first, second):
    n, fewer = sum(counts(first, second)), min(counts(first, second))
    return min(1.0, 2 * sum(comb(n, i) for i in range(fewer + 1)) / 2**n)


def mcnemar_scipy(first, second):
    from scipy.stats import binomtest

    b, c = counts(first, second)
    return binomtest(b, b + c).pvalue if b + c else 1.0


def mcnemar_uncut(first, second):
    n, fewer = sum(counts(first, second)), min(counts(first, second))
    return 2 * sum(comb(n, i) for i in range(fewer + 1)) / 2**n


def mcnemar_all(first, second):
    n, fewer = len(first), min(counts(first, second))
    return min(1.0, 2 * sum(comb(n, i) for i in range(fewer + 1)) / 2**n)


def mcnemar_exactly(first, second):
    n, fewer = sum(counts(first, second)), min(counts(first, second))
    return comb(n, fewer) / 2**n


def mcnemar_chi(first, second):
    from scipy.stats import chi2

    b, c = counts(first, second)
    return chi2.sf((b - c) ** 2 / (b + c), 1) if b + c else 1.0


def mcnemar_floats(first, second):
    if not any(counts(first, second)):
        return 1.0
    n, fewer = sum(counts(first, second)), min(counts(first, second))
    return min(1.0, sum(float(comb(n, i)) * 0.5**n for i in range(fewer + 1)) * 2)


RIGHT = {
    "split_by_group": [split_right, split_loops, split_torch],
    "padding_share": [share_right, share_loops, share_torch],
    "bucketed_batches": [buckets, buckets_noisy, lambda *a: buckets(*a, pool=6)],
    "layerwise_rates": [rates_right, rates_numpy, rates_torch],
    "exact_mcnemar": [mcnemar_right, mcnemar_scipy],
}
WRONG = [
    ("split_by_group", split_rows, "most groups are on both sides"),
    ("split_by_group", split_first, "always the same"),
    ("split_by_group", split_sorted_rows, "on both sides of the split"),
    ("split_by_group", lambda g, s, r: ~split_right(g, s, r), "training part is marked"),
    ("split_by_group", lambda g, s, r: np.isin(g, []), "nothing is held out"),
    ("split_by_group", lambda g, s, r: np.flatnonzero(split_right(g, s, r)), "one boolean per"),
    ("split_by_group", lambda g, s, r: split_right(g, s, r).astype(int), "return booleans"),
    (
        "split_by_group",
        lambda g, s, r: split_right(g, s, np.random.default_rng()),
        "same seed gives another split",
    ),
    ("split_by_group", split_by_count, "should be held out"),
    ("padding_share", lambda n, b: 1 - share_right(n, b), "share of real tokens"),
    (
        "padding_share",
        lambda n, b: sum(len(x) * n[x].max() for x in b) - n.sum(),
        "number of tokens",
    ),
    ("padding_share", share_consecutive, "first entries of `lengths`"),
    (
        "padding_share",
        lambda n, b: np.mean([1 - n[x].sum() / (len(x) * n[x].max()) for x in b]),
        "average the batches' shares",
    ),
    ("padding_share", lambda n, b: 1 - n.sum() / (len(n) * n.max()), "its own longest"),
    (
        "padding_share",
        lambda n, b: sum(len(x) * n[x].max() for x in b) / n.sum() - 1,
        "padding included",
    ),
    ("bucketed_batches", lambda n, b, r: buckets(n, b, r, pool=1), "similar length together"),
    ("bucketed_batches", buckets_sorted, "all short texts first"),
    (
        "bucketed_batches",
        lambda n, b, r: buckets_sorted(n, b, r, shuffle=True),
        "same texts always meet",
    ),
    ("bucketed_batches", lambda n, b, r: buckets(n, b, r, drop=True), "in no batch"),
    ("bucketed_batches", lambda n, b, r: [n[x] for x in buckets(n, b, r)], "two batches"),
    (
        "bucketed_batches",
        lambda n, b, r: buckets(n, b, np.random.default_rng()),
        "draw from `rng` alone",
    ),
    ("bucketed_batches", lambda n, b, r: buckets(n, 2 * b, r), "are allowed"),
    ("bucketed_batches", lambda n, b, r: buckets(n, b // 2, r), "only one may be smaller"),
    ("bucketed_batches", lambda n, b, r: None, "returned None"),
    ("layerwise_rates", lambda n, lr, d: rates_right(n, lr, d)[::-1], "head has the smallest"),
    ("layerwise_rates", lambda n, lr, d: rates_right(n, lr * d, d), "head has the full rate"),
    ("layerwise_rates", lambda n, lr, d: [lr] * (n + 2), "same rate"),
    (
        "layerwise_rates",
        lambda n, lr, d: np.linspace(lr * d ** (n + 1), lr, n + 2),
        "equal steps",
    ),
    ("layerwise_rates", lambda n, lr, d: rates_right(n - 1, lr, d), "rates, one each"),
    (
        "layerwise_rates",
        lambda n, lr, d: [rates_right(n, lr, d)[1], *rates_right(n, lr, d)[1:]],
        "embeddings are one stage lower",
    ),
    (
        "layerwise_rates",
        lambda n, lr, d: [*rates_right(n, lr, d)[1:], lr],
        "the block is one stage lower",
    ),
    ("exact_mcnemar", lambda a, b: mcnemar_right(a, b) / 2, "either system might"),
    ("exact_mcnemar", mcnemar_all, "both agree"),
    ("exact_mcnemar", mcnemar_exactly, "exactly that many"),
    ("exact_mcnemar", mcnemar_chi, "not right"),
    ("exact_mcnemar", mcnemar_floats, "raised OverflowError|perfect tie"),
    ("exact_mcnemar", lambda a, b: b.mean() - a.mean(), "not a probability"),
]


@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers]
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_right_answers_pass(name, answer, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.passed, result


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_wrong_answers_are_explained(name, answer, words, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.status == "failed"
    assert re.search(words, result.message), result


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_tie_must_not_exceed_one():
    result = checks.exact_mcnemar(mcnemar_uncut)
    assert result.status == "failed"
    assert re.search("never differ|cannot exceed 1|perfect tie", result.message)


@pytest.mark.parametrize("name", RIGHT)
def test_an_untouched_stub_is_not_attempted(name):
    def stub(*args, **kwargs):
        raise NotImplementedError("Hint")

    assert getattr(checks, name)(stub).status == "not attempted"
    assert not getattr(checks, name)(lambda *args, **kwargs: None).passed


def test_every_check_has_enough_wrong_answers():
    assert set(checks.names(14)) == set(RIGHT)
    for name in RIGHT:
        assert sum(wrong_name == name for wrong_name, _, _ in WRONG) >= 4
