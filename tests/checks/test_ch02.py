"""Chapter 2's checks accept right answers in any form and reject plausible wrong ones."""

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from utils import checks


def utf8_shifts(code):
    if code < 0x80:
        return [code]
    size = 2 if code < 0x800 else 3 if code < 0x10000 else 4
    rest = [0x80 | (code >> (6 * k)) & 0x3F for k in range(size - 2, -1, -1)]
    return [(0xF00 >> size) & 0xFF | code >> (6 * (size - 1)), *rest]


def utf8_text(code):
    if code < 128:
        return bytes([code])
    bits = f"{code:b}"
    size = 2 if len(bits) <= 11 else 3 if len(bits) <= 16 else 4
    bits = bits.zfill({2: 11, 3: 16, 4: 21}[size])
    lead = "1" * size + "0" + bits[: 7 - size]
    chunks = [bits[k : k + 6] for k in range(7 - size, len(bits), 6)]
    return bytes(int(b, 2) for b in [lead, *("10" + c for c in chunks)])


def reversed_tail(code):
    first, *rest = utf8_shifts(code)
    return [first, *rest[::-1]]


def no_mark(code):
    first, *rest = utf8_shifts(code)
    return [first, *(byte & 0x3F for byte in rest)]


def wrong_lead(code):
    first, *rest = utf8_shifts(code)
    return [first & 0x3F if rest else first, *rest]


def pairs_counter(words):
    counts = Counter()
    for word, n in words.items():
        for pair in itertools.pairwise(word):
            counts[pair] += n
    return counts


def pairs_loop(words):
    counts = defaultdict(int)
    for word in words:
        for i in range(len(word) - 1):
            counts[word[i], word[i + 1]] += words[word]
    return dict(counts)


def pairs_across(words):
    ids = [i for word, n in words.items() for _ in range(n) for i in word]
    return Counter(itertools.pairwise(ids))


def pairs_ordered(words):
    counts = Counter()
    for pair, n in pairs_counter(words).items():
        counts[tuple(sorted(pair))] += n
    return counts


def pairs_short(words):
    return pairs_counter({word[:-1]: n for word, n in words.items()})


def pairs_distinct(words):
    counts = Counter()
    for word, n in words.items():
        for pair in set(itertools.pairwise(word)):
            counts[pair] += n
    return counts


def merge_while(ids, pair, new_id):
    out, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == tuple(pair):
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def merge_pending(ids, pair, new_id):
    out = []
    for i in ids:
        # a marker keeps a new id from taking part in the same merge again
        if out and out[-1] == (pair[0], True) and i == pair[1]:
            out[-1] = (new_id, False)
        else:
            out.append((i, True))
    return [i for i, _ in out]


def merge_first(ids, pair, new_id):
    for i in range(len(ids) - 1):
        if (ids[i], ids[i + 1]) == pair:
            return [*ids[:i], new_id, *ids[i + 2 :]]
    return list(ids)


def merge_drops_last(ids, pair, new_id):
    out, i = [], 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == pair:
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def merge_step_one(ids, pair, new_id):
    out = []
    for i in range(len(ids)):
        out.append(new_id if tuple(ids[i : i + 2]) == pair else ids[i])
    return out


def merge_in_place(ids, pair, new_id):
    i = 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == pair:
            ids[i : i + 2] = [new_id]
        i += 1
    return ids


def rank_passes(word, merges):
    tokens = list(word)
    for pair in merges:
        tokens = merge_while(tokens, pair, "".join(pair))
    return tokens


def rank_lowest(word, merges):
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    tokens = list(word)
    while len(tokens) > 1:
        rank, i = min((ranks.get(p, 10**9), i) for i, p in enumerate(itertools.pairwise(tokens)))
        if rank == 10**9:
            break
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
    return tuple(tokens)


def rank_once(word, merges):
    return list(rank_lowest(word, merges[:1]))


def rank_greedy(word, merges):
    return greedy(word, {*word, *("".join(p) for p in merges)}, "")


def rank_leftmost(word, merges):
    tokens = list(word)
    i = 0
    while i < len(tokens) - 1:
        if (tokens[i], tokens[i + 1]) in merges:
            tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
            i = 0
        else:
            i += 1
    return tokens


def greedy(word, vocab, prefix="##", shortest=False, partial=False):
    out, start = [], 0
    while start < len(word):
        ends = range(len(word), start, -1)
        for end in reversed(ends) if shortest else ends:
            if (prefix if start else "") + word[start:end] in vocab:
                break
        else:
            return [*out, "[UNK]"] if partial else ["[UNK]"]
        out.append((prefix if start else "") + word[start:end])
        start = end
    return out


def recursive_match(word, vocab, inside=False):
    if not word:
        return []
    for end in range(len(word), 0, -1):
        token = ("##" if inside else "") + word[:end]
        if token in vocab:
            rest = recursive_match(word[end:], vocab, True)
            return ["[UNK]"] if rest == ["[UNK]"] else [token, *rest]
    return ["[UNK]"]


def unmarked(word, vocab):
    return [token.removeprefix("##") for token in greedy(word, vocab)]


def prefixless_lookup(word, vocab):
    plain = {token.removeprefix("##") for token in vocab}
    return [("##" if i else "") + t for i, t in enumerate(greedy(word, plain, ""))]


def viterbi(text, log_probs):
    best = [(0.0, [])]
    for end in range(1, len(text) + 1):
        options = [
            (best[start][0] + log_probs[text[start:end]], [*best[start][1], text[start:end]])
            for start in range(max(0, end - 8), end)
            if text[start:end] in log_probs
        ]
        best.append(max(options))
    return best[-1][1]


def viterbi_back(text, log_probs):
    score = np.full(len(text) + 1, -np.inf)
    score[0], came_from = 0, [0] * (len(text) + 1)
    for start in range(len(text)):
        for token, value in log_probs.items():
            end = start + len(token)
            if text.startswith(token, start) and score[start] + value > score[end]:
                score[end], came_from[end] = score[start] + value, start
    out, end = [], len(text)
    while end:
        out.append(text[came_from[end] : end])
        end = came_from[end]
    return tuple(out[::-1])


def fewest(text, log_probs):
    return viterbi(text, {token: -1.0 - 1e-6 * len(token) for token in log_probs})


def likeliest_first(text, log_probs):
    out = []
    while text:
        token = max((t for t in log_probs if text.startswith(t)), key=log_probs.get)
        out.append(token)
        text = text[len(token) :]
    return out


def sum_of_probabilities(text, log_probs):
    # maximises the sum of probabilities, not of their logarithms
    return viterbi(text, {t: math.exp(v) for t, v in log_probs.items()})


RIGHT = {
    "utf8_bytes": [utf8_shifts, utf8_text, lambda code: np.array(utf8_shifts(code), np.uint8)],
    "weighted_pair_counts": [pairs_counter, pairs_loop],
    "merge_once": [
        merge_while,
        merge_pending,
        lambda *args: torch.tensor(merge_while(*args), dtype=torch.int64),
    ],
    "encode_by_rank": [rank_passes, rank_lowest],
    "longest_match": [greedy, recursive_match],
    "most_probable_cut": [viterbi, viterbi_back],
}
WRONG = [
    ("utf8_bytes", lambda code: [code], "Latin-1"),
    ("utf8_bytes", lambda code: chr(code).encode("utf-16-be"), "UTF-16"),
    ("utf8_bytes", reversed_tail, "reverse order"),
    ("utf8_bytes", no_mark, "start with the bits 10"),
    ("utf8_bytes", wrong_lead, "first byte is wrong"),
    ("utf8_bytes", lambda code: utf8_shifts(code)[:3], "another number of bytes"),
    ("utf8_bytes", chr, "should be a list"),
    (
        "weighted_pair_counts",
        lambda words: pairs_counter(dict.fromkeys(words, 1)),
        "each distinct word once",
    ),
    ("weighted_pair_counts", pairs_across, "end of one word"),
    ("weighted_pair_counts", pairs_ordered, "keep the order"),
    ("weighted_pair_counts", pairs_short, "words' ends|look at"),
    ("weighted_pair_counts", pairs_distinct, "counts twice"),
    ("weighted_pair_counts", lambda words: list(pairs_counter(words)), "dictionary"),
    ("merge_once", merge_first, "first occurrence only"),
    ("merge_once", merge_drops_last, "lose the last id"),
    ("merge_once", merge_step_one, "too long"),
    ("merge_once", merge_in_place, "changes the arguments"),
    (
        "merge_once",
        lambda ids, pair, new: merge_while(ids[::-1], pair[::-1], new)[::-1],
        "the left one wins",
    ),
    ("merge_once", lambda ids, pair, new: merge_while(ids, pair[::-1], new), "nothing|another"),
    ("encode_by_rank", rank_greedy, "longest token"),
    ("encode_by_rank", lambda word, merges: rank_passes(word, merges[::-1]), "reverse"),
    ("encode_by_rank", rank_once, "could still be merged"),
    ("encode_by_rank", rank_leftmost, "longest token|wrong order|reverse"),
    ("encode_by_rank", lambda word, merges: list(word), "merges nothing"),
    ("encode_by_rank", lambda word, merges: rank_passes(word, merges)[:-1], "join"),
    ("longest_match", lambda w, v: greedy(w, v, partial=True), "one [UNK]"),
    ("longest_match", lambda w, v: greedy(w, v, shortest=True), "not the longest"),
    ("longest_match", unmarked, "need ##"),
    ("longest_match", prefixless_lookup, "looked up with its ##"),
    ("longest_match", lambda w, v: [w] if w in v else ["[UNK]"], "gives up"),
    ("most_probable_cut", lambda text, lp: greedy(text, lp, ""), "longest token"),
    ("most_probable_cut", fewest, "as few tokens|longest token"),
    ("most_probable_cut", likeliest_first, "starts with the likeliest"),
    ("most_probable_cut", sum_of_probabilities, "another cut|starts with the likeliest|likelier"),
    ("most_probable_cut", lambda text, lp: viterbi(text, lp)[1:], "join"),
    ("most_probable_cut", lambda text, lp: [text], "no probability"),
]


@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers]
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_right_answers_pass(name, answer, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.passed, result


@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_wrong_answers_are_explained(name, answer, words, seed):
    result = getattr(checks, name)(answer, seed=seed)
    assert result.status == "failed"
    assert any(word in result.message for word in words.split("|")), result


@pytest.mark.parametrize("name", RIGHT)
def test_an_untouched_stub_is_not_attempted(name):
    def stub(*args, **kwargs):
        raise NotImplementedError("Hint")

    assert getattr(checks, name)(stub).status == "not attempted"
    assert not getattr(checks, name)(lambda *args, **kwargs: None).passed


def test_every_check_has_enough_wrong_answers():
    assert set(checks.names(2)) == set(RIGHT)
    for name in RIGHT:
        assert sum(wrong_name == name for wrong_name, _, _ in WRONG) >= 4
