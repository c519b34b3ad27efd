"""Beam search against exhaustive search, a reference in plain Python, and transformers."""

import itertools
import math

import pytest
import torch

from utils.beam import PrefixDecoder, beam_search, greedy_search, length_penalty
from utils.seq2seq import Seq2Seq, Seq2SeqConfig

STOP = 2


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Tables:
    """Random next-token logits for every source and prefix: a model without any structure."""

    def __init__(self, vocab_size, seed=0, sharpness=2.0):
        self.vocab_size, self.seed, self.sharpness = vocab_size, seed, sharpness

    def one(self, prefix, source):
        digest = hash((self.seed, source, *prefix)) % 2**31  # of integers: the same in every run
        generator = torch.Generator().manual_seed(digest)
        return self.sharpness * torch.randn(self.vocab_size, generator=generator).double()

    def __call__(self, ids, sources):
        rows = zip(ids.tolist(), sources.tolist(), strict=True)
        return torch.stack([self.one(tuple(prefix), source) for prefix, source in rows])

    def log_prob(self, sequence, source, start=1):
        total, prefix = 0.0, (start,)
        for token in sequence:
            total += self.one(prefix, source).log_softmax(-1)[token].item()
            prefix += (token,)
        return total


def all_sequences(vocab_size, max_length):
    """Every sequence that stops, and those of full length that do not."""
    others = [t for t in range(vocab_size) if t != STOP]
    for length in range(max_length + 1):
        for body in itertools.product(others, repeat=length):
            if length == max_length:
                yield body
            else:
                yield (*body, STOP)


def reference_beam(tables, source, beam_size, max_length, alpha=0.0):
    """One source, lists and sorting, and no early end."""
    live, finished = [(0.0, ())], []
    for length in range(1, max_length + 1):
        candidates = []
        for log_prob, prefix in live:
            step = tables.one((1, *prefix), source).log_softmax(-1).tolist()
            candidates += [(log_prob + step[t], (*prefix, t)) for t in range(len(step))]
        candidates.sort(reverse=True)
        for log_prob, sequence in candidates[:beam_size]:
            if sequence[-1] == STOP or length == max_length:
                finished.append((log_prob / length_penalty(length, alpha), log_prob, sequence))
        live = [c for c in candidates if c[1][-1] != STOP][:beam_size]
    return sorted(finished, reverse=True)[:beam_size]


def stripped(row):
    row = row.tolist()
    return tuple(row[: row.index(STOP) + 1] if STOP in row else row)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize(("vocab_size", "max_length"), [(3, 4), (4, 3), (5, 2)])
def test_a_wide_beam_is_exhaustive(vocab_size, max_length, alpha):
    tables = Tables(vocab_size, seed=vocab_size)
    found = beam_search(
        PrefixDecoder(tables),
        torch.ones(3, dtype=torch.int64),
        beam_size=vocab_size**max_length,
        max_length=max_length,
        stop_id=STOP,
        alpha=alpha,
    )
    for source in range(3):
        ranked = sorted(
            (
                (tables.log_prob(s, source) / length_penalty(len(s), alpha), s)
                for s in all_sequences(vocab_size, max_length)
            ),
            reverse=True,
        )
        for place, (score, sequence) in enumerate(ranked):
            assert stripped(found.ids[source, place]) == sequence
            assert found.scores[source, place].item() == pytest.approx(score)
        assert (found.scores[source, len(ranked) :] == -math.inf).all()


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("beam_size", [1, 2, 3, 5])
def test_a_narrow_beam_equals_the_reference(beam_size, alpha):
    for vocab_size, max_length, seed in ((4, 6, 0), (7, 5, 1), (12, 8, 2)):
        tables = Tables(vocab_size, seed=seed, sharpness=1.5)
        found = beam_search(
            PrefixDecoder(tables),
            torch.ones(4, dtype=torch.int64),
            beam_size=beam_size,
            max_length=max_length,
            stop_id=STOP,
            alpha=alpha,
        )
        for source in range(4):
            expected = reference_beam(tables, source, beam_size, max_length, alpha)
            for place, (score, log_prob, sequence) in enumerate(expected):
                assert stripped(found.ids[source, place]) == sequence
                assert found.scores[source, place].item() == pytest.approx(score)
                assert found.log_probs[source, place].item() == pytest.approx(log_prob)


def test_greedy_is_argmax_after_argmax_and_a_beam_of_one():
    for seed in range(5):
        tables = Tables(6, seed=seed)
        starts = torch.ones(4, dtype=torch.int64)
        ids = greedy_search(PrefixDecoder(tables), starts, max_length=7, stop_id=STOP)
        beam = beam_search(
            PrefixDecoder(tables), starts, beam_size=1, max_length=7, stop_id=STOP
        ).ids[:, 0]
        for source in range(4):
            sequence = []
            while len(sequence) < 7 and STOP not in sequence:
                sequence.append(int(tables.one((1, *sequence), source).argmax()))
            assert stripped(ids[source]) == stripped(beam[source]) == tuple(sequence)


def test_what_stops_is_filled_up_with_the_stop_token():
    def function(ids, sources):  # source s stops after s tokens
        logits = torch.zeros(len(ids), 5)
        logits[:, 3] = 3.0
        logits[ids.shape[1] > sources, STOP] = 9.0
        return logits

    starts = torch.ones(3, dtype=torch.int64)
    ids = greedy_search(PrefixDecoder(function), starts, max_length=9, stop_id=STOP)
    assert ids.tolist() == [[2, 2, 2], [3, 2, 2], [3, 3, 2]]


def tiny_model(num_layers=2, vocab_size=11):
    torch.manual_seed(1)
    model = Seq2Seq(Seq2SeqConfig(vocab_size, num_layers, num_heads=2, d_model=8, max_length=12))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return model.double().eval()


def test_the_cached_decoder_searches_as_the_whole_model_does():
    model = tiny_model()
    source = torch.tensor([[4, 5, 6, 7], [8, 9, 0, 0], [3, 0, 0, 0]])
    memory, mask = model.encode(source), model.source_mask(source)

    def whole(ids, sources):
        return model.decode(ids, memory[sources], mask[sources])[:, -1]

    starts = torch.ones(3, dtype=torch.int64)
    options = {"max_length": 8, "stop_id": STOP}
    greedy = [
        greedy_search(decoder, starts, **options)
        for decoder in (model.start_decoding(source), PrefixDecoder(whole))
    ]
    assert torch.equal(*greedy)
    for beam_size, alpha in ((2, 0.0), (4, 0.6)):
        ours, expected = (
            beam_search(decoder, starts, beam_size=beam_size, alpha=alpha, **options)
            for decoder in (model.start_decoding(source, 8), PrefixDecoder(whole))
        )
        assert torch.equal(ours.ids, expected.ids)
        torch.testing.assert_close(ours.scores, expected.scores)


def test_a_batch_finds_what_each_source_finds_alone():
    model = tiny_model()
    sources = [[4, 5, 6, 7], [8, 9], [3]]
    padded = torch.tensor([s + [0] * (4 - len(s)) for s in sources])
    options = {"beam_size": 3, "max_length": 8, "stop_id": STOP, "alpha": 0.6}
    together = beam_search(
        model.start_decoding(padded), torch.ones(3, dtype=torch.int64), **options
    )
    for row, source in enumerate(sources):
        decoder = model.start_decoding(torch.tensor([source]))
        alone = beam_search(decoder, torch.ones(1, dtype=torch.int64), **options)
        assert [stripped(ids) for ids in together.ids[row]] == [stripped(i) for i in alone.ids[0]]
        torch.testing.assert_close(together.scores[row], alone.scores[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("beam_size", [2, 4])
def test_the_same_sequences_as_transformers(beam_size):
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=13,
        d_model=16,
        d_kv=4,
        d_ff=16,
        num_layers=1,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=STOP,
        decoder_start_token_id=1,
        tie_word_embeddings=False,
    )
    theirs = T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    source = torch.randint(3, 13, (3, 5))
    memory = theirs.encoder(source).last_hidden_state

    def function(ids, sources):
        outputs = theirs(encoder_outputs=(memory[sources],), decoder_input_ids=ids)
        return outputs.logits[:, -1]

    expected = theirs.generate(
        source,
        num_beams=beam_size,
        num_return_sequences=beam_size,
        max_new_tokens=8,
        length_penalty=0.0,
        early_stopping="never",
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
    )
    found = beam_search(
        PrefixDecoder(function),
        torch.ones(3, dtype=torch.int64),
        beam_size=beam_size,
        max_length=8,
        stop_id=STOP,
    )
    for row, ids in enumerate(expected.sequences):
        source_row, place = divmod(row, beam_size)
        assert stripped(found.ids[source_row, place]) == stripped(ids[1:])
    torch.testing.assert_close(
        found.scores.flatten(), expected.sequences_scores, rtol=1e-4, atol=1e-4
    )


def test_length_penalty_is_that_of_the_paper():
    assert length_penalty(7, 0.0) == 1
    assert length_penalty(1, 0.9) == 1
    assert length_penalty(7, 1.0) == 2
    assert length_penalty(19, 0.5) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, "beam_size must be"),
        ({"beam_size": 2.0}, "beam_size must be"),
        ({"max_length": 0}, "max_length must be"),
        ({"alpha": -1.0}, "alpha must be"),
        ({"starts": torch.ones(1, 1, dtype=torch.int64)}, "shape \\(B,\\)"),
    ],
)
def test_bad_input_is_named(options, message):
    starts = options.pop("starts", torch.ones(1, dtype=torch.int64))
    settings = {"beam_size": 2, "max_length": 3, "stop_id": STOP} | options
    with pytest.raises(ValueError, match=message):
        beam_search(PrefixDecoder(Tables(4)), starts, **settings)
