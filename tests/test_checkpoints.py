"""The embedded checkpoints are what they are said to be, and hub names fail in one sentence."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from utils import checkpoints


@pytest.fixture(scope="module")
def encoder():
    return checkpoints.load_encoder(device="cpu")


@pytest.fixture(scope="module")
def decoder():
    return checkpoints.load_decoder(device="cpu")


def test_the_encoder_is_the_published_one(encoder):
    model, tokenizer = encoder
    assert sum(p.numel() for p in model.parameters()) == 22_713_216
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (6, 384)
    assert len(tokenizer) == 30_522
    assert not model.training
    stored = load_file(checkpoints.checkpoint_path("minilm") / "model.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, stored[name].float()), name


def test_the_encoder_knows_that_a_kitten_is_a_cat(encoder):
    model, tokenizer = encoder

    def embed(text):
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            return model(**inputs).last_hidden_state[0].mean(dim=0).numpy()

    cat, kitten, tax = map(embed, ("a cat", "a kitten", "income tax"))

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    assert cosine(cat, kitten) > cosine(cat, tax) + 0.2


def test_the_decoder_is_the_published_one_and_answers(decoder):
    model, tokenizer = decoder
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size) == (30, 576)
    assert (config.num_attention_heads, config.num_key_value_heads) == (9, 3)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(output[0][inputs["input_ids"].shape[1] :])


def test_loading_prints_nothing(capfd):
    checkpoints.load_encoder(device="cpu")
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.parametrize(
    ("load", "name", "embedded"),
    [
        (checkpoints.load_encoder, "bert-base-uncased", "minilm"),
        (checkpoints.load_decoder, "gpt2", "smollm2"),
    ],
)
def test_a_hub_name_without_a_hub_is_one_sentence(monkeypatch, tmp_path, load, name, embedded):
    monkeypatch.setattr("utils.checkpoints._hub_answers", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(checkpoints.CheckpointUnavailable) as caught:
        load(name)
    message = str(caught.value)
    assert name in message
    assert f"loads '{embedded}'" in message
    assert "\n" not in message


def test_what_is_wrong_with_a_hub_model_is_passed_on(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no-such/model is not a valid model identifier.\nMore advice.")

    monkeypatch.setattr("utils.checkpoints._hub_answers", lambda: True)
    monkeypatch.setattr("utils.checkpoints._load", refuse)
    with pytest.raises(checkpoints.CheckpointUnavailable, match="not a valid model identifier"):
        checkpoints.load_decoder("no-such/model")


def test_the_hub_is_asked_for_safetensors_only_and_never_for_code(monkeypatch):
    asked = {}

    class Kind:
        @staticmethod
        def from_pretrained(name, **options):
            asked.update(options)
            return torch.nn.Linear(1, 1)

    monkeypatch.setattr("utils.checkpoints._hub_answers", lambda: True)
    monkeypatch.setattr("transformers.AutoModel", Kind)
    monkeypatch.setattr("transformers.AutoTokenizer", Kind)
    checkpoints.load_encoder("bert-base-uncased", device="cpu")
    assert asked["use_safetensors"] is True
    assert asked["trust_remote_code"] is False


def test_offline_mode_is_respected(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("socket.create_connection", lambda *a, **k: pytest.fail("connected"))
    assert checkpoints._hub_answers() is False


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_name_must_be_a_string(name):
    with pytest.raises(ValueError, match="named by a string"):
        checkpoints.load_encoder(name)


def test_only_embedded_checkpoints_have_a_path():
    assert checkpoints.checkpoint_path("smollm2").suffix == ".gguf"
    with pytest.raises(ValueError, match="no embedded checkpoint called 'gpt2'"):
        checkpoints.checkpoint_path("gpt2")
