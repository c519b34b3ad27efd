"""Pictures to play with: they compute in the reader's browser, with or without a kernel.

    from utils.widgets import AttentionExplorer
    AttentionExplorer("Anna lost her keys and Ben found them")

Each explorer is a Python class, which checks its input and gathers the numbers, and a script of
the same name, which computes with them and draws. Both stand in this folder: `attention.py` and
`attention.js`. What they share is in `base.py`, `common.js` and `explorer.css`.
"""

from utils.widgets.attention import AttentionExplorer
from utils.widgets.base import Explorer
from utils.widgets.beam import BeamStepper
from utils.widgets.positions import PositionExplorer
from utils.widgets.sampling import SamplingPlayground
from utils.widgets.tokenizer import TokenizerPlayground

__all__ = [
    "AttentionExplorer",
    "BeamStepper",
    "Explorer",
    "PositionExplorer",
    "SamplingPlayground",
    "TokenizerPlayground",
]
