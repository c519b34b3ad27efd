"""Each claim of chapter 20 about an error or a silent result, asked of the libraries themselves.

If a release changes one of these, the chapter's text has to change with it.
"""

import math
import warnings

import numpy as np
import pytest
import torch
import transformers
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from utils import audit
from utils.attention import scaled_dot_product_attention
from utils.counting import NGramCounts
from utils.layers import MultiHeadAttention, TransformerBlock
from utils.ngrams import AddK
from utils.tokenizers import ByteLevelBPE

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return BertModel(BertConfig(**SIZES, initializer_range=0.3)).eval()


@pytest.fixture(scope="module")
def writer():
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "n_positions": 80, "n_layer": 2, "n_head": 2, "n_embd": 32}
    config = GPT2Config(**sizes, initializer_range=0.4, bos_token_id=None, eos_token_id=None)
    return GPT2LMHeadModel(config).eval()


@pytest.fixture
def words():
    """A fast tokenizer of four words, without a padding token, and no file."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"[UNK]": 0, "to": 1, "be": 2, "[END]": 3}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="[END]")


# 1. Raw strings


@pytest.mark.parametrize("given", ["a film", ["a film", "a book"], [5, 6, 7]])
def test_what_is_no_tensor_raises_attribute_error(encoder, given):
    with pytest.raises(AttributeError, match="has no attribute 'size'"):
        encoder(given)


def test_ids_need_a_batch_axis(encoder):
    with pytest.raises(ValueError, match="not enough values to unpack"):
        encoder(torch.tensor([5, 6, 7]))


def test_two_arguments_are_one_sequence(words):
    assert np.ndim(words("to be", "be")["input_ids"]) == 1
    assert np.ndim(words(["to be", "be be"])["input_ids"]) == 2


# 2. A TensorFlow optimiser


def test_tensorflow_and_its_models_are_not_there():
    with pytest.raises(ImportError):
        from transformers import TFBertModel  # noqa: F401


def test_torch_optimisers_take_tensors_and_not_the_model():
    model = nn.Linear(2, 1)
    with pytest.raises(TypeError, match="not iterable"):
        torch.optim.AdamW(model)
    assert len(torch.optim.AdamW(model.parameters()).param_groups[0]["params"]) == 2
    assert not hasattr(next(model.parameters()), "assign_sub")
    assert not hasattr(torch.optim.AdamW, "apply_gradients")


def test_compile_is_another_thing_in_torch():
    with pytest.raises(TypeError, match="unexpected keyword argument 'optimizer'"):
        nn.Linear(2, 1).compile(optimizer="adam")


# 3. The mask


def test_a_nested_list_is_no_mask(encoder):
    ids = torch.tensor([[5, 6, 0], [7, 8, 9]])
    with pytest.raises(AttributeError, match="'list' object has no attribute"):
        encoder(ids, attention_mask=[[1.0, 1.0, 0.0], [1.0] * 3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.long, torch.bool])
def test_transformers_takes_masks_of_any_type(encoder, dtype):
    ids = torch.tensor([[5, 6, 0, 0]])
    mask = torch.tensor([[1, 1, 0, 0]])
    with torch.no_grad():
        masked = encoder(ids, attention_mask=mask.to(dtype)).last_hidden_state[:, :2]
        alone = encoder(ids[:, :2]).last_hidden_state
        unmasked = encoder(ids).last_hidden_state[:, :2]
    assert torch.allclose(masked, alone, atol=1e-5)
    assert not torch.allclose(unmasked, alone, atol=1e-2)


def test_torch_adds_a_float_mask_to_the_scores():
    zeros, mask = torch.zeros(1, 4, 8), torch.tensor([[[1, 1, 0, 0]]])
    weights = F.scaled_dot_product_attention(zeros, zeros, torch.eye(4)[None], mask.float())
    assert math.isclose(weights[0, 0, 3], 1 / (2 * math.e + 2), rel_tol=1e-5)
    weights = F.scaled_dot_product_attention(zeros, zeros, torch.eye(4)[None], mask.bool())
    assert weights[0, 0, 3] == 0


def test_our_layers_refuse_a_float_mask():
    with pytest.raises(TypeError, match="boolean"):
        MultiHeadAttention(8, 2)(torch.zeros(1, 4, 8), attention_mask=torch.ones(1, 1, 4))


def test_only_some_models_pad_with_zero():
    pads = {
        kind: getattr(transformers, f"{kind}Config")().pad_token_id
        for kind in ("Bert", "Roberta", "T5", "GPT2", "Llama")
    }
    assert pads == {"Bert": 0, "Roberta": 1, "T5": 0, "GPT2": None, "Llama": None}
    assert ByteLevelBPE.train("some text", vocab_size=257).decode([0]) == "!"


# 4. The product rule


def test_the_product_sums_to_the_probability_of_the_prefix():
    counts = NGramCounts("the cat sat on the mat", order=3)
    model = AddK(counts, order=3, k=0.1)
    product = np.exp([model.log_prob("the" + char) for char in counts.vocabulary])
    assert np.isclose(product.sum(), np.exp(model.log_prob("the")))
    assert product.sum() < 0.5
    assert np.allclose(product / product.sum(), model.distribution("the"))


# 5. A weight matrix instead of V


def test_attention_averages_values_and_a_fixed_matrix_does_not():
    rng = np.random.default_rng(0)
    queries, keys, values, fixed = rng.normal(size=(4, 5, 3))
    output, weights = scaled_dot_product_attention(queries, keys, values)
    assert (output <= values.max(axis=0) + 1e-9).all()
    assert (output >= values.min(axis=0) - 1e-9).all()
    assert (weights @ (fixed + 10) > values.max(axis=0)).all()  # wherever its rows lie


# 6. One norm, one residual


def test_the_merged_layer_hides_tokens_from_its_feed_forward_network():
    torch.manual_seed(0)
    block = TransformerBlock(16, 2, norm_first=False).eval()
    nn.init.zeros_(block.attention.query_proj.weight)
    nn.init.zeros_(block.attention.query_proj.bias)
    with torch.no_grad():
        x = torch.randn(1, 5, 16)
        collected = block.attention(x)  # what the merged layer's network would be given
        merged = block.feed_forward_norm(x + block.feed_forward(collected))
        assert collected.std(dim=1).max() < 1e-6
        assert not torch.allclose(block(x), merged, atol=1e-2)


# 7. Encodings are a dictionary


def test_iterating_encodings_gives_their_names(words):
    words.pad_token = "[END]"
    encodings = words(["to be", "be", "to", "be be"], padding=True, return_tensors="pt")
    assert all(isinstance(name, str) for name in encodings)
    assert len(encodings) == len(list(encodings.keys())) != len(encodings["input_ids"]) == 4


# 8. Labels


def test_cross_entropy_wants_whole_numbers():
    with pytest.raises(RuntimeError, match="Long"):
        F.cross_entropy(torch.randn(3, 2), torch.tensor([0.0, 1.0, 1.0]))


def test_transformers_chooses_the_loss_by_the_labels():
    ids = torch.randint(5, 50, (4, 6))
    classes = torch.tensor([0, 1, 1, 0])
    one_hot = F.one_hot(classes, 2).float()
    for num_labels, labels, loss in (
        (2, classes, F.cross_entropy),
        (2, one_hot, F.binary_cross_entropy_with_logits),
        (1, classes.float(), lambda logits, given: F.mse_loss(logits[:, 0], given)),
    ):
        model = BertForSequenceClassification(BertConfig(**SIZES, num_labels=num_labels)).eval()
        output = model(input_ids=ids, labels=labels)
        assert torch.allclose(output.loss, loss(output.logits, labels))


# 9. BERT does not write


def test_an_encoder_has_no_generate_and_sees_everything(encoder):
    with pytest.raises(AttributeError, match="generate"):
        encoder.generate(torch.tensor([[5, 6]]))
    ids = torch.arange(5, 11)
    assert audit.influence(lambda x: encoder(x).last_hidden_state, ids, 50).all()


# 10. The training sentences


def test_labels_drawn_at_random_are_known_by_heart():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 300))
    labels = rng.integers(2, size=400)  # nothing can be learned
    model = LogisticRegression(C=100, max_iter=1000).fit(features[:200], labels[:200])
    assert model.score(features[:200], labels[:200]) == 1.0
    assert abs(model.score(features[200:], labels[200:]) - 0.5) < 0.15


# 11. generate


def continuation(writer, ids, mask=None, **options):
    options = {"do_sample": False, "pad_token_id": 39, "max_new_tokens": 12} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = writer.generate(torch.tensor(ids), attention_mask=mask, **options)
    return written[0, len(ids[0]) :].tolist()


@pytest.mark.parametrize("prompt_length", [4, 25])
def test_twenty_new_tokens_are_the_default(writer, prompt_length):
    ids = [[3, 7, 11, 2, 5] * 5][0][:prompt_length]
    assert len(continuation(writer, [ids], max_new_tokens=None)) == 20


def test_only_left_padding_with_a_mask_continues_the_prompt(writer):
    alone = continuation(writer, [[3, 7, 11, 2]])
    right, left = [3, 7, 11, 2, 39, 39], [39, 39, 3, 7, 11, 2]
    shown = torch.tensor([[1, 1, 1, 1, 0, 0]])
    options = {"eos_token_id": 39}  # padding is the end of the text
    assert continuation(writer, [left], shown.flip(1), **options) == alone
    for ids, mask in ((left, None), (right, None), (right, shown)):
        assert continuation(writer, [ids], mask, **options) != alone
    # With a padding id of its own, generate guesses the mask.
    assert continuation(writer, [left], None) == alone


def test_padding_needs_a_padding_token(words):
    with pytest.raises(ValueError, match="does not have a padding token"):
        words(["to be", "be"], padding=True)


# 12. Decoding


def test_byte_level_tokens_decode_together_only():
    bpe = ByteLevelBPE.train("the cafe of the town " * 20, vocab_size=270)
    ids = bpe.encode("the café")
    assert bpe.decode(ids) == "the café"
    assert "".join(bpe.decode([i]) for i in ids) != "the café"


# 13. AdamW


def test_adamw_is_torchs_and_decays_by_default():
    with pytest.raises(ImportError, match="AdamW"):
        from transformers import AdamW  # noqa: F401
    defaults = torch.optim.AdamW([nn.Parameter(torch.ones(1))]).defaults
    assert (defaults["weight_decay"], defaults["eps"]) == (0.01, 1e-8)
