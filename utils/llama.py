"""A decoder as they are built today, in the shape of Llama and SmolLM2 (chapter 12).

The same forward pass as `transformers.LlamaForCausalLM`: RMSNorm, rotary positions, grouped-query
attention with a cache, SwiGLU, no biases, embeddings that may be tied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.arguments import (
    SMALLEST_TEMPERATURE,
    as_eps,
    as_ids,
    as_list,
    as_number,
    as_whole_number,
    as_whole_numbers,
    check_alike,
    check_entries,
    check_features,
    check_generator,
    check_ids,
    check_sizes,
    check_text,
    check_tokenizer,
    check_type,
    shown,
)
from utils.attention import causal_mask
from utils.cache import KVCache
from utils.layers_numpy import merge_heads, split_heads
from utils.positions import torch_rope_rotate

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes of a model.

    Parameters
    ----------
    vocab_size, d_model, num_layers, num_heads : int
        V, C, L and H.
    num_kv_heads : int
        Heads of keys and values; each serves H / num_kv_heads heads of queries.
    d_hidden : int
        The width inside the feed-forward network.
    head_dim : int, optional
        D, even; by default C / H.
    context_len : int
        The longest sequence that the model is meant for.
    rope_base : float
        `rope_theta` in the configurations of `transformers`.
    norm_eps : float
    tied : bool
        Whether the output layer is the embedding matrix.

    Raises
    ------
    ValueError
        If the sizes do not fit together.
    """

    vocab_size: int
    d_model: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    d_hidden: int
    head_dim: int | None = None
    context_len: int = 2048
    rope_base: float = 10_000.0
    norm_eps: float = 1e-5
    tied: bool = True

    def __post_init__(self) -> None:
        """Fill in the width of a head, and check that heads come in groups."""
        check_sizes(self, ("vocab_size", "d_model", "num_layers", "num_heads", "num_kv_heads"))
        check_sizes(self, ("d_hidden", "context_len"))
        as_number("rope_base", self.rope_base, 1e-30, 1e30)
        as_eps("norm_eps", self.norm_eps)
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} cannot share num_kv_heads={self.num_kv_heads} evenly: "
                "choose num_kv_heads that divides num_heads"
            )
        if self.head_dim is None:
            if self.d_model % self.num_heads:
                raise ValueError(
                    f"d_model={self.d_model} cannot be split into num_heads={self.num_heads} "
                    "heads: choose num_heads that divides it, or give head_dim"
                )
            object.__setattr__(self, "head_dim", self.d_model // self.num_heads)
        check_sizes(self, ("head_dim",))
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim}: rotary positions need an even width")

    @classmethod
    def from_transformers(cls, config: Any) -> LlamaConfig:
        """Read the sizes off a `transformers.LlamaConfig`.

        Raises
        ------
        ValueError
            If it describes something that this model does not have.
        """
        if not hasattr(config, "model_type"):
            raise TypeError(f"config must be a LlamaConfig of transformers, not {shown(config)}")
        rope = getattr(config, "rope_parameters", None) or {}
        for name, value, known in (
            ("model_type", config.model_type, "llama"),
            ("rope_type", rope.get("rope_type", "default"), "default"),
            ("hidden_act", getattr(config, "hidden_act", None), "silu"),
            ("attention_bias", getattr(config, "attention_bias", False), False),
            ("mlp_bias", getattr(config, "mlp_bias", False), False),
        ):
            if value != known:
                raise ValueError(
                    f"this model has {name}={value!r}, but utils.llama knows only {known!r}: use "
                    "the model of transformers itself"
                )
        return cls(
            vocab_size=config.vocab_size,
            d_model=config.hidden_size,
            num_layers=config.num_hidden_layers,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            d_hidden=config.intermediate_size,
            head_dim=config.head_dim,
            context_len=config.max_position_embeddings,
            rope_base=float(rope.get("rope_theta", 10_000.0)),
            norm_eps=config.rms_norm_eps,
            tied=config.tie_word_embeddings,
        )


class RMSNorm(nn.Module):
    """Divide each token by the root of its mean square, then scale each feature.

    Zhang and Sennrich (2019), equation 4. There is no mean to subtract and no shift to add.
    """

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.d_model, self.eps = as_whole_number("d_model", d_model, 1), as_eps("eps", eps)
        self.weight = nn.Parameter(torch.ones(self.d_model))

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of `x`, (..., C)."""
        check_features("x", x, self.weight)
        return F.rms_norm(x, (self.d_model,), self.weight, self.eps)


class SwiGLU(nn.Module):
    """A feed-forward network whose hidden layer is multiplied by a gate.

    (silu(x W_gate) ∘ x W_up) W_down, with silu(z) = z σ(z): Shazeer (2020), equation 6.
    """

    def __init__(self, d_model: int, d_hidden: int) -> None:
        super().__init__()
        as_whole_numbers(1, d_model=d_model, d_hidden=d_hidden)
        self.gate_proj = nn.Linear(d_model, d_hidden, bias=False)
        self.up_proj = nn.Linear(d_model, d_hidden, bias=False)
        self.down_proj = nn.Linear(d_hidden, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of `x`, (..., C)."""
        check_features("x", x, self.gate_proj)
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class GroupedQueryAttention(nn.Module):
    """Causal attention in which several heads of queries share one head of keys and values.

    Ainslie et al. (2023), section 2.2, with rotary positions. One head of keys and values is
    multi-query attention (Shazeer 2019), as many as of queries is multi-head attention.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        check_type("config", config, LlamaConfig)
        self.config = config
        width, kv_width = (n * config.head_dim for n in (config.num_heads, config.num_kv_heads))
        self.query_proj = nn.Linear(config.d_model, width, bias=False)
        self.key_proj = nn.Linear(config.d_model, kv_width, bias=False)
        self.value_proj = nn.Linear(config.d_model, kv_width, bias=False)
        self.output_proj = nn.Linear(width, config.d_model, bias=False)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, cache: KVCache | None = None, layer: int = 0
    ) -> Tensor:
        """Let each token of `x` look at itself and at those before it, the cached ones included.

        Parameters
        ----------
        x : torch.Tensor, shape (B, T, C)
        mask : torch.Tensor of bool, shape (B or 1, 1, T, T_k), optional
            True = may attend, the future already hidden. By default all of the past.
        cache : KVCache, optional
            Where earlier keys and values are, and these will be.
        layer : int
            Which layer of the cache is ours.

        Returns
        -------
        torch.Tensor, shape (B, T, C)
        """
        c = self.config
        check_features("x", x, self.query_proj, axes=3)
        if cache is not None:
            check_type("cache", cache, KVCache)
        start = 0 if cache is None else cache.length
        queries = split_heads(self.query_proj(x), c.num_heads)  # (B, H, T, D)
        keys = split_heads(self.key_proj(x), c.num_kv_heads)  # (B, H_kv, T, D)
        values = split_heads(self.value_proj(x), c.num_kv_heads)
        turned = torch_rope_rotate(torch.cat([queries, keys], 1), start, base=c.rope_base)
        queries, keys = turned.split([c.num_heads, c.num_kv_heads], dim=1)
        if cache is not None:
            keys, values = cache.update(layer, keys, values)  # (B, H_kv, T_k, D)
        if mask is not None:
            _check_mask(mask, x, keys.shape[2])
        elif start and x.shape[1] > 1:
            mask = _causal(x.shape[1], start, x.device)
        if mask is None:
            heads = F.scaled_dot_product_attention(
                queries, keys, values, is_causal=start == 0, enable_gqa=True
            )
        else:
            nothing = ~mask.any(dim=-1, keepdim=True)  # queries that may look at nothing get 0
            heads = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=mask | nothing, enable_gqa=True
            ).masked_fill(nothing, 0.0)
        return self.output_proj(merge_heads(heads))


class LlamaBlock(nn.Module):
    """Attention, then SwiGLU, each behind an RMSNorm and added to what came in."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        check_type("config", config, LlamaConfig)
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        self.attention = GroupedQueryAttention(config)
        self.feed_forward_norm = RMSNorm(config.d_model, config.norm_eps)
        self.feed_forward = SwiGLU(config.d_model, config.d_hidden)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, cache: KVCache | None = None, layer: int = 0
    ) -> Tensor:
        """Return a tensor of the shape of `x`, (B, T, C); arguments as for the attention."""
        x = x + self.attention(self.attention_norm(x), mask, cache, layer)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Llama(nn.Module):
    """A decoder with its output layer: from token ids to logits."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        check_type("config", config, LlamaConfig)
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(LlamaBlock(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.output_layer = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tied:
            self.output_layer.weight = self.embedding.weight
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(
        self,
        ids: Tensor,
        cache: KVCache | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the logits of the token after each of these.

        Parameters
        ----------
        ids : torch.Tensor of integers, shape (B, T)
            With a cache, only the new tokens.
        cache : KVCache, optional
            Holds the tokens so far; these are added to it.
        attention_mask : torch.Tensor of bool, shape (B, T_k), optional
            True = a real token, False = padding, for the cached tokens (if any) and the new ones.
            Positions count the padding; as rotary positions know only distances, padding on the
            left changes nothing. The logits of padding itself mean nothing (they are finite).

        Returns
        -------
        torch.Tensor, shape (B, T, V)

        Raises
        ------
        TypeError, ValueError
            If shapes or types do not fit, or the cache is full.
        """
        check_ids(ids, self.embedding.weight)
        if cache is not None:
            check_type("cache", cache, KVCache)
        start = 0 if cache is None else cache.length
        mask = self._mask(attention_mask, *ids.shape, start, ids.device)
        x = self.embedding(ids)  # (B, T, C)
        for layer, block in enumerate(self.blocks):
            x = block(x, mask, cache, layer)
        return self.output_layer(self.norm(x))

    def _mask(
        self, real: Tensor | None, B: int, T: int, start: int, device: torch.device
    ) -> Tensor | None:
        """Join padding and causality to (B, 1, T, T_k); None where causality is all there is."""
        if real is None:
            return None
        if not isinstance(real, Tensor) or real.dtype != torch.bool:
            raise TypeError(
                "attention_mask should be a boolean tensor with True for a real token; for a "
                "tokenizer's ones and zeros pass mask.bool()"
            )
        if tuple(real.shape) != (B, start + T):
            raise ValueError(
                f"attention_mask of shape {tuple(real.shape)} should be (B, T_k) = "
                f"{(B, start + T)}: one value for each cached token ({start}) and each new one"
            )
        if real.device != device:
            raise ValueError(f"attention_mask is on the device {real.device}, but ids on {device}")
        return real[:, None, None, :] & _causal(T, start, device)

    @classmethod
    def from_transformers(cls, model: Any) -> Llama:
        """Take over the weights of a `transformers.LlamaForCausalLM`.

        The tensors are the same ones, not copies: the weights are in memory once, and training one
        model trains both.
        """
        if not isinstance(model, nn.Module) or not hasattr(model, "config"):
            raise TypeError(f"model must be a LlamaForCausalLM of transformers, not {shown(model)}")
        config = LlamaConfig.from_transformers(model.config)
        with torch.device("meta"):  # no memory, no random numbers: all weights will be replaced
            ours = cls(config)
        weights = {our_name(name): tensor for name, tensor in model.named_parameters()}
        ours.load_state_dict(weights, strict=not config.tied, assign=True)
        if config.tied:
            ours.output_layer.weight = ours.embedding.weight
        missing = [name for name, tensor in ours.named_parameters() if tensor.is_meta]
        if missing:
            raise ValueError(f"the model has no weights for {missing}")
        return ours.train(model.training)


OUR_NAMES = {
    "model.embed_tokens": "embedding",
    "model.layers": "blocks",
    "model.norm": "norm",
    "lm_head": "output_layer",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "feed_forward_norm",
    "self_attn": "attention",
    "mlp": "feed_forward",
    "q_proj": "query_proj",
    "k_proj": "key_proj",
    "v_proj": "value_proj",
    "o_proj": "output_proj",
}


def our_name(name: str) -> str:
    """Translate the name of a parameter of `transformers` into ours."""
    check_text(name=name)
    for theirs, ours in OUR_NAMES.items():
        name = name.replace(theirs, ours)
    return name


def load_llama(device: torch.device | str | None = None) -> tuple[Llama, Any]:
    """Load SmolLM2-135M-Instruct into our own class, and its tokenizer; no network is needed.

    The file holds most weights in 4 bits; they are unpacked to float32.

    Returns
    -------
    model : Llama
        In evaluation mode.
    tokenizer : transformers.PreTrainedTokenizerBase
    """
    from utils.checkpoints import load_decoder

    model, tokenizer = load_decoder(device=device)
    return Llama.from_transformers(model), tokenizer


def chat_prompt(messages: Sequence[dict[str, str]], system: str = SYSTEM) -> str:
    """Write a conversation as the text that SmolLM2 was trained on, up to the assistant's turn.

    Parameters
    ----------
    messages : sequence of {"role": ..., "content": ...}
        Roles are "system", "user" and "assistant".
    system : str
        What the system says where the messages do not begin with a system's.
    """
    check_text(system=system)
    messages = as_list("messages", messages)
    for place, message in enumerate(messages):
        check_entries(f"messages[{place}]", message, ("role", "content"))
        check_text(**{f"messages[{place}]['role']": message["role"]})
        check_text(**{f"messages[{place}]['content']": message["content"]})
    if not messages or messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


@torch.no_grad()
def generate_ids(
    model: Llama,
    ids: Sequence[int],
    max_new_tokens: int = 100,
    *,
    temperature: float = 0.0,
    stop_ids: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """Yield one new token after the other.

    Parameters
    ----------
    model : Llama
    ids : sequence of int
        The tokens to continue, at least one.
    max_new_tokens : int
    temperature : float
        0 takes the likeliest token each time; otherwise tokens are drawn from
        softmax(logits / temperature).
    stop_ids : sequence of int
        Tokens that end the text; they are not yielded.
    generator : torch.Generator, optional
        The randomness, on the model's device.

    Raises
    ------
    ValueError
        If there is nothing to continue, more than the model's context, or a negative temperature.
    """
    check_type("model", model, Llama)
    ids, stop_ids = as_ids("ids", ids, model.config.vocab_size), as_ids("stop_ids", stop_ids)
    max_new_tokens = as_whole_number("max_new_tokens", max_new_tokens)
    check_generator("generator", generator)
    context, device = model.config.context_len, model.embedding.weight.device
    if not 0 < len(ids) <= context - max_new_tokens:
        raise ValueError(
            f"{len(ids)} tokens and {max_new_tokens} new ones: the model needs at least one to "
            f"continue and has a context of {context}"
        )
    temperature = as_number("temperature", temperature)
    if temperature < 0 or 0 < temperature < SMALLEST_TEMPERATURE:
        raise ValueError(
            f"a temperature is 0 (the likeliest token), or {SMALLEST_TEMPERATURE:g} or more, not "
            f"{temperature}"
        )
    cache = KVCache(model.config.num_layers, len(ids) + max_new_tokens)
    new = torch.tensor([list(ids)], device=device)  # (1, T) at first, then (1, 1)
    for _ in range(max_new_tokens):
        logits = model(new, cache)[0, -1]  # (V,)
        if temperature == 0:
            token = int(logits.argmax())
        else:
            probs = (logits / temperature).softmax(dim=-1)
            token = int(torch.multinomial(probs, 1, generator=generator))
        if token in stop_ids:
            return
        yield token
        new = torch.tensor([[token]], device=device)


def stream(
    model: Llama,
    tokenizer: Any,
    prompt: str,
    max_new_tokens: int = 100,
    *,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[str]:
    """Yield the continuation of a text piece by piece, as soon as each piece is certain.

    A character may be spread over several byte-level tokens; it comes when its last byte is there.
    The text ends at the tokenizer's end-of-text token. Arguments as for `generate_ids`.
    """
    check_text(prompt=prompt)
    check_tokenizer("tokenizer", tokenizer)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    options = {"temperature": temperature, "stop_ids": (tokenizer.eos_token_id,)}
    generated = generate_ids(model, ids, max_new_tokens, generator=generator, **options)
    new, shown = [], 0
    for token in generated:
        new.append(token)
        text = tokenizer.decode(new, skip_special_tokens=True)
        if not text.endswith("\ufffd"):  # the mark of an unfinished character
            yield text[shown:]
            shown = len(text)
    rest = tokenizer.decode(new, skip_special_tokens=True)[shown:]
    if rest:  # cut off in the middle of a character
        yield rest


def _check_mask(mask: Tensor, x: Tensor, num_keys: int) -> None:
    """Raise unless a mask of booleans can be stretched to (B, H, T, T_k)."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"mask should be a boolean tensor, True = may attend, not {shown(mask)}")
    B, T, _ = x.shape
    wanted = (B, 1, T, num_keys)
    fits = mask.ndim == 4 and all(
        given in (1, size) for given, size in zip(mask.shape, wanted, strict=True)
    )
    if not fits:
        given = tuple(mask.shape)
        raise ValueError(f"mask should have shape (B or 1, 1, T, T_k), {wanted}, not {given}")
    check_alike("mask", mask, x)


def _causal(T: int, start: int, device: torch.device) -> Tensor:
    """Return which of the start + T keys each of the T new queries may see, (T, T_k)."""
    return torch.from_numpy(causal_mask(T, start + T)).to(device)
