"""Chapter 9's checks accept right answers in any form and reject plausible wrong ones."""

import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from utils import checks


def masked_parts(ids, special_ids, choose, fate, random_ids, mask_id):
    chosen = (choose < 0.15) & ~np.isin(ids, special_ids)
    masked = np.where(chosen & (fate < 0.8), mask_id, ids)
    masked = np.where(chosen & (fate >= 0.8) & (fate < 0.9), random_ids, masked)
    return masked, np.where(chosen, ids, -100), chosen


def mask_right(*args):
    return masked_parts(*args)[:2]


def mask_loops(ids, special_ids, choose, fate, random_ids, mask_id):
    masked, labels = ids.copy(), np.full_like(ids, -100)
    for place in np.ndindex(ids.shape):
        if ids[place] in special_ids or choose[place] >= 0.15:
            continue
        labels[place] = ids[place]
        if fate[place] < 0.8:
            masked[place] = mask_id
        elif fate[place] < 0.9:
            masked[place] = random_ids[place]
    return masked, labels


def mask_torch(ids, special_ids, choose, fate, random_ids, mask_id):
    ids, choose, fate, random_ids = map(torch.as_tensor, (ids, choose, fate, random_ids))
    chosen = (choose < 0.15) & ~torch.isin(ids, torch.tensor(special_ids))
    masked = ids.clone()
    masked[chosen & (fate < 0.9)] = random_ids[chosen & (fate < 0.9)]
    masked[chosen & (fate < 0.8)] = mask_id
    return masked, ids.masked_fill(~chosen, -100)


def mask_wrong(change):
    """A wrong answer made from the right one and all that it was made from."""

    def answer(ids, special_ids, choose, fate, random_ids, mask_id):
        masked, labels, chosen = masked_parts(ids, special_ids, choose, fate, random_ids, mask_id)
        return change(masked, labels, chosen, ids, choose, fate, random_ids)

    return answer


def mask_in_place(ids, special_ids, choose, fate, random_ids, mask_id):
    masked, labels = mask_right(ids, special_ids, choose, fate, random_ids, mask_id)
    ids[...] = masked
    return ids, labels


def segments_right(ids, sep_id, pad_id):
    seps = (ids == sep_id).cumsum(1) - (ids == sep_id)
    return ((seps == 1) & (ids != pad_id)).astype(int)


def segments_loops(ids, sep_id, pad_id):
    rows = []
    for row in ids.tolist():
        seen, out = 0, []
        for token in row:
            out.append(int(seen == 1 and token != pad_id))
            seen += token == sep_id
        rows.append(out)
    return rows


def segments_torch(ids, sep_id, pad_id):
    return torch.from_numpy(segments_right(ids, sep_id, pad_id)).to(torch.int32)


def seps(ids, sep_id):
    return (ids == sep_id).cumsum(1)


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def picked(values, labels):
    return np.take_along_axis(values, np.where(labels < 0, 0, labels)[..., None], -1)[..., 0]


def nll_parts(logits, labels):
    return -picked(log_softmax(logits), labels), labels != -100


def nll_right(logits, labels):
    nll, chosen = nll_parts(logits, labels)
    return nll[chosen].mean()


def nll_torch(logits, labels):
    logits = torch.as_tensor(logits, dtype=torch.float32).flatten(0, 1)
    return F.cross_entropy(logits, torch.as_tensor(labels).flatten())


def nll_loops(logits, labels):
    losses = []
    for b, t in np.ndindex(labels.shape):
        if labels[b, t] != -100:
            z = logits[b, t]
            top = max(z)
            losses.append(top + np.log(sum(np.exp(z - top))) - z[labels[b, t]])
    return sum(losses) / len(losses)


def nll_overflows(logits, labels):
    chosen = labels != -100
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return -np.log(picked(p, labels))[chosen].mean()


def pool_right(hidden, mask):
    return (hidden * mask[..., None]).sum(1) / np.maximum(mask.sum(1), 1)[:, None]


def pool_loops(hidden, mask):
    rows = zip(hidden, mask, strict=True)
    return [row[real].mean(0) if real.any() else np.zeros(row.shape[1]) for row, real in rows]


def pool_torch(hidden, mask):
    hidden, mask = torch.tensor(hidden, dtype=torch.float32), torch.tensor(mask)
    return torch.einsum("btc,bt->bc", hidden, mask.float()) / mask.sum(1).clamp(min=1)[:, None]


def pll_right(ids, log_probs, mask_id, special_ids):
    places = [t for t in range(len(ids)) if ids[t] not in special_ids]
    copies = np.repeat(np.asarray(ids)[None], len(places), axis=0)
    copies[range(len(places)), places] = mask_id
    return log_probs(copies)[range(len(places)), places, ids[places]].sum()


def pll_loops(ids, log_probs, mask_id, special_ids):
    total = 0.0
    for t, token in enumerate(ids):
        if token in special_ids:
            continue
        copy = list(ids)
        copy[t] = mask_id
        total += log_probs([copy])[0][t][token]
    return float(total)


def pll_torch(ids, log_probs, mask_id, special_ids):
    return torch.tensor(pll_loops(ids, log_probs, mask_id, special_ids))


def ordinary(ids, special_ids):
    return [t for t in range(len(ids)) if ids[t] not in special_ids]


def pll_plain(ids, log_probs, mask_id, special_ids):
    places = ordinary(ids, special_ids)
    return log_probs(ids[None])[0, places, ids[places]].sum()


def pll_at_once(ids, log_probs, mask_id, special_ids):
    places, copy = ordinary(ids, special_ids), ids.copy()
    copy[places] = mask_id
    return log_probs(copy[None])[0, places, ids[places]].sum()


def pll_piling(ids, log_probs, mask_id, special_ids):
    copy, total = ids.copy(), 0.0
    for t in ordinary(ids, special_ids):
        copy[t] = mask_id
        total += log_probs(copy[None])[0, t, ids[t]]
    return total


def pll_left(ids, log_probs, mask_id, special_ids):
    places, total = ordinary(ids, special_ids), 0.0
    for t in places:
        copy = ids.copy()
        copy[[s for s in places if s >= t]] = mask_id
        total += log_probs(copy[None])[0, t, ids[t]]
    return total


def pll_in_place(ids, log_probs, mask_id, special_ids):
    return pll_loops(ids, log_probs, mask_id, special_ids) + ids.fill(mask_id)


RIGHT = {
    "mask_by_hand": [mask_right, mask_loops, mask_torch],
    "segments_of": [segments_right, segments_loops, segments_torch],
    "masked_nll": [nll_right, nll_torch, nll_loops],
    "mean_pool": [pool_right, pool_loops, pool_torch],
    "pseudo_log_likelihood": [pll_right, pll_loops, pll_torch],
}

WRONG = [
    ("mask_by_hand", mask_wrong(lambda m, lab, *_: (lab, m)), "labels come second"),
    ("mask_by_hand", mask_wrong(lambda m, lab, *_: m), "two arrays"),
    ("mask_by_hand", mask_wrong(lambda m, lab, c, ids, *_: (m, ids)), "ask for every token"),
    (
        "mask_by_hand",
        lambda i, s, c, f, r, m: mask_right(i, [], c, f, r, m),
        "special token was chosen",
    ),
    (
        "mask_by_hand",
        mask_wrong(lambda m, lab, c, ids, ch, f, r: (m, np.where(c & (f < 0.8), ids, -100))),
        "only tokens that became",
    ),
    (
        "mask_by_hand",
        mask_wrong(lambda m, lab, c, ids, ch, f, r: (m, np.where(c & (f < 0.9), ids, -100))),
        "stay as they are need their label",
    ),
    (
        "mask_by_hand",
        mask_wrong(lambda m, lab, c, ids, *_: (m, np.where(c, ids, 0))),
        "-100 is what the loss skips",
    ),
    (
        "mask_by_hand",
        mask_wrong(lambda m, lab, c, *_: (m, np.where(c, m, -100))),
        "as it was before masking",
    ),
    (
        "mask_by_hand",
        mask_wrong(lambda m, lab, c, ids, ch, *_: (m, np.where(ch > 0.85, ids, -100))),
        "not at the chosen places",
    ),
    ("mask_by_hand", mask_wrong(lambda m, lab, c, ids, *_: (ids, lab)), "nothing was hidden"),
    (
        "mask_by_hand",
        mask_wrong(lambda m, lab, c, *_: (np.where(c, 4, m), lab)),
        "0.9 or more should stay",
    ),
    (
        "mask_by_hand",
        lambda i, s, c, f, r, m: mask_right(i, s, c, f + 0.1 * (f >= 0.8) - 0.2 * (f >= 0.9), r, m),
        "changed places",
    ),
    (
        "mask_by_hand",
        mask_wrong(lambda m, lab, c, ids, ch, f, r: (np.where(c & (f < 0.8), 4, ids), lab)),
        "random_ids",
    ),
    (
        "mask_by_hand",
        mask_wrong(
            lambda m, lab, c, ids, ch, f, r: (np.where(~c & (f > 0.8) & (f < 0.9), r, m), lab)
        ),
        "not chosen have changed",
    ),
    ("mask_by_hand", mask_in_place, "changes the arguments"),
    ("segments_of", lambda i, s, p: ((seps(i, s) == 1) & (i != p)).astype(int), "first .SEP. ends"),
    ("segments_of", lambda i, s, p: (seps(i, s) - (i == s) >= 1).astype(int), "padding belongs"),
    ("segments_of", lambda i, s, p: seps(i, s), "no segment 2"),
    ("segments_of", lambda i, s, p: np.zeros_like(i), "everything is of segment 0"),
    ("segments_of", lambda i, s, p: 1 - segments_right(i, s, p), "changed places"),
    ("segments_of", lambda i, s, p: 1 + segments_right(i, s, p), "two segments, 0 and 1"),
    (
        "segments_of",
        lambda i, s, p: segments_right(i, s, p) * (i != s),
        "second .SEP. belongs",
    ),
    ("segments_of", lambda i, s, p: (i != p).astype(int), "not right"),
    ("segments_of", lambda i, s, p: segments_right(i, s, p)[0], "shape"),
    ("masked_nll", lambda z, y: nll_right(z, y) * (y != -100).sum(), "this is a sum"),
    ("masked_nll", lambda z, y: (nll_parts(z, y)[0] * (y != -100)).mean(), "divide by all"),
    ("masked_nll", lambda z, y: -nll_right(z, y), "sign"),
    ("masked_nll", lambda z, y: -picked(z, y)[y != -100].mean(), "where is the softmax"),
    ("masked_nll", lambda z, y: nll_right(z, y % z.shape[-1]), "used as an index"),
    ("masked_nll", lambda z, y: nll_right(z, y) * (y != -100).sum() / len(y), "of sequences"),
    (
        "masked_nll",
        lambda z, y: np.mean(
            [nll_right(a, b) for a, b in zip(z, y, strict=True) if (b != -100).any()]
        ),
        "not each sequence",
    ),
    ("masked_nll", lambda z, y: nll_right(z, y) / np.log(2), "natural"),
    ("masked_nll", nll_overflows, "overflow|finite"),
    ("masked_nll", lambda z, y: nll_parts(z, y)[0], "one number"),
    ("mean_pool", lambda h, m: h.mean(1), "padding is averaged"),
    ("mean_pool", lambda h, m: (h * m[..., None]).mean(1), "still counted"),
    ("mean_pool", lambda h, m: (h * m[..., None]).sum(1), "these are sums"),
    ("mean_pool", lambda h, m: h[:, 0], "first token"),
    ("mean_pool", lambda h, m: np.where(m[..., None], h, -np.inf).max(1), "largest value"),
    ("mean_pool", lambda h, m: pool_right(h, ~m), "average the padding"),
    (
        "mean_pool",
        lambda h, m: (h * m[..., None]).sum(1) / m.sum(),
        "of the whole batch",
    ),
    (
        "mean_pool",
        lambda h, m: (h * m[..., None]).sum(1) / m.sum(1, keepdims=True),
        "NaN or infinity",
    ),
    ("mean_pool", lambda h, m: pool_right(h, m | ~m.any(1, keepdims=True)), "give zeros"),
    ("mean_pool", lambda h, m: pool_right(h, m).mean(0), "shape"),
    ("pseudo_log_likelihood", pll_plain, "nothing is masked"),
    ("pseudo_log_likelihood", pll_at_once, "at once"),
    ("pseudo_log_likelihood", pll_piling, "pile up"),
    ("pseudo_log_likelihood", pll_left, "left-to-right"),
    ("pseudo_log_likelihood", lambda i, f, m, s: pll_right(i, f, m, []), "special tokens"),
    (
        "pseudo_log_likelihood",
        lambda i, f, m, s: pll_right(i, f, m, s) / len(ordinary(i, s)),
        "this is a mean",
    ),
    ("pseudo_log_likelihood", lambda i, f, m, s: pll_right(i, f, m, s) / len(i), "this is a mean"),
    ("pseudo_log_likelihood", lambda i, f, m, s: -pll_right(i, f, m, s), "sign"),
    ("pseudo_log_likelihood", lambda i, f, m, s: np.exp(pll_right(i, f, m, s)), "add logarithms"),
    ("pseudo_log_likelihood", lambda i, f, m, s: f(i)[0].sum(), r"ids of shape \(N, T\)"),
    ("pseudo_log_likelihood", lambda i, f, m, s: pll_right(i, f, 99, s), "not in the vocabulary"),
    ("pseudo_log_likelihood", lambda i, f, m, s: pll_right(i, f, 5, s), "not the sum"),
]


@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers]
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_right_answers_pass(name, answer, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.passed, result


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the wrong answers divide by zero
@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_wrong_answers_are_explained(name, answer, words, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.status == "failed"
    assert re.search(words, result.message), result


@pytest.mark.parametrize("name", RIGHT)
def test_an_untouched_stub_is_not_attempted(name):
    def stub(*args, **kwargs):
        raise NotImplementedError("Hint")

    assert getattr(checks, name)(stub).status == "not attempted"
    assert not getattr(checks, name)(lambda *args, **kwargs: None).passed


def test_every_check_has_enough_wrong_answers():
    assert set(checks.names(9)) == set(RIGHT)
    for name in RIGHT:
        assert sum(wrong_name == name for wrong_name, _, _ in WRONG) >= 4
