"""Checks for chapter 9: masking, segments, masked loss, pooling, pseudo-log-likelihood."""

from __future__ import annotations

from typing import Any

import numpy as np

from utils.checks.engine import Student, as_array, as_number, check, close, reject_known, wrong


@check()
def mask_by_hand(student: Student, rng: np.random.Generator) -> None:
    """Exercise 9.1: chosen tokens become [MASK], something random, or stay; labels say what was."""
    mask_id, special_ids = 4, [0, 1, 2, 3, 4]
    for shape in ((200,), (40, 20), (3, 5, 30)):
        ids = rng.integers(5, 60, size=shape)
        ids[..., 0], ids[..., -1] = 2, 3  # [CLS] and [SEP]
        choose, fate = rng.random(shape), rng.random(shape)
        random_ids = rng.integers(5, 60, size=shape)
        answer = student(ids, special_ids, choose, fate, random_ids, mask_id)
        if answer is None:
            wrong("your function returned None: does it end with a `return`?")
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            wrong("your function should return two arrays, masked ids and labels, in this order")
        masked = as_array(answer[0], shape, "array of masked ids")
        labels = as_array(answer[1], shape, "array of labels")
        ordinary = ~np.isin(ids, special_ids)
        chosen = (choose < 0.15) & ordinary
        if close(masked, np.where(chosen, ids, -100)):
            wrong("labels come second: first the masked ids, then the labels")
        _check_labels(labels, ids, chosen, choose, fate)
        if not close(masked[~chosen], ids[~chosen]):
            wrong("some tokens that were not chosen have changed: the model should read them")
        if (masked[chosen & (fate < 0.8)] != mask_id).any():
            if (masked[chosen] == ids[chosen]).all():
                wrong("nothing was hidden: where `fate` is below 0.8 the chosen become [MASK]")
            wrong("some chosen tokens whose `fate` is below 0.8 did not become [MASK]")
        swapped = chosen & (fate >= 0.8) & (fate < 0.9)
        kept = chosen & (fate >= 0.9)
        if close(masked[swapped], ids[swapped]) and close(masked[kept], random_ids[kept]):
            wrong("random and unchanged have changed places: random from 0.8 to 0.9")
        if not close(masked[kept], ids[kept]):
            wrong("chosen tokens whose `fate` is 0.9 or more should stay as they are")
        if not close(masked[swapped], random_ids[swapped]):
            wrong("chosen tokens whose `fate` is from 0.8 to 0.9 should become those of random_ids")


def _check_labels(
    labels: np.ndarray, ids: np.ndarray, chosen: np.ndarray, choose: np.ndarray, fate: np.ndarray
) -> None:
    """End the check if the labels are not the original token where chosen, -100 elsewhere."""
    expected = np.where(chosen, ids, -100)
    if close(labels, expected):
        return
    reject_known(
        labels,
        {
            "your labels ask for every token: where none was chosen the label is -100": ids,
            "a special token was chosen: [CLS] and [SEP] are never predicted": np.where(
                choose < 0.15, ids, -100
            ),
            "only tokens that became [MASK] have a label in yours; the other chosen ones, random "
            "and unchanged, are predicted as well": np.where(chosen & (fate < 0.8), ids, -100),
            "tokens that stay as they are need their label too: the model does not know that "
            "they were chosen, and must say what belongs there": np.where(
                chosen & (fate < 0.9), ids, -100
            ),
            "tokens that were not chosen have label 0 in yours; 0 is a token, and -100 is what "
            "the loss skips": np.where(chosen, ids, 0),
        },
    )
    if not close(labels != -100, chosen):
        wrong("labels are not at the chosen places: `choose` below 0.15, and not special")
    wrong("a label is the token as it was before masking")


@check()
def segments_of(student: Student, rng: np.random.Generator) -> None:
    """Exercise 9.2: 0 up to and with the first [SEP], 1 to the second, 0 for padding."""
    sep_id, pad_id = 3, 0
    for rows, width in ((1, 12), (6, 20), (9, 15)):
        ids, expected = np.full((rows, width), pad_id), np.zeros((rows, width), dtype=int)
        after = expected.copy()
        late = expected.copy()
        for row in range(rows):
            first = int(rng.integers(1, width // 2 - 2))
            second = int(rng.integers(0 if row == 1 else 1, width // 2 - 2))
            texts = [*rng.integers(5, 50, size=first), sep_id, *rng.integers(5, 50, size=second)]
            whole = np.array([2, *texts, *([sep_id] if second else [])])
            ids[row, : len(whole)] = whole
            late[row, first + 1 : len(whole)] = second > 0
            expected[row, first + 2 : len(whole)] = second > 0
            after[row, first + 2 :] = second > 0
        got = as_array(student(ids, sep_id, pad_id), ids.shape, "array of segments")
        second_sep = np.where((ids == sep_id) & (expected == 1), 0, expected)
        ends_first = "the first [SEP] ends the first text and belongs to it: segment 0"
        if close(got, late * (second_sep + (late != expected))):
            wrong(ends_first)
        reject_known(
            got,
            {
                ends_first: late,
                "padding belongs to neither text and gets 0": after,
                "the second [SEP] belongs to the second text: segment 1": second_sep,
                "padding gets 0, and after the second [SEP] there is no segment 2": np.cumsum(
                    ids == sep_id, axis=1
                ),
                "everything is of segment 0 in yours: the second text has segment 1": expected * 0,
                "segments have changed places: the first text is 0, the second 1": 1 - expected,
            },
        )
        if not np.isin(got, (0, 1)).all():
            wrong("there are two segments, 0 and 1; yours holds another number")
        if not close(got, expected):
            wrong("not right: a token is of segment 1 if one [SEP] stands before it, not padding")


@check()
def masked_nll(student: Student, rng: np.random.Generator) -> None:
    """Exercise 9.3: the mean of -log p over the positions that have a label."""
    for B, T, V, rate in ((3, 8, 11, 0.4), (2, 5, 30, 0.2), (4, 6, 7, 1.0)):
        logits = rng.normal(size=(B, T, V)) * 2
        targets = rng.integers(V, size=(B, T))
        chosen = rng.random((B, T)) < rate
        chosen[0, :3] = True  # so that rows have different numbers of labels
        labels = np.where(chosen, targets, -100)
        with np.errstate(all="ignore"):
            got = np.asarray(as_number(student(logits, labels), "loss"))
        shifted = logits - logits.max(-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        nll = -np.take_along_axis(logs, targets[..., None], -1)[..., 0]
        expected = nll[chosen].mean()
        if close(got, expected):
            continue
        wrapped = -np.take_along_axis(logs, (labels % V)[..., None], -1)[..., 0]
        raw = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
        reject_known(
            got,
            {
                "this is a sum; the loss is the mean over the labels": nll[chosen].sum(),
                "you divide by all positions; only those with a label count": (nll * chosen).mean(),
                "this is the mean log-probability: check the sign": -expected,
                "the logits are not probabilities yet: where is the softmax?": -raw[chosen].mean(),
                "labels of -100 were used as an index: leave those positions out": wrapped.mean(),
                "each position should weigh the same, not each sequence": np.mean(
                    [nll[b][chosen[b]].mean() for b in range(B) if chosen[b].any()]
                ),
                "you divide by the number of sequences, not of labels": nll[chosen].sum() / B,
                "the logarithm here is natural, so that the loss is in nats": expected / np.log(2),
            },
        )
        wrong("not right: -log softmax(logits) at the label, averaged over labels other than -100")
    logits = np.array([[[1000.0, 0.0, 0.0], [0.0, -1000.0, 0.0]]])
    with np.errstate(all="ignore"):
        got = as_number(student(logits, np.array([[0, 1]])), "loss for logits of 1000")
    if not close(got, (0 + 1000 + np.log(2)) / 2):
        wrong("for logits as large as 1000 your loss is not right: do the exponentials overflow?")


@check()
def mean_pool(student: Student, rng: np.random.Generator) -> None:
    """Exercise 9.4: the average of the real tokens' vectors."""
    for B, T, C in ((1, 4, 3), (4, 7, 5), (3, 2, 8)):
        hidden = rng.normal(size=(B, T, C))
        lengths = rng.integers(1, T, size=B) if B > 1 else np.array([T - 1])
        mask = np.arange(T) < lengths[:, None]
        if B == 4:
            mask[1] = mask[1, ::-1].copy()  # padding on the left
        got = as_array(student(hidden, mask), (B, C), "array of sentence vectors")
        real = hidden * mask[..., None]
        expected = real.sum(1) / mask.sum(1, keepdims=True)
        if close(got, expected):
            continue
        reject_known(
            got,
            {
                "padding is averaged in as well: leave it out": hidden.mean(1),
                "padding is left out of the sum, but still counted: by what should you divide?": (
                    real.mean(1)
                ),
                "these are sums; divide each by its number of real tokens": real.sum(1),
                "this is the first token's vector alone": hidden[:, 0],
                "this is the largest value of each feature, not the average": np.where(
                    mask[..., None], hidden, -np.inf
                ).max(1),
                "you average the padding: True marks real tokens": (
                    (hidden * ~mask[..., None]).sum(1) / np.maximum((~mask).sum(1), 1)[:, None]
                ),
                "you divide by the real tokens of the whole batch": real.sum(1) / mask.sum(),
            },
        )
        wrong("not the average of each sequence's real tokens")
    hidden, mask = rng.normal(size=(2, 3, 4)), np.array([[True, True, False], [False] * 3])
    with np.errstate(all="ignore"):
        got = as_array(student(hidden, mask), (2, 4), "array of sentence vectors")
    if not np.isfinite(got).all():
        wrong("a sequence of nothing but padding gives NaN or infinity; it should give zeros")
    if not close(got, [hidden[0, :2].mean(0), np.zeros(4)]):
        wrong("a sequence of nothing but padding should give zeros, and the others their average")


@check()
def pseudo_log_likelihood(student: Student, rng: np.random.Generator) -> None:
    """Exercise 9.5: the sum of log p(token | all other tokens), one masked copy for each."""
    V, mask_id, special_ids = 20, 4, [0, 1, 2, 3, 4]
    table = rng.normal(size=(V, 40, V, 40))  # how a token at a place votes for one at another

    def log_probs(ids: Any) -> np.ndarray:
        """Return log-probabilities (N, T, V) that depend on all of each row's tokens."""
        rows = as_array(ids, what="batch given to log_probs").astype(int)
        if rows.ndim != 2:
            wrong(f"log_probs takes ids of shape (N, T), not {rows.shape}")
        if rows.size and not 0 <= rows.min() <= rows.max() < V:
            wrong("log_probs was given an id that is not in the vocabulary")
        T = rows.shape[1]
        votes = np.stack([table[row, np.arange(T)][:, :, :T].sum(0).T for row in rows])  # (N, T, V)
        return votes - np.log(np.exp(votes).sum(-1, keepdims=True))

    for T in (4, 7, 12):
        ids = rng.integers(5, V, size=T)
        ids[0], ids[-1] = 2, 3
        got = np.asarray(
            as_number(student(ids, log_probs, mask_id, special_ids), "pseudo-log-likelihood")
        )
        ordinary = [t for t in range(T) if ids[t] not in special_ids]

        def scores(places: list[int], ids: np.ndarray = ids) -> np.ndarray:
            copies = np.repeat(ids[None], len(places), axis=0)
            copies[np.arange(len(places)), places] = mask_id
            return log_probs(copies)[np.arange(len(places)), places, ids[places]]

        expected = scores(ordinary).sum()
        if close(got, expected):
            continue
        plain = log_probs(ids[None])[0, ordinary, ids[ordinary]].sum()
        hidden = np.where(np.isin(np.arange(T), ordinary), mask_id, ids)
        at_once = log_probs(hidden[None])[0, ordinary, ids[ordinary]].sum()
        left = 0.0
        for t in ordinary:
            copy = ids.copy()
            copy[[s for s in ordinary if s >= t]] = mask_id
            left += log_probs(copy[None])[0, t, ids[t]]
        reject_known(
            got,
            {
                "nothing is masked: the model can read the token that it should predict": plain,
                "all tokens are masked at once; each should be predicted from all others": at_once,
                "special tokens are scored as well: leave [CLS] and [SEP] out": scores(
                    list(range(T))
                ).sum(),
                "this is a mean; add the logarithms up": expected / len(ordinary),
                "this is a mean over all tokens; add the logarithms up": expected / T,
                "check the sign: log-probabilities are not positive": -expected,
                "these are the probabilities, multiplied or added: add logarithms": np.exp(
                    expected
                ),
                "the probabilities are added; the logarithms should be": np.exp(
                    scores(ordinary)
                ).sum(),
                "the masks pile up: undo one before you set the next": _piling_up(
                    ids, ordinary, mask_id, log_probs
                ),
                "the tokens after the masked one are hidden too; that is the chain rule of a "
                "left-to-right model": left,
            },
        )
        wrong("not the sum of log p(token | all others): mask one token, read its log-probability")


def _piling_up(ids: np.ndarray, places: list[int], mask_id: int, log_probs: Any) -> float:
    copy, total = ids.copy(), 0.0
    for t in places:
        copy[t] = mask_id
        total += log_probs(copy[None])[0, t, ids[t]]
    return total
