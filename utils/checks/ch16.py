"""Checks for chapter 16: counting and applying adapters, labels, low rank, ROUGE, DPO."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from utils.checks.engine import Student, as_array, as_number, check, close, reject_known, wrong


def _pair(answer: Any, what: str) -> tuple[Any, Any]:
    if answer is None:
        wrong("your function returned None: does it end with a `return`?")
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        wrong(f"your function should return two things, {what}, in this order")
    return answer[0], answer[1]


@check()
def lora_parameter_count(student: Student, rng: np.random.Generator) -> None:
    """Exercise 16.1: how many numbers adapters of a rank add to weights of given shapes."""
    cases = [([(7, 5)], 2), ([(576, 1536), (192, 320)], 8), ([(3, 3)] * 4, 1), ([], 4)]
    cases.append(([tuple(rng.integers(4, 50, size=2).tolist()) for _ in range(5)], 3))
    for shapes, rank in cases:
        got = as_number(student(shapes, rank), "number of parameters")
        right = sum(rank * rows + rank * columns for rows, columns in shapes)
        if got == right:
            continue
        full = sum(rows * columns for rows, columns in shapes)
        known = {
            "you count the weights themselves, which are frozen": full,
            "that is the weights and the adapters; only the adapters are asked for": full + right,
            "you count one of the two matrices; there are A and B": sum(
                rank * rows for rows, _ in shapes
            ),
            "you count A alone; B, from the rank to the outputs, is missing": sum(
                rank * columns for _, columns in shapes
            ),
            "the rank is missing: each of rows and columns is met `rank` times": right / rank,
            "A and B do not form a rows × columns matrix each: one side of either is the rank": (
                rank * full
            ),
            "you count a square of rank × rank as well; B A has no matrix between": right
            + len(shapes) * rank**2,
        }
        if shapes:
            known["you count the first weight only"] = rank * sum(shapes[0])
        reject_known(np.array(got), known)
        wrong(f"for shapes {shapes} and rank {rank} the number is not {got:g}")


@check()
def lora_forward(student: Student, rng: np.random.Generator) -> None:
    """Exercise 16.2: the output of an adapted layer, (N, C_out)."""
    for N, C_in, C_out, r in ((3, 5, 4, 2), (1, 6, 6, 3), (4, 4, 7, 1), (2, 8, 3, 3)):
        x, weight = rng.normal(size=(N, C_in)), rng.normal(size=(C_out, C_in))
        A, B, alpha = rng.normal(size=(r, C_in)), rng.normal(size=(C_out, r)), 5.0
        got = as_array(student(x, weight, A, B, alpha), (N, C_out), "output")
        frozen, change = x @ weight.T, x @ A.T @ B.T
        right = frozen + alpha / r * change
        if close(got, right):
            continue
        reject_known(
            got,
            {
                "that is the frozen layer; the adapter changes nothing in your answer": frozen,
                "that is the adapter's part alone; the frozen layer's output is added to it": alpha
                / r
                * change,
                "the change is multiplied by alpha; divide it by the rank as well": frozen
                + alpha * change,
                "the change is not scaled by alpha / rank": frozen + change,
                "the scale is upside down: it is alpha / rank": frozen + r / alpha * change,
                "the scale is alpha / sqrt(rank); alpha / rank is asked for": frozen
                + alpha / np.sqrt(r) * change,
                "the frozen output is scaled as well; only the change is": alpha
                / r
                * (frozen + change),
            },
        )
        wrong("the output is not x Wᵀ plus the scaled x Aᵀ Bᵀ: which axis is summed in each?")


def _labels(ids: list[int], header: list[int], end_id: int) -> list[int]:
    """Walk along the conversation, as the definition says."""
    labels, place = [-100] * len(ids), 0
    while place < len(ids):
        if ids[place : place + len(header)] == header:
            place += len(header)
            while place < len(ids):
                labels[place] = ids[place]
                place += 1
                if ids[place - 1] == end_id:
                    break
        else:
            place += 1
    return labels


@check()
def mask_prompt_labels(student: Student, rng: np.random.Generator) -> None:
    """Exercise 16.3: labels of a conversation of several turns, (T,)."""
    header, user, end = [1, 7, 8], [1, 6, 8], 2
    words = iter(rng.permutation(np.arange(20, 400)).tolist())

    def some(n: int) -> list[int]:
        return [next(words) for _ in range(n)]

    one = [*user, *some(4), end, 8, *header, *some(3), end]
    two = [*one, 8, *user, *some(2), end, 8, *header, *some(5), end, 8]
    cut = [*user, *some(3), end, 8, *header, *some(4)]  # the reply has no end: it was cut off
    for ids in (one, two, cut, [*user, *some(3), end], [*header, *some(1), end]):
        got = as_array(student(list(ids), list(header), end), what="labels")
        if got.shape == (len(ids) - 1,):
            wrong("one label for each id is asked for; the shift by one comes later, in the batch")
        got = as_array(got, (len(ids),), "labels")
        right = np.array(_labels(ids, header, end))
        if close(got, right):
            continue
        tokens = np.array(ids)
        ends = tokens == end
        without_end = np.where(ends, -100, right)
        all_ends = np.where(ends, end, right)
        after = np.cumsum(right != -100) > 0
        seen = right != -100
        with_header = right.copy()
        for place in range(len(ids)):
            if ids[place : place + 3] == header:
                with_header[place : place + 3] = header
        candidates = {
            "no token is masked: what the user says is not to be learned": tokens,
            "the end of the assistant's turn is masked: the model would never learn to stop": (
                without_end
            ),
            "the user's end of turn is a target as well; only the assistant's is": all_ends,
            "the header that opens the assistant's turn is given, not to be learned": with_header,
            "masked places should be -100, which cross_entropy leaves out, not 0": np.where(
                seen, tokens, 0
            ),
            "you mask the replies and learn the rest": np.where(seen, -100, tokens),
            "everything after the first reply's beginning is learned, other people's turns "
            "included": np.where(after, tokens, -100),
        }
        first = right.copy()
        starts = [p for p in range(len(ids)) if ids[p : p + 3] == header]
        if len(starts) > 1:
            first[starts[1] :] = -100
            candidates["only the first reply has labels; each of the assistant's turns counts"] = (
                first
            )
            last = right.copy()
            last[: starts[-1]] = -100
            candidates["only the last reply has labels; each of the assistant's turns counts"] = (
                last
            )
        if seen.any():
            reject_known(got, candidates)
            if ids is cut and (got == -100).all():
                wrong("a reply that was cut off before its end has labels all the same")
        if not seen.any():
            wrong("where the assistant says nothing, every label is -100")
        wrong(f"{int((got != right).sum())} of {len(ids)} labels are not right")


@check()
def best_low_rank(student: Student, rng: np.random.Generator) -> None:
    """Exercise 16.4: B (C_out, r) and A (r, C_in) whose product is nearest to a given change."""
    for C_out, C_in, r in ((5, 4, 2), (3, 8, 1), (6, 6, 3), (4, 7, 4)):
        change = rng.normal(size=(C_out, C_in))
        B, A = _pair(student(change, r), "B and A")
        B, A = as_array(B, what="matrix B"), as_array(A, what="matrix A")
        if B.shape == (r, C_in) and A.shape == (C_out, r) and (C_out, r) != (r, C_in):
            wrong("A and B have changed places: return B (C_out, r) first, then A (r, C_in)")
        B, A = as_array(B, (C_out, r), "matrix B"), as_array(A, (r, C_in), "matrix A")
        left, sizes, right = np.linalg.svd(change, full_matrices=False)
        best = np.sqrt((sizes[r:] ** 2).sum())
        error = np.linalg.norm(change - B @ A)
        if abs(error - best) < 1e-6 * np.linalg.norm(change) + 1e-9 or error < best * (1 + 1e-5):
            continue
        reject_known(
            B @ A,
            {
                "the singular values are missing: U and V alone have length-1 directions": left[
                    :, :r
                ]
                @ right[:r],
                "the singular values are in it twice: give each side their root, or one side all": (
                    left[:, :r] * sizes[:r] ** 2
                )
                @ right[:r],
                "you kept the smallest singular values; the largest carry the most": (
                    left[:, -r:] * sizes[-r:]
                )
                @ right[-r:],
                "only one side has the root of the singular values": (
                    left[:, :r] * np.sqrt(sizes[:r])
                )
                @ right[:r],
            },
        )
        wrong(
            f"a product of rank {r} can come within {best:.3f} of the change (root of the summed "
            f"squares); yours is {error:.3f} away"
        )


def _grams(tokens: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


@check()
def summary_overlap(student: Student, rng: np.random.Generator) -> None:
    """Exercise 16.5: ROUGE-n as an F1 over n-grams."""
    vocabulary = list("abcdefg")
    cases = [
        (list("abcd"), list("abxy"), 1),
        (list("aabbcd"), list("aaab"), 1),
        (list("abcde"), list("edcba"), 2),
        (list("ab"), list("xy"), 1),
        (list("a"), list("abc"), 2),
        ([], list("ab"), 1),
    ]
    for n in (1, 2, 3):
        reference, summary = (
            rng.choice(vocabulary, size=size).tolist() for size in rng.integers(8, 16, size=2)
        )
        cases.append((reference, [*summary, *reference[2:6]], n))
    for reference, summary, n in cases:
        got = as_number(student(list(reference), list(summary), n), "score")
        theirs, ours = _grams(reference, n), _grams(summary, n)
        common = sum((theirs & ours).values())
        recall = common / max(theirs.total(), 1)
        precision = common / max(ours.total(), 1)
        right = 2 * common / max(theirs.total() + ours.total(), 1)
        if close(got, right):
            continue
        text = f"for reference {' '.join(reference)!r}, summary {' '.join(summary)!r} and n={n}"
        distinct = len(theirs.keys() & ours.keys())
        unclipped = sum(count for gram, count in ours.items() if gram in theirs)
        if close(got, recall) and not close(recall, right):
            wrong(f"{text}: you return the recall; precision belongs into an F1 as well")
        if close(got, precision) and not close(precision, right):
            wrong(f"{text}: you return the precision; recall belongs into an F1 as well")
        if close(got, (recall + precision) / 2):
            wrong(f"{text}: that is the plain mean of precision and recall; F1 is the harmonic one")
        if theirs and ours and close(got, 2 * distinct / (len(theirs) + len(ours))):
            wrong(f"{text}: every n-gram counts as often as it occurs, not once")
        if close(got, 2 * unclipped / max(theirs.total() + ours.total(), 1)):
            wrong(
                f"{text}: a repeated n-gram is rewarded each time; it counts at most as often as "
                "it occurs in the reference"
            )
        if n > 1 and close(
            got,
            2
            * sum((_grams(reference, 1) & _grams(summary, 1)).values())
            / max(len(reference) + len(summary), 1),
        ):
            wrong(f"{text}: you compare single words; n neighbours form an n-gram")
        wrong(f"{text} the score is not {got:.4f}")


def _softplus(z: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, z)


@check()
def dpo_loss(student: Student, rng: np.random.Generator) -> None:
    """Exercise 16.6: the mean loss of pairs, from log-probabilities."""
    for N, beta in ((6, 0.5), (1, 0.1), (9, 2.0)):
        chosen, rejected, ref_chosen, ref_rejected = rng.normal(-8, 3, size=(4, N))
        got = as_number(student(chosen, rejected, ref_chosen, ref_rejected, beta), "loss")
        margin = (chosen - ref_chosen) - (rejected - ref_rejected)
        right = _softplus(-beta * margin).mean()
        if close(got, right):
            continue
        reject_known(
            np.array(got),
            {
                "the sign is turned: a loss is minus the log-likelihood": -right,
                "chosen and rejected have changed places": _softplus(beta * margin).mean(),
                "beta is missing": _softplus(-margin).mean(),
                "beta divides; it should multiply the margin": _softplus(-margin / beta).mean(),
                "the reference is missing: it is the change against it that counts": _softplus(
                    -beta * (chosen - rejected)
                ).mean(),
                "beta should multiply the whole margin, the reference's part included": _softplus(
                    -(beta * (chosen - rejected) - (ref_chosen - ref_rejected))
                ).mean(),
                "the references are added where they should be subtracted": _softplus(
                    -beta * ((chosen + ref_chosen) - (rejected + ref_rejected))
                ).mean(),
                "you return the sum over pairs; the mean is asked for": right * N if N > 1 else 1e9,
                "that is the probability of the preference, not minus its logarithm": (
                    np.exp(-_softplus(-beta * margin)).mean()
                ),
                "take the logarithm for each pair, and the mean afterwards": -np.log(
                    np.exp(-_softplus(-beta * margin)).mean()
                )
                if N > 1
                else 1e9,
            },
        )
        wrong(f"for {N} pairs and beta={beta} the loss is not {got:.4f}")
    far = np.array([-2000.0])
    near = np.array([-1.0])
    try:
        with np.errstate(all="ignore"):
            got = float(as_array(student(far, near, near, near, 1.0)).reshape(()))
    except (TypeError, ValueError):
        wrong("the loss should be one number")
    if not close(got, 1999.0):
        wrong(
            "with a margin of -1999 the loss is 1999, but yours is "
            f"{got:.4g}: exp overflows, so use a form of log(1 + exp(z)) that does not"
        )
