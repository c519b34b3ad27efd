"""Two heads on an encoder: a label for every token, and where an answer starts and ends.

Derived in chapter 15, after Devlin et al. (2019, arXiv:1810.04805), sections 4.2 and 5.3. The
decoding of what they return is in `utils.spans`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.arguments import (
    LARGEST_SIZE,
    as_list,
    as_number,
    as_whole_number,
    check_function,
    check_ids_range,
    check_tensor,
    check_type,
)
from utils.bert import Bert
from utils.losses import IGNORE
from utils.tokenizers import pad_batch


class TokenTagger(nn.Module):
    """An encoder and one linear layer, the same for every token.

    Parameters
    ----------
    encoder : Bert
    num_labels : int
        K.
    dropout : float
        On the encoder's output.
    """

    def __init__(self, encoder: Bert, num_labels: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_type("encoder", encoder, Bert)
        self.encoder = encoder
        self.dropout = nn.Dropout(as_number("dropout", dropout, 0, 1))
        num_labels = as_whole_number("num_labels", num_labels, 1)
        self.head = nn.Linear(encoder.config.d_model, num_labels)

    def forward(
        self,
        ids: Tensor,
        segment_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Return logits of shape (B, T, K); arguments as for `Bert`."""
        return self.head(self.dropout(self.encoder(ids, segment_ids, attention_mask)))


class SpanReader(nn.Module):
    """An encoder and two vectors: one scores each token as an answer's start, one as its end.

    Parameters
    ----------
    encoder : Bert
    dropout : float
    """

    def __init__(self, encoder: Bert, dropout: float = 0.0) -> None:
        super().__init__()
        check_type("encoder", encoder, Bert)
        self.encoder = encoder
        self.dropout = nn.Dropout(as_number("dropout", dropout, 0, 1))
        self.head = nn.Linear(encoder.config.d_model, 2)

    def forward(
        self,
        ids: Tensor,
        segment_ids: Tensor,
        attention_mask: Tensor,
        candidates: Tensor,
    ) -> Tensor:
        """Return logits of start and end.

        Parameters
        ----------
        ids, segment_ids, attention_mask
            As for `Bert`.
        candidates : torch.Tensor of bool, shape (B, T)
            Where an answer may start or end; elsewhere the logits are so low that the softmax
            gives 0. Each row needs at least one True.

        Returns
        -------
        torch.Tensor, shape (B, 2, T)
            `logits[:, 0]` for the start, `logits[:, 1]` for the end.
        """
        hidden = self.dropout(self.encoder(ids, segment_ids, attention_mask))  # (B, T, C)
        logits = self.head(hidden).transpose(1, 2)  # (B, 2, T)
        check_tensor("candidates", candidates, str(tuple(ids.shape)), "bool", like=ids)
        return logits.masked_fill(~candidates[:, None, :], torch.finfo(logits.dtype).min)


def span_loss(model: SpanReader, batch: Sequence[Tensor]) -> Tensor:
    """Return the mean of -log p(start) and -log p(end), in nats per boundary.

    Parameters
    ----------
    model : SpanReader
    batch : (ids, segment_ids, attention_mask, candidates, targets)
        As `collate_spans` makes it; `targets` (B, 2) holds the first and the last token.

    Raises
    ------
    TypeError, ValueError
        If the batch is none, or a target is not the place of a token.
    """
    check_type("model", model, SpanReader)
    batch = as_list("batch", batch, Tensor)
    if len(batch) != 5:
        raise ValueError(f"batch must have the 5 tensors of collate_spans, not {len(batch)}")
    *inputs, targets = batch
    logits = model(*inputs).float()  # (B, 2, T)
    check_tensor("batch[4]", targets, f"({len(logits)}, 2)", "int", like=logits, some=True)
    check_ids_range(targets, logits.shape[2], "the targets, batch[4],")
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def collate_tags(pad_id: int) -> Callable[[list[Any], np.random.Generator], tuple[Tensor, ...]]:
    """Return a function that pads examples `(ids, segment_ids, labels)` for a `TokenTagger`.

    It returns ids, segment_ids, attention_mask and labels, all of shape (B, T); labels are -100
    at padding.
    """
    as_whole_number("pad_id", pad_id, -LARGEST_SIZE)

    def collate(examples: list[Any], rng: np.random.Generator | None = None) -> tuple[Tensor, ...]:
        rows = list(zip(*examples, strict=True))
        ids, mask = pad_batch(rows[0], pad_id)
        segments, _ = pad_batch(rows[1], 0)
        labels, _ = pad_batch(rows[2], IGNORE)
        return tuple(map(torch.from_numpy, (ids, segments, mask, labels)))

    return collate


def collate_spans(pad_id: int) -> Callable[[list[Any], np.random.Generator], tuple[Tensor, ...]]:
    """Return a function that pads `(ids, segment_ids, candidates, (start, end))` for `SpanReader`.

    It returns ids, segment_ids, attention_mask and candidates, of shape (B, T), and targets (B, 2).
    """
    as_whole_number("pad_id", pad_id, -LARGEST_SIZE)

    def collate(examples: list[Any], rng: np.random.Generator | None = None) -> tuple[Tensor, ...]:
        rows = list(zip(*examples, strict=True))
        ids, mask = pad_batch(rows[0], pad_id)
        segments, _ = pad_batch(rows[1], 0)
        candidates, _ = pad_batch(rows[2], 0)
        arrays = (ids, segments, mask, candidates.astype(bool), np.array(rows[3]))
        return tuple(map(torch.from_numpy, arrays))

    return collate


@torch.no_grad()
def predict(
    model: nn.Module,
    examples: Sequence[Any],
    collate: Callable[..., tuple[Tensor, ...]],
    batch_size: int = 64,
) -> list[np.ndarray]:
    """Return the model's log-probabilities for each example, without padding.

    Examples of like length are read together, so that little of the work goes into padding.

    Parameters
    ----------
    model : TokenTagger or SpanReader
        Put into evaluation mode, and left in it.
    examples : sequence of tuples
        As for `collate`.
    collate : callable
        What `collate_tags` or `collate_spans` returned.
    batch_size : int

    Returns
    -------
    list of numpy.ndarray
        For a tagger (T, K): of each label at each token. For a reader (2, T): of each token as
        start and as end.
    """
    check_type("model", model, TokenTagger, SpanReader)
    check_function(collate=collate)
    batch_size = as_whole_number("batch_size", batch_size, 1)
    examples = as_list("examples", examples, tuple, list)
    if any(not example for example in examples):
        raise ValueError("an entry of examples is empty: each needs ids first")
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(examples)), key=lambda i: len(examples[i][0]))
    results: list[np.ndarray] = [np.empty(0)] * len(examples)
    for place in range(0, len(order), batch_size):
        chosen = order[place : place + batch_size]
        batch = collate([examples[i] for i in chosen])
        *inputs, _ = as_list("what collate returns", batch, Tensor, least=2)
        log_probs = model(*(x.to(device) for x in inputs)).float().log_softmax(dim=-1).cpu()
        is_tagger = isinstance(model, TokenTagger)
        for i, row in zip(chosen, log_probs.numpy(), strict=True):
            length = len(examples[i][0])
            results[i] = row[:length] if is_tagger else row[:, :length]
    return results
