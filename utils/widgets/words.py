"""Words described by hand, as in chapter 4: each a vector of features that a reader can read.

The rows of chapter 4's sentence and its three matrices are the chapter's own (a test compares the
weights); the other words follow the same rules. 1 is yes, -1 the opposite, 0 says nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FEATURES = (
    *("noun", "verb", "pronoun", "person", "female", "plural"),
    *("Anna", "Ben", "doors", "text", "food", "animal", "people", "thing"),
)
ASKED = ("noun", "person", "female", "plural")  # the components of queries and keys
PASSED_ON = ("Anna", "Ben", "doors", "text", "food", "animal", "people")  # those of values

# What the words of a line have in common: words: features, with a minus for the opposite.
LINES = """
anna: noun person female -plural Anna
ben: noun person -female -plural Ben
maria mother sister queen girl woman: noun person female -plural people
father brother king boy man: noun person -female -plural people
teacher child friend: noun person -plural people
children friends teachers parents people: noun person plural people
keys: noun -person plural doors
key: noun -person -plural doors
letters books words: noun -person plural text
letter book word: noun -person -plural text
apples cakes: noun -person plural food
apple bread cake fish: noun -person -plural food
dogs cats horses animals: noun -person plural animal
dog cat horse animal: noun -person -plural animal
street house garden river bank money door water day night sun moon: noun -person -plural
lost found saw read ate wrote gave took bought sold liked loved called asked opened: verb
closed burned chased fed cross: verb
she her: pronoun person female -plural
he him his: pronoun person -female -plural
it its: pronoun -person -plural thing
they them their: pronoun plural
the a an and but or to of in on at near with for from because when who that was were is are:
did not too very old new big small tired happy hungry good bad hot cold red blue left right:
one two three then there:
"""


def features() -> dict[str, list[int]]:
    """Return word -> its row of `FEATURES`; the words are in lower case."""
    rows = {}
    for line in LINES.strip().splitlines():
        words, _, described = line.partition(":")
        row = [0] * len(FEATURES)
        for name in described.split():
            row[FEATURES.index(name.removeprefix("-"))] = -1 if name.startswith("-") else 1
        rows |= {word: row for word in words.split()}
    return rows


def projections() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return W_Q and W_K, shape (features, 4), and W_V, shape (features, 7)."""
    W_Q, W_K = np.zeros((2, len(FEATURES), len(ASKED)))
    W_V = np.zeros((len(FEATURES), len(PASSED_ON)))
    W_Q[FEATURES.index("verb")] = 6, 4, 0, 0  # a verb asks for a noun that is a person
    W_Q[FEATURES.index("pronoun")] = 6, 0, 0, 0  # a pronoun asks for a noun ...
    W_Q[FEATURES.index("female"), 2] = W_Q[FEATURES.index("plural"), 3] = 4  # ... that agrees
    W_Q[FEATURES.index("thing"), 1] = -4  # "it" asks for what is no person
    for column, name in enumerate(ASKED):
        W_K[FEATURES.index(name), column] = 1
    for column, name in enumerate(PASSED_ON):
        W_V[FEATURES.index(name), column] = 1
    return W_Q, W_K, W_V
