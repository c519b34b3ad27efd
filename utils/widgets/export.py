"""Take out of the released encoder what the attention explorer needs of its first layer.

    .venv/bin/python -m utils.widgets.export

In the first layer, what a head sees of a word depends on the word and its position only. So a few
numbers per word and per position are enough to compute the head's true weights for any sentence
of these words. They are written to utils/widgets/encoder_heads.json, which is committed: showing
the explorer takes no checkpoint.

The vector of a word w at position t is LayerNorm(e_w + p_t) = γ (a_w + b_t) / σ_wt + β, where a_w
and b_t are the two embeddings less their means (the segment's embedding is taken into e_w), and
σ²_wt is the mean square of a_w + b_t. A head's query is this times W_Q plus a bias, so it is
(A_w + B_t) / σ_wt + c with A_w = (γ a_w) W_Q and so on; keys and values likewise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.widgets.base import pack
from utils.widgets.words import features

FILE = Path(__file__).resolve().parent / "encoder_heads.json"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
LENGTH = 18  # positions: 14 words, the two marks, and room for padding
HEADS = (2, 4)  # from 0; the third looks at the token before, the fifth pairs words up


def main() -> None:
    """Write the file."""
    data = exported()
    FILE.write_text(json.dumps(data, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{FILE.name}: {len(data['words'])} words, {FILE.stat().st_size / 1000:.0f} kB")


def exported() -> dict[str, Any]:
    """Return words, variances, and three kinds of projections for each head."""
    from utils.checkpoints import load_encoder

    model, tokenizer = load_encoder(device="cpu")
    words = [*SPECIAL, *features()]
    ids = tokenizer.convert_tokens_to_ids(words)
    if tokenizer.unk_token_id in [
        number for word, number in zip(words, ids, strict=True) if word != "[UNK]"
    ]:
        raise ValueError("a word of the list is not one token for this encoder: leave it out")
    weights = {name: _array(tensor) for name, tensor in model.state_dict().items()}
    segment = weights["embeddings.token_type_embeddings.weight"][0]
    by_word = _centred(weights["embeddings.word_embeddings.weight"][ids] + segment)  # (V, C)
    by_place = _centred(weights["embeddings.position_embeddings.weight"][:LENGTH])  # (T, C)
    gain, shift = (weights[f"embeddings.LayerNorm.{part}"] for part in ("weight", "bias"))
    C, H = by_word.shape[1], model.config.num_attention_heads
    heads = []
    for head in HEADS:
        columns = slice(head * C // H, (head + 1) * C // H)
        parts = {}
        for name in ("query", "key", "value"):
            layer = f"encoder.layer.0.attention.self.{name}"
            matrix = weights[f"{layer}.weight"][columns].T  # (C, D)
            parts[name] = {
                "word": pack((gain * by_word) @ matrix),  # (V, D)
                "place": pack((gain * by_place) @ matrix),  # (T, D)
                "constant": pack(shift @ matrix + weights[f"{layer}.bias"][columns]),  # (D,)
            }
        heads.append({"head": head + 1, **parts})
    return {
        "words": words,
        "epsilon": model.config.layer_norm_eps,
        "wordSquare": pack((by_word**2).mean(axis=1)),
        "placeSquare": pack((by_place**2).mean(axis=1)),
        "product": pack(2 * by_word @ by_place.T / C),  # (V, T)
        "heads": heads,
    }


def _array(tensor: Any) -> NDArray[np.float64]:
    return tensor.detach().double().numpy()


def _centred(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x - x.mean(axis=-1, keepdims=True)


if __name__ == "__main__":
    main()
