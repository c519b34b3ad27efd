"""utils.llama against transformers, against the formulas, and against multi-head attention."""

import numpy as np
import pytest
import torch
import transformers

from utils import checkpoints, layers, llama, positions
from utils.cache import KVCache

TINY = {
    "vocab_size": 61,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,  # so that attention is far from uniform
}
SIZES = [
    {"num_key_value_heads": 1, "tie_word_embeddings": True},
    {"num_key_value_heads": 2, "tie_word_embeddings": False},
    {"num_key_value_heads": 3, "tie_word_embeddings": True, "rms_norm_eps": 0.3},
    {"num_key_value_heads": 6, "tie_word_embeddings": False, "head_dim": 10},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def pair(**changes):
    """A random model of transformers, and ours with its weights."""
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**(TINY | changes))).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "norm" in name:
                parameter.add_(0.5 * torch.randn_like(parameter))
    return llama.Llama.from_transformers(theirs), theirs


def tiny(**changes):
    sizes = {
        "vocab_size": 61,
        "d_model": 48,
        "num_layers": 2,
        "num_heads": 6,
        "num_kv_heads": 2,
        "d_hidden": 40,
    }
    return llama.LlamaConfig(**(sizes | changes))


def left_padded(B, T):
    mask = torch.ones(B, T, dtype=torch.bool)
    for b in range(B):
        mask[b, :b] = False
    return mask


# The whole model


@pytest.mark.parametrize("changes", SIZES)
@pytest.mark.parametrize(("B", "T"), [(1, 1), (3, 9)])
@torch.no_grad()
def test_logits_equal_those_of_transformers(changes, B, T):
    ours, theirs = pair(**changes)
    ids = torch.randint(61, (B, T))
    torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("changes", SIZES)
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_as_in_transformers(changes, side):
    ours, theirs = pair(**changes)
    ids, mask = torch.randint(61, (4, 8)), left_padded(4, 8)
    mask = mask if side == "left" else mask.flip(1)
    got = ours(ids, attention_mask=mask)
    expected = theirs(ids, attention_mask=mask.long()).logits
    torch.testing.assert_close(got[mask], expected[mask], atol=1e-4, rtol=1e-4)
    assert got.isfinite().all()


@torch.no_grad()
def test_padding_does_not_change_a_text():
    ours, _ = pair()
    ids, mask = torch.randint(61, (4, 8)), left_padded(4, 8)
    padded = ours(ids, attention_mask=mask)
    for b in range(4):
        torch.testing.assert_close(padded[b, b:], ours(ids[b : b + 1, b:])[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_mask_that_hides_everything_gives_finite_logits():
    ours, _ = pair()
    assert ours(torch.randint(61, (2, 5)), attention_mask=torch.zeros(2, 5).bool()).isfinite().all()


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_equal_those_of_transformers(tied):
    ours, theirs = pair(tie_word_embeddings=tied)
    ours = llama.Llama(ours.config)  # separate tensors, so that gradients do not add up
    weights = {llama.our_name(name): tensor for name, tensor in theirs.named_parameters()}
    ours.load_state_dict(weights, strict=not tied)
    ids = torch.randint(61, (2, 7))
    for logits in (ours(ids), theirs(ids).logits):
        torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
        ).backward()
    gradients = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(gradients[llama.our_name(name)].grad, parameter.grad)


@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_shared_with_transformers_and_tied_or_not(tied):
    ours, theirs = pair(tie_word_embeddings=tied)
    assert ours.embedding.weight is theirs.model.embed_tokens.weight
    assert (ours.output_layer.weight is ours.embedding.weight) == tied
    assert ours.output_layer.weight is theirs.lm_head.weight
    count = sum(p.numel() for p in theirs.parameters())
    assert sum(p.numel() for p in ours.parameters()) == count
    assert not ours.training
    fresh = llama.Llama(ours.config)  # built without transformers: the same shapes
    assert {n: p.shape for n, p in fresh.named_parameters()} == {
        n: p.shape for n, p in ours.named_parameters()
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, "linear"),
    ],
)
def test_what_we_do_not_have_is_refused(changes, words):
    config = transformers.LlamaConfig(**(TINY | changes))
    with pytest.raises(ValueError, match=words):
        llama.LlamaConfig.from_transformers(config)


def test_another_kind_of_model_is_refused():
    with pytest.raises(ValueError, match="mistral"):
        llama.LlamaConfig.from_transformers(transformers.MistralConfig())


# The cache


@pytest.mark.parametrize("pieces", [[1] * 9, [9], [4, 1, 4], [1, 8]])
@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_the_cache_changes_nothing(pieces, padded):
    ours, _ = pair()
    ids, mask = torch.randint(61, (3, 9)), left_padded(3, 9)
    whole = ours(ids, attention_mask=mask if padded else None)
    cache, parts = KVCache(ours.config.num_layers, 12), []
    for new in ids.split(pieces, dim=1):
        end = cache.length + new.shape[1]
        parts.append(ours(new, cache, mask[:, :end] if padded else None))
        assert cache.length == end
    real = mask if padded else torch.ones_like(mask)
    torch.testing.assert_close(torch.cat(parts, 1)[real], whole[real], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_cache_takes_what_the_formula_says():
    model = llama.Llama(tiny(num_kv_heads=3)).to(torch.float16)
    cache = KVCache(model.config.num_layers, 7)
    model(torch.zeros(5, 2, dtype=torch.long), cache)
    assert cache.num_bytes == 2 * 2 * 5 * 7 * 3 * 8 * 2


@torch.no_grad()
def test_a_full_cache_says_so():
    model = llama.Llama(tiny())
    cache = KVCache(model.config.num_layers, 4)
    model(torch.zeros(1, 3, dtype=torch.long), cache)
    with pytest.raises(ValueError, match="2 more do not fit"):
        model(torch.zeros(1, 2, dtype=torch.long), cache)
    with pytest.raises(ValueError, match="a new batch needs a new cache"):
        model(torch.zeros(2, 1, dtype=torch.long), cache)
    assert cache.length == 3


def test_a_cache_is_not_for_training():
    model = llama.Llama(tiny())
    with pytest.raises(ValueError, match="no_grad"):
        model(torch.zeros(1, 3, dtype=torch.long), KVCache(model.config.num_layers, 4))


# The parts


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rms_norm_is_the_formula(dtype):
    norm = llama.RMSNorm(12, eps=0.1).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(12))
    x = 3 * torch.randn(2, 5, 12, dtype=dtype)
    wide, weight = x.double(), norm.weight.double()
    expected = wide / (wide.pow(2).mean(-1, keepdim=True) + 0.1).sqrt() * weight
    tolerance = {"atol": 0.03, "rtol": 0.02} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(norm(x), expected.to(dtype), **tolerance)
    zeros = norm(torch.zeros(3, 12, dtype=dtype))
    assert torch.equal(zeros, torch.zeros_like(zeros))


def test_swiglu_is_the_formula():
    swiglu = llama.SwiGLU(6, 10).double()
    x = torch.randn(4, 6, dtype=torch.float64)
    gate, up, down = (p.detach().numpy() for p in swiglu.parameters())
    z = x.numpy() @ gate.T
    expected = (z / (1 + np.exp(-z)) * (x.numpy() @ up.T)) @ down.T
    np.testing.assert_allclose(swiglu(x).detach().numpy(), expected)


@pytest.mark.parametrize("num_kv_heads", [1, 2, 3, 6])
def test_grouped_attention_is_multi_head_attention_with_copied_heads(num_kv_heads):
    config = tiny(num_kv_heads=num_kv_heads, rope_base=100.0)
    grouped = llama.GroupedQueryAttention(config).double()
    multi = layers.MultiHeadAttention(48, 6, bias=False).double()
    size = 6 // num_kv_heads

    def copied(weight):
        return weight.reshape(num_kv_heads, 8, 48).repeat_interleave(size, 0).reshape(48, 48)

    with torch.no_grad():
        multi.query_proj.weight.copy_(grouped.query_proj.weight)
        multi.key_proj.weight.copy_(copied(grouped.key_proj.weight))
        multi.value_proj.weight.copy_(copied(grouped.value_proj.weight))
        multi.output_proj.weight.copy_(grouped.output_proj.weight)
    x = torch.randn(2, 7, 48, dtype=torch.float64)

    def rotate(heads):
        return positions.torch_rope_rotate(heads, base=100.0)

    torch.testing.assert_close(grouped(x), multi(x, is_causal=True, rotate=rotate))


# Generating


class Bytes:
    """A tokenizer whose tokens are bytes, with 0 for the end."""

    eos_token_id = 0

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": list(text.encode())}

    def decode(self, ids, skip_special_tokens=False):
        return bytes(ids).decode(errors="replace")


class Parrot(llama.Llama):
    """Says a text whatever it is given, one byte after the other."""

    def __init__(self, text):
        super().__init__(tiny(vocab_size=256))
        self.bytes = iter(text.encode())

    def forward(self, ids, cache):
        return torch.nn.functional.one_hot(torch.tensor([[next(self.bytes)]]), 256) * 50.0


def test_streaming_waits_for_whole_characters():
    pieces = list(llama.stream(Parrot("né €!\0 unheard"), Bytes(), "?"))
    assert pieces == ["n", "é", " ", "€", "!"]
    assert list(llama.stream(Parrot("a€"), Bytes(), "?", 3)) == ["a", "\ufffd"]


def test_greedy_generation_as_in_transformers():
    ours, theirs = pair()
    ids = torch.randint(61, (1, 5))
    expected = theirs.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=12,
        min_new_tokens=12,
        do_sample=False,
        pad_token_id=0,
    )[0, 5:]
    # generate forbids its end-of-text token for as long as min_new_tokens asks; so do we
    assert theirs.generation_config.eos_token_id not in expected.tolist()
    assert list(llama.generate_ids(ours, ids[0].tolist(), 12)) == expected.tolist()


def test_sampling_follows_the_softmax_and_its_temperature():
    ours, _ = pair(initializer_range=0.15)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        probs = (ours(torch.tensor([[3, 5]]))[0, -1] / 0.7).softmax(-1)
    drawn = [
        next(llama.generate_ids(ours, [3, 5], 1, temperature=0.7, generator=generator))
        for _ in range(600)
    ]
    frequency = torch.bincount(torch.tensor(drawn), minlength=61) / 600
    assert 0.5 * (frequency - probs).abs().sum() < 0.2  # total variation
    cold = list(llama.generate_ids(ours, [3, 5], 8, temperature=1e-3, generator=generator))
    assert cold == list(llama.generate_ids(ours, [3, 5], 8))


def test_generation_stops():
    ours, _ = pair()
    whole = list(llama.generate_ids(ours, [1], 10))
    stop = whole[4]
    assert list(llama.generate_ids(ours, [1], 10, stop_ids=(stop,))) == whole[: whole.index(stop)]
    assert list(llama.generate_ids(ours, [1], 0)) == []


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: list(llama.generate_ids(m, [], 3)), "at least one"),
        (lambda m: list(llama.generate_ids(m, [1] * 2040, 9)), "context of 2048"),
        (lambda m: list(llama.generate_ids(m, [1], 3, temperature=-1)), "temperature"),
        (lambda m: m(torch.zeros(3, dtype=torch.long)), r"ids\[None\]"),
        (
            lambda m: m(torch.zeros(2, 3, dtype=torch.long), None, torch.ones(2, 4).bool()),
            r"\(2, 3\)",
        ),
    ],
)
def test_bad_input_is_explained(call, words):
    with pytest.raises(ValueError, match=words):
        call(llama.Llama(tiny()))


def test_ids_and_masks_of_the_wrong_type_are_explained():
    with pytest.raises(TypeError, match="whole numbers"):
        llama.Llama(tiny())(torch.zeros(1, 3))
    with pytest.raises(TypeError, match="bool"):
        llama.Llama(tiny())(torch.zeros(1, 3, dtype=torch.long), None, torch.ones(1, 3))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_kv_heads": 4}, "num_kv_heads"),
        ({"num_kv_heads": 0}, "num_kv_heads"),
        ({"d_model": 50}, "d_model=50"),
        ({"d_model": 42, "num_kv_heads": 6}, "even"),
    ],
)
def test_sizes_that_do_not_fit_are_explained(changes, words):
    with pytest.raises(ValueError, match=words):
        tiny(**changes)


# The published weights


@pytest.fixture(scope="module")
def smollm2():
    theirs, tokenizer = checkpoints.load_decoder(device="cpu")
    return llama.Llama.from_transformers(theirs), theirs, tokenizer


TEXTS = [
    "The capital of France is",
    "def fibonacci(n):\n    return",
    "北京是中国的首都。",
    "To be, or not to be, that is the question",
]


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_smollm2_in_our_class_equals_transformers(smollm2, side):
    ours, theirs, tokenizer = smollm2
    batch = tokenizer(TEXTS, padding=True, padding_side=side, return_tensors="pt")
    mask = batch["attention_mask"].bool()
    got, expected = ours(batch["input_ids"], attention_mask=mask), theirs(**batch).logits
    torch.testing.assert_close(got[mask], expected[mask], atol=1e-4, rtol=1e-4)


def test_smollm2_knows_the_capital_of_france(smollm2):
    ours, _, tokenizer = smollm2
    question = [{"role": "user", "content": "What is the capital of France?"}]
    answer = "".join(llama.stream(ours, tokenizer, llama.chat_prompt(question), 20))
    assert "Paris" in answer


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "Hello"}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi!\n"},
            {"role": "user", "content": " ¿Qué? "},
        ],
    ],
)
def test_the_chat_prompt_is_the_tokenizers(smollm2, messages):
    _, _, tokenizer = smollm2
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert llama.chat_prompt(messages) == expected


def test_load_llama_gives_our_class(smollm2, monkeypatch):
    _, theirs, tokenizer = smollm2
    monkeypatch.setattr(checkpoints, "load_decoder", lambda device=None: (theirs, tokenizer))
    model, same = llama.load_llama()
    assert isinstance(model, llama.Llama) and same is tokenizer
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
