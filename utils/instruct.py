"""From instructions and answers to training batches, and from prompts to answers; chapter 16.

    examples = [encode_chat(tokenizer, prompt, reply) for prompt, reply in pairs]
    batches = ExampleBatches(examples, 8, collate_chat)          # for utils.train.train
    answers = replies(model, tokenizer, prompts, max_new_tokens=40)

Where only upper blocks are trained, the states below them never change: `cache_states` computes
them once, and `upper_loss` trains what lies above, reading only the positions that have a target.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.arguments import (
    LARGEST_WHOLE,
    as_ids,
    as_list,
    as_number,
    as_whole_number,
    check_features,
    check_ids_range,
    check_tensor,
    check_text,
    check_tokenizer,
    check_type,
)
from utils.attention import causal_mask
from utils.cache import KVCache
from utils.generate import draw, next_token_logits
from utils.llama import SYSTEM, Llama, chat_prompt
from utils.losses import IGNORE

END_OF_TURN = "<|im_end|>"


class ChatExample(NamedTuple):
    """Token ids of a conversation, and for each the target it is as the *next* token, or -100."""

    ids: list[int]
    labels: list[int]


class CachedChat(NamedTuple):
    """States (T, C) below the first trained block, and the token that should follow each."""

    states: Tensor
    targets: Tensor


def instructions() -> dict[str, Any]:
    """Return the course's own small sets for chapter 16.

    Returns
    -------
    dict
        "train" and "test": lists of [question, answer], each answer in the manner to be learned;
        "facts": lists of [beginning, right end, wrong end]; "summaries": film -> our summary of
        its plot in `utils.data.film_plots`.
    """
    path = Path(__file__).parent / "data" / "instructions.json"
    return json.loads(path.read_text(encoding="utf-8"))


def in_manner(answer: str, most_words: int = 25) -> bool:
    """Say whether an answer is what chapter 16 teaches: one line "Roger, … Over.", and short."""
    check_text(answer=answer)
    most_words = as_whole_number("most_words", most_words)
    match = re.fullmatch(r"Roger, (\S.*[.!?]) Over\.", answer)
    if not match or len(answer.split()) > most_words:
        return False
    return not re.search(r"\bover[.!?]|\broger\b", match[1], re.IGNORECASE)


def encode_chat(
    tokenizer: Any,
    prompt: str | Sequence[dict[str, str]],
    reply: str,
    *,
    system: str = SYSTEM,
    train_end: bool = True,
) -> ChatExample:
    """Turn a question and its answer into ids and labels.

    Parameters
    ----------
    tokenizer
        Called as those of `transformers` are.
    prompt : str or sequence of {"role": ..., "content": ...}
        What the user says, or the whole conversation up to the reply.
    reply : str
        What the assistant is to say; the end of its turn is added.
    system : str
        What the system says if the conversation does not begin with it.
    train_end : bool
        Whether the end of the turn is a target. Without it a model never learns to stop.

    Returns
    -------
    ChatExample
        Two lists of one length. Labels are -100 for all that others have said.

    Raises
    ------
    TypeError, ValueError
        If a text is no string, or a message has no role or content.
    """
    check_tokenizer("tokenizer", tokenizer)
    check_text(reply=reply, system=system)
    if not isinstance(prompt, str):
        prompt = as_list("prompt", prompt, dict)
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    before = tokenizer(chat_prompt(messages, system), add_special_tokens=False)["input_ids"]
    answer = tokenizer(reply + END_OF_TURN, add_special_tokens=False)["input_ids"]
    labels = [IGNORE] * len(before) + list(answer)
    if not train_end:
        labels[-1] = IGNORE
    return ChatExample([*before, *answer], labels)


def plain_text(ids: Sequence[int], given: int = 1) -> ChatExample:
    """Make an example of a text that is no conversation: all tokens after the first `given`."""
    ids = as_ids("ids", ids)
    given = as_whole_number("given", given, 0, len(ids))
    return ChatExample(list(ids), [IGNORE] * given + list(ids[given:]))


def collate_chat(examples: Sequence[ChatExample], rng: Any = None) -> tuple[Tensor, Tensor]:
    """Pad on the right and shift: (inputs, targets), both (B, T), for a causal model.

    Padding needs no mask: it comes after all real tokens, which a causal model does not let them
    see, and its own targets are -100.

    Raises
    ------
    TypeError, ValueError
        If there are no examples, or none has two tokens.
    """
    examples = as_list("examples", examples, ChatExample, least=1)
    longest = max(len(example.ids) for example in examples)
    if longest < 2:
        raise ValueError("an example of one token has no next token to learn")
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    labels = torch.full((len(examples), longest), IGNORE)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        labels[row, : len(example.labels)] = torch.tensor(example.labels)
    return ids[:, :-1], labels[:, 1:]


@torch.no_grad()
def cache_states(
    model: Llama, examples: Sequence[ChatExample], first_block: int, batch_size: int = 8
) -> list[CachedChat]:
    """Run everything below `first_block` once over all examples.

    Returns
    -------
    list of CachedChat
        In the order of the examples, on the CPU.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or there is no such block.
    """
    check_type("model", model, Llama)
    examples = as_list("examples", examples, ChatExample)
    first_block = as_whole_number("first_block", first_block, 0, len(model.blocks))
    batch_size = as_whole_number("batch_size", batch_size, 1)
    cached: list[Any] = [None] * len(examples)
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].ids))
    device = model.embedding.weight.device
    for begin in range(0, len(order), batch_size):
        some = order[begin : begin + batch_size]
        inputs, targets = collate_chat([examples[i] for i in some])
        check_ids_range(inputs, model.config.vocab_size, "the examples' ids")
        states = model.embedding(inputs.to(device))  # (B, T, C)
        for block in model.blocks[:first_block]:
            states = block(states)
        for row, i in enumerate(some):
            length = len(examples[i].ids) - 1
            cached[i] = CachedChat(states[row, :length].cpu().clone(), targets[row, :length])
    return cached


def collate_cached(examples: Sequence[CachedChat], rng: Any = None) -> tuple[Tensor, Tensor]:
    """Pad cached states (B, T, C) and targets (B, T) on the right."""
    examples = as_list("examples", examples, CachedChat, least=1)
    states, targets = zip(*examples, strict=True)
    pad = nn.utils.rnn.pad_sequence
    return pad(states, batch_first=True), pad(targets, batch_first=True, padding_value=IGNORE)


def upper_loss(model: Llama, batch: tuple[Tensor, Tensor], first_block: int) -> Tensor:
    """Return the mean cross-entropy of a batch of cached states, in nats per target.

    The output layer, one fifth of SmolLM2, is applied only where there is a target.
    """
    states, targets, wanted = _through_upper(model, batch, first_block)
    if not bool(wanted.any()):
        raise ValueError("batch has no target that counts: all are -100")
    logits = model.output_layer(model.norm(states[wanted]))  # (number of targets, V)
    return F.cross_entropy(logits.float(), targets[wanted])


@torch.no_grad()
def token_losses(model: Llama, batch: tuple[Tensor, Tensor], first_block: int) -> Tensor:
    """Return the cross-entropy of every target of cached states, (B, T); 0 where there is none."""
    states, targets, wanted = _through_upper(model, batch, first_block)
    losses = torch.zeros(targets.shape, device=targets.device)
    logits = model.output_layer(model.norm(states[wanted]))
    losses[wanted] = F.cross_entropy(logits.float(), targets[wanted], reduction="none")
    return losses


def _through_upper(
    model: Llama, batch: tuple[Tensor, Tensor], first_block: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the upper blocks; return states, targets, and where a target counts."""
    check_type("model", model, Llama)
    first_block = as_whole_number("first_block", first_block, 0, len(model.blocks))
    batch = as_list("batch", batch, Tensor)
    if len(batch) != 2:
        raise ValueError(f"batch must be states and targets, not {len(batch)} tensors")
    states, targets = batch
    check_features("batch[0], the states,", states, model.embedding.weight, axes=3)
    shape = str(tuple(states.shape[:2]))
    check_tensor("batch[1], the targets,", targets, shape, "int", like=states, values=True)
    for block in model.blocks[first_block:]:
        states = block(states)
    wanted = targets != IGNORE
    check_ids_range(targets[wanted], model.config.vocab_size, "batch[1], the targets,")
    return states, targets, wanted


@torch.no_grad()
def replies(
    model: Llama,
    tokenizer: Any,
    prompts: Sequence[str | Sequence[dict[str, str]]],
    max_new_tokens: int = 40,
    *,
    system: str = SYSTEM,
    temperature: float = 0.0,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int = 0,
) -> list[str]:
    """Answer several prompts at once; the weights are read once for all of them.

    Parameters
    ----------
    model : Llama
    tokenizer : transformers.PreTrainedTokenizerBase
    prompts : sequence of str, or of conversations
        As for `encode_chat`.
    max_new_tokens : int
        An answer that is longer is cut off.
    system : str
    temperature, top_p, repetition_penalty
        As for `utils.generate.next_token_logits`; temperature 0 takes the likeliest token.
    seed : int
        For what is drawn.

    Returns
    -------
    list of str
        Without the end of the turn; an answer that was cut off ends in " …".
    """
    if isinstance(prompts, str) or not prompts:
        raise TypeError("prompts should be a list of prompts with at least one: give [prompt]")
    check_type("model", model, Llama)
    check_tokenizer("tokenizer", tokenizer)
    check_text(system=system)
    max_new_tokens = as_whole_number("max_new_tokens", max_new_tokens)
    seed = as_whole_number("seed", seed, most=LARGEST_WHOLE)
    temperature = as_number("temperature", temperature)
    rows = []
    for prompt in as_list("prompts", prompts, str, list, tuple):
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        rows.append(tokenizer(chat_prompt(messages, system), add_special_tokens=False)["input_ids"])
    device, end = model.embedding.weight.device, tokenizer.convert_tokens_to_ids(END_OF_TURN)
    longest = max(map(len, rows))
    # Padding on the left: every row's next token comes after its last one.
    ids = torch.tensor([[end] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[False] * (longest - len(row)) + [True] * len(row) for row in rows])
    mask = None if bool(mask.all()) else mask.to(device)
    cache = KVCache(model.config.num_layers, longest + max_new_tokens)
    generator = torch.Generator().manual_seed(seed)
    options = {"temperature": temperature, "top_p": top_p, "repetition_penalty": repetition_penalty}
    new, done = ids, torch.zeros(len(rows), 1, dtype=torch.bool, device=device)
    for _ in range(max_new_tokens):
        logits = next_token_logits(_last_logits(model, new, cache, mask), ids, **options)  # (B, V)
        new = logits.argmax(-1, keepdim=True) if temperature == 0 else draw(logits, generator)
        new = torch.where(done, end, new)
        done |= new == end
        ids = torch.cat([ids, new], dim=1)
        if bool(done.all()):
            break
        if mask is not None:
            mask = torch.cat([mask, torch.ones_like(done)], dim=1)
    answers = []
    for row in ids[:, longest:].tolist():
        text = tokenizer.decode(row[: row.index(end)] if end in row else row)
        answers.append(text if end in row else text + " …")
    return answers


def _last_logits(model: Llama, ids: Tensor, cache: KVCache, mask: Tensor | None) -> Tensor:
    """Run the blocks over all tokens, and the large output layer over the last alone."""
    allowed = None
    if mask is not None:
        causal = torch.from_numpy(causal_mask(ids.shape[1], mask.shape[1])).to(ids.device)
        allowed = mask[:, None, None, :] & causal  # (B, 1, T, T_k)
    x = model.embedding(ids)
    for layer, block in enumerate(model.blocks):
        x = block(x, allowed, cache, layer)
    return model.output_layer(model.norm(x[:, -1]))
