"""rnnpipe: from raw text to a trained recurrent network and its predictions, with every part a plugin.

The names below are imported when they are first used: `import rnnpipe` costs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rnnpipe.hookspecs import hookimpl

if TYPE_CHECKING:
    from rnnpipe.backends.loop import LoopBackend
    from rnnpipe.cells.base import Cell, GatedCell, Gates, LinearCell, ProjectedCell, State
    from rnnpipe.data.base import Sequences
    from rnnpipe.errors import InputError, PluginError, RnnpipeError, UsageError
    from rnnpipe.models.language_model import LanguageModel
    from rnnpipe.models.recurrent import Recurrent
    from rnnpipe.models.sequence_model import SequenceModel
    from rnnpipe.text.cleaning import Cleaner, Rule
    from rnnpipe.text.tokenizing import Tokenizer
    from rnnpipe.training.loop import fit

__version__ = "0.1.0"

_LAZY = {
    "Cell": "rnnpipe.cells.base",
    "Cleaner": "rnnpipe.text.cleaning",
    "GatedCell": "rnnpipe.cells.base",
    "Gates": "rnnpipe.cells.base",
    "InputError": "rnnpipe.errors",
    "LanguageModel": "rnnpipe.models.language_model",
    "LinearCell": "rnnpipe.cells.base",
    "LoopBackend": "rnnpipe.backends.loop",
    "PluginError": "rnnpipe.errors",
    "ProjectedCell": "rnnpipe.cells.base",
    "Recurrent": "rnnpipe.models.recurrent",
    "RnnpipeError": "rnnpipe.errors",
    "Rule": "rnnpipe.text.cleaning",
    "SequenceModel": "rnnpipe.models.sequence_model",
    "Sequences": "rnnpipe.data.base",
    "State": "rnnpipe.cells.base",
    "Tokenizer": "rnnpipe.text.tokenizing",
    "UsageError": "rnnpipe.errors",
    "fit": "rnnpipe.training.loop",
}

__all__ = [
    "Cell",
    "Cleaner",
    "GatedCell",
    "Gates",
    "InputError",
    "LanguageModel",
    "LinearCell",
    "LoopBackend",
    "PluginError",
    "ProjectedCell",
    "Recurrent",
    "RnnpipeError",
    "Rule",
    "SequenceModel",
    "Sequences",
    "State",
    "Tokenizer",
    "UsageError",
    "__version__",
    "fit",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'rnnpipe' has no attribute '{name}'")
