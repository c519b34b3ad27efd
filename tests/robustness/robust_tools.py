"""Small right values to build examples of: arrays, tensors, models that fit into a millisecond."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from robust_judge import Example
from torch import Tensor

from utils.bert import Bert, BertConfig, BertForPreTraining
from utils.gpt import GPT, GPTConfig
from utils.llama import Llama, LlamaConfig
from utils.seq2seq import Seq2Seq, Seq2SeqConfig
from utils.speedrun import Recipe
from utils.speedrun_model import SpeedrunGPT
from utils.tokenizers import ByteLevelBPE, CharTokenizer, WordPiece

V, C, H, T, B = 11, 8, 2, 4, 3  # vocabulary, width, heads, length, batch of every example
TEXT = "to be or not to be that is the question "


def right(
    on: Any = None,
    then: Any = None,
    changes: tuple[str, ...] = (),
    skip: dict[str, str] | None = None,
    skip_kinds: dict[tuple[str, str], str] | None = None,
    called: dict[str, str] | None = None,
    around: Any = None,
    **arguments: Any,
) -> Example:
    """Write an example of right arguments."""
    return Example(
        arguments, on, then, frozenset(changes), skip or {}, skip_kinds or {}, called or {}, around
    )


def array(*shape: int, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    """Return float64 numbers, the same each time."""
    return np.random.default_rng(0).uniform(low, high, shape)


def shares(*shape: int) -> np.ndarray:
    """Return distributions along the last axis."""
    positive = array(*shape, low=0.1)
    return positive / positive.sum(axis=-1, keepdims=True)


def whole(*shape: int, high: int = V) -> np.ndarray:
    """Return int64 numbers from 0."""
    return np.random.default_rng(1).integers(high, size=shape)


def tensor(*shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Return a float32 tensor."""
    return torch.from_numpy(array(*shape, low=low, high=high)).float()


def ids(*shape: int, high: int = V) -> Tensor:
    """Return token ids, by default (B, T)."""
    return torch.from_numpy(whole(*(shape or (B, T)), high=high))


def flags(*shape: int) -> Tensor:
    """Return a mask of booleans, by default (B, T), with padding at the end of the first row."""
    mask = torch.ones(shape or (B, T), dtype=torch.bool)
    mask[..., -1][:1] = False
    return mask


def none_of(*shape: int) -> np.ndarray:
    """Return a numpy mask in which a few are False."""
    mask = np.ones(shape, dtype=bool)
    mask[..., -1] = False
    return mask


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# ----------------------------------------------------------------------------------- models


def bert_config(**changes: Any) -> BertConfig:
    sizes = {"context_length": 6, "num_layers": 1, "num_heads": H, "d_model": C, "d_hidden": 8}
    return BertConfig(V, **(sizes | {"dropout": 0.0} | changes))


def bert() -> Bert:
    return Bert(bert_config()).eval()


def bert_for_pretraining() -> BertForPreTraining:
    return BertForPreTraining(bert_config()).eval()


def gpt(**changes: Any) -> GPT:
    sizes = {"context_length": 6, "num_layers": 1, "num_heads": H, "d_model": C}
    return GPT(GPTConfig(V, **(sizes | changes))).eval()


def llama_config(**changes: Any) -> LlamaConfig:
    sizes = {"d_model": C, "num_layers": 1, "num_heads": H, "num_kv_heads": 1, "d_hidden": 8}
    return LlamaConfig(V, **(sizes | {"context_len": 16} | changes))


def llama() -> Llama:
    return Llama(llama_config()).eval()


def seq2seq_config(**changes: Any) -> Seq2SeqConfig:
    sizes = {"num_layers": 1, "num_heads": H, "d_model": C, "d_hidden": 8, "max_length": 6}
    return Seq2SeqConfig(V, **(sizes | changes))


def seq2seq() -> Seq2Seq:
    return Seq2Seq(seq2seq_config()).eval()


def recipe(**changes: Any) -> Recipe:
    sizes = {"updates": 2, "batch_size": 2, "context_length": 4, "num_layers": 1, "num_heads": H}
    return Recipe(**(sizes | {"d_model": C, "d_hidden": 8, "warmup": 1} | changes))


def speedrun_gpt(**changes: Any) -> SpeedrunGPT:
    return SpeedrunGPT(recipe(**changes), V).eval()


# -------------------------------------------------------------------------------- tokenizers


def word_piece() -> WordPiece:
    return WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "to", "be", "or", "##t", "no"])


def bpe() -> ByteLevelBPE:
    return ByteLevelBPE.train(TEXT, 260, special_tokens=["<|end|>"])


def characters() -> CharTokenizer:
    return CharTokenizer.train(TEXT)


class ChatTokenizer:
    """What `utils.instruct` and `utils.llama` ask of a tokenizer of `transformers`."""

    eos_token_id = 2

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [3 + ord(char) % 7 for char in text][:5]}

    def decode(self, tokens: list[int], skip_special_tokens: bool = False) -> str:
        return "".join(chr(97 + token) for token in tokens)

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.eos_token_id
