"""Move weights between our BERT and others': `transformers` models and released checkpoints.

Use it from `utils.bert`. Both sides keep the same matrices in the same layout; only the names
differ, and `bert_name` translates them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from utils import checkpoints
from utils.arguments import as_device, check_text, check_type, shown
from utils.bert import Bert, BertConfig, BertForPreTraining
from utils.tokenizers import WordPiece
from utils.train import get_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_OUTSIDE = {  # a block
    "token_embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "segment_embedding": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "pooler": "pooler.dense",
    "token_head.transform": "cls.predictions.transform.dense",
    "token_head.norm": "cls.predictions.transform.LayerNorm",
    "token_head": "cls.predictions",
    "next_head": "cls.seq_relationship",
}
_INSIDE = {
    "attention.query_proj": "attention.self.query",
    "attention.key_proj": "attention.self.key",
    "attention.value_proj": "attention.self.value",
    "attention.output_proj": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "feed_forward.up_proj": "intermediate.dense",
    "feed_forward.down_proj": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}


def bert_name(name: str) -> str:
    """Return what the released BERTs call one of our parameters.

    Parameters
    ----------
    name : str
        Such as "blocks.0.attention.query_proj.weight", or with "bert." in front.

    Returns
    -------
    str
        Such as "encoder.layer.0.attention.self.query.weight".

    Raises
    ------
    TypeError, ValueError
        If no parameter is called so.
    """
    check_text(name=name)
    prefix = "bert." if name.startswith("bert.") else ""
    module, _, kind = name.removeprefix(prefix).rpartition(".")  # kind is weight or bias
    blocks, _, inside = module.partition(".")
    number, _, inside = inside.partition(".")
    if blocks == "blocks" and number.isdecimal() and inside in _INSIDE:
        return f"{prefix}encoder.layer.{number}.{_INSIDE[inside]}.{kind}"
    if module not in _OUTSIDE:
        raise ValueError(
            f"no parameter of a BERT is called {name!r}: names are such as "
            "'blocks.0.attention.query_proj.weight'"
        )
    return f"{prefix}{_OUTSIDE[module]}.{kind}"


def from_transformers(theirs: PreTrainedModel) -> Bert | BertForPreTraining:
    """Return our model with copies of the weights of a `transformers` one, in evaluation mode.

    Parameters
    ----------
    theirs : transformers.BertModel or transformers.BertForPreTraining

    Returns
    -------
    Bert or BertForPreTraining

    Raises
    ------
    ValueError
        If it is another kind of model, or departs from BERT's architecture.
    """
    kind = {"BertModel": Bert, "BertForPreTraining": BertForPreTraining}.get(type(theirs).__name__)
    if kind is None:
        raise ValueError(
            f"a {type(theirs).__name__} cannot be converted: give a BertModel or a "
            "BertForPreTraining"
        )
    first = next(theirs.parameters())
    model = kind(_our_config(theirs.config.to_dict())).to(first.device, first.dtype)
    _copy_into(model, theirs.state_dict())
    return model.eval()


@torch.no_grad()
def to_transformers(model: Bert | BertForPreTraining) -> PreTrainedModel:
    """Return a `transformers` model with copies of our model's weights, in evaluation mode.

    Parameters
    ----------
    model : Bert or BertForPreTraining

    Returns
    -------
    transformers.BertModel or transformers.BertForPreTraining
    """
    import transformers

    check_type("model", model, Bert, BertForPreTraining)

    config = model.config
    kind = transformers.BertModel if isinstance(model, Bert) else transformers.BertForPreTraining
    theirs = kind(
        transformers.BertConfig(
            vocab_size=config.vocab_size,
            max_position_embeddings=config.context_length,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            hidden_size=config.d_model,
            intermediate_size=config.d_hidden,
            type_vocab_size=config.num_segments,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            layer_norm_eps=config.norm_eps,
            initializer_range=config.init_std,
            pad_token_id=None,
        )
    )
    first = next(model.parameters())
    theirs = theirs.to(first.device, first.dtype)
    state = theirs.state_dict()  # its decoder is tied to the embeddings: filled with them
    for name, tensor in model.state_dict().items():
        state[bert_name(name)].copy_(tensor)
    return theirs.eval()


def load_bert(
    name: str = checkpoints.ENCODER, device: torch.device | str | None = None
) -> tuple[Bert, WordPiece]:
    """Load a released encoder into our class, with its tokenizer.

    Parameters
    ----------
    name : str
        "minilm" (embedded, read without `transformers`), or a BERT of the model hub, such as
        "bert-base-uncased" or "bert-base-chinese".
    device : torch.device or str, optional
        By default what `utils.get_device()` returns.

    Returns
    -------
    model : Bert
        In evaluation mode.
    tokenizer : WordPiece

    Raises
    ------
    CheckpointUnavailable
        If a hub name cannot be had.
    ValueError
        If the checkpoint is no BERT.
    """
    device = get_device() if device is None else as_device("device", device)
    check_text(name=name)
    if name != checkpoints.ENCODER:
        theirs, their_tokenizer = checkpoints.load_encoder(name, device)
        return from_transformers(theirs), word_piece(their_tokenizer)
    from safetensors.torch import load_file

    folder = checkpoints.checkpoint_path(name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = Bert(_our_config(config))
    _copy_into(model, load_file(folder / "model.safetensors"))
    return model.to(device).eval(), WordPiece.from_file(folder / "vocab.txt")


def word_piece(their_tokenizer: Any) -> WordPiece:
    """Return our WordPiece with the vocabulary of a `transformers` tokenizer of a BERT."""
    if not hasattr(their_tokenizer, "backend_tokenizer"):
        given = shown(their_tokenizer)
        raise TypeError(f"their_tokenizer must be a fast tokenizer of transformers, not {given}")
    settings = json.loads(their_tokenizer.backend_tokenizer.to_str())
    if settings["model"]["type"] != "WordPiece":
        raise ValueError(f"this tokenizer is a {settings['model']['type']}, not a WordPiece")
    return WordPiece(settings["model"]["vocab"], lowercase=settings["normalizer"]["lowercase"])


def _our_config(theirs: Mapping[str, Any]) -> BertConfig:
    """Translate a configuration, or say in what it is not a BERT's."""
    expected = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
        "tie_word_embeddings": True,
    }
    for name, wanted in expected.items():
        if theirs.get(name, wanted) != wanted:
            raise ValueError(
                f"a BERT has {name}={wanted!r}, the given model {theirs[name]!r}: what it "
                "computes would differ"
            )
    return BertConfig(
        vocab_size=theirs["vocab_size"],
        context_length=theirs["max_position_embeddings"],
        num_layers=theirs["num_hidden_layers"],
        num_heads=theirs["num_attention_heads"],
        d_model=theirs["hidden_size"],
        d_hidden=theirs["intermediate_size"],
        num_segments=theirs["type_vocab_size"],
        dropout=theirs["hidden_dropout_prob"],
        norm_eps=theirs["layer_norm_eps"],
        init_std=theirs["initializer_range"],
    )


@torch.no_grad()
def _copy_into(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Fill our parameters from a checkpoint; ValueError if one is missing or of another shape."""
    for name, tensor in model.state_dict().items():
        source = weights.get(bert_name(name))
        if source is None or source.shape != tensor.shape:
            found = "is not there" if source is None else f"has shape {tuple(source.shape)}"
            raise ValueError(
                f"the checkpoint's {bert_name(name)}, for our {name} of shape "
                f"{tuple(tensor.shape)}, {found}: does its configuration belong to it?"
            )
        tensor.copy_(source)
