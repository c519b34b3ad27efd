"""Compute the two pictures of attention that the book shows before its first chapter.

    .venv/bin/python book/figures.py

book/attention.json holds a head of the released encoder, which the website's first page draws;
book/_static/attention.svg shows a head of the released decoder, for the README. Both files are
committed, so that building the website needs no checkpoint.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

BOOK = Path(__file__).resolve().parent
sys.path.insert(0, str(BOOK.parent))

# One sentence for each model, and the two words whose strongest link chooses the head.
ENCODER_SENTENCE, ENCODER_PAIR = (
    "The animal did not cross the street because it was too tired",
    ("it", "animal"),
)
DECODER_SENTENCE, DECODER_PAIR = "Anna lost her keys and Ben found them", ("them", "keys")


def strongest_head(attentions: tuple, query: int, key: int) -> tuple[int, int]:
    """Return the layer and head that give `key` the most weight when reading `query`."""
    best = max(
        (float(layer[0, head, query, key]), number, head)
        for number, layer in enumerate(attentions)
        for head in range(layer.shape[1])
    )
    return best[1], best[2]


# ------------------------------------------------------------------------------- the encoder
def encoder_head() -> dict[str, Any]:
    """Return what the first page draws: tokens, weights, the chosen query, and words about it."""
    import torch

    from utils.checkpoints import load_encoder

    model, tokenizer = load_encoder(device="cpu")
    model.set_attn_implementation("eager")  # the only one that returns its weights
    inputs = tokenizer(ENCODER_SENTENCE, return_tensors="pt")
    tokens = tokenizer.convert_ids_to_tokens(inputs.input_ids[0])
    with torch.no_grad():
        attentions = model(**inputs, output_attentions=True).attentions
    query, key = (tokens.index(word) for word in ENCODER_PAIR)
    layer, head = strongest_head(attentions, query, key)
    weights = attentions[layer][0, head]
    count = len(attentions) * attentions[0].shape[1]
    return {
        "tokens": tokens,
        "weights": [[round(float(weight), 3) for weight in row] for row in weights],
        "query": query,
        "caption": (
            f"Reading “it”, head {head + 1} of layer {layer + 1} in a released 22.7 M-parameter "
            f"encoder looks back at “animal”. Real weights; of {count} heads, the one that "
            "does so most."
        ),
        "alt": (
            f"Attention of one head for the sentence “{ENCODER_SENTENCE}”. From the word it, the "
            f"widest line, with weight {float(weights[query, key]):.2f}, goes to the word animal."
        ),
    }


# ------------------------------------------------------------------------------- the decoder
def decoder_head() -> tuple[list[str], np.ndarray, int, int]:
    """Compute a head of the decoder with the course's own code.

    Returns
    -------
    tokens : list of str
    weights : numpy.ndarray, shape (T, T)
        By `utils.attention` from the layer's queries and keys.
    layer, head : int
        Counted from 0.

    Raises
    ------
    ValueError
        If the model itself computes other weights.
    """
    import torch
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    from utils.attention import causal_mask, scaled_dot_product_attention
    from utils.checkpoints import load_decoder

    model, tokenizer = load_decoder(device="cpu")
    model.set_attn_implementation("eager")
    inputs = tokenizer(DECODER_SENTENCE, return_tensors="pt")
    tokens = [tokenizer.decode(token).strip() for token in inputs.input_ids[0]]
    received: list[dict[str, Any]] = []  # what each layer's attention is given
    hooks = [
        block.self_attn.register_forward_pre_hook(
            lambda _module, _args, given: received.append(given), with_kwargs=True
        )
        for block in model.model.layers
    ]
    with torch.no_grad():
        attentions = model(**inputs, output_attentions=True).attentions
        layer, head = strongest_head(attentions, *(tokens.index(word) for word in DECODER_PAIR))
        module, given = model.model.layers[layer].self_attn, received[layer]
        hidden = given["hidden_states"]  # (1, T, C)
        split = (*hidden.shape[:2], -1, module.head_dim)
        queries = module.q_proj(hidden).view(split).transpose(1, 2)  # (1, H, T, D)
        keys = module.k_proj(hidden).view(split).transpose(1, 2)  # (1, H_kv, T, D)
        queries, keys = apply_rotary_pos_emb(queries, keys, *given["position_embeddings"])
    for hook in hooks:
        hook.remove()
    queries = queries[0, head].numpy()  # (T, D)
    keys = keys[0, head // module.num_key_value_groups].numpy()  # (T, D), shared by several heads
    _, weights = scaled_dot_product_attention(queries, keys, keys, mask=causal_mask(len(tokens)))
    if not np.allclose(weights, attentions[layer][0, head], atol=1e-5):
        raise ValueError("the course's code and the model disagree on the attention weights")
    return tokens, weights, layer, head


def decoder_figure() -> str:
    """Draw that head as a matrix and return the SVG."""
    from matplotlib import pyplot as plt

    from utils import plot

    tokens, weights, layer, head = decoder_head()
    plot.use_style()
    hidden = np.triu(np.ones_like(weights, dtype=bool), k=1)
    fig, ax = plt.subplots(figsize=(5.4, 4.4))
    plot.heatmap(
        ax,
        np.where(hidden, np.nan, weights),
        row_labels=tokens,
        column_labels=tokens,
        ylabel="query: the word that reads",
        xlabel="key: the word that is read",
        title=f"SmolLM2, layer {layer + 1}, head {head + 1}",
        decimals=2,
        vmin=0,
        vmax=1,
    )
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(fig)
    return buffer.getvalue()


def main() -> None:
    """Write both files."""
    data = encoder_head()
    (BOOK / "attention.json").write_text(
        json.dumps(data, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    print("attention.json:", data["caption"])
    (BOOK / "_static" / "attention.svg").write_text(decoder_figure(), encoding="utf-8")
    print("attention.svg: written; the model's own weights are the same")


if __name__ == "__main__":
    main()
