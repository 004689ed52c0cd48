"""The tokenizer `japanese-words`: the morphemes that SudachiPy finds."""

import re
from typing import Literal

from rnnpipe import Tokenizer
from rnnpipe.errors import UsageError

# What is analysed at once: a sentence, so that a word's neighbours in other lines have no say. Sudachi takes 49,149
# bytes of normalized text; 1,000 characters have at most 33,000 (U+FDFA becomes 18 characters).
_PIECE = re.compile(r"\n|[^\n。]{1,1000}。?|。")


def japanese_words(*, mode: Literal["A", "B", "C"] = "A") -> Tokenizer:
    """Words of Japanese text as SudachiPy's small dictionary has them; blanks and line ends are tokens of their own.

    Nothing is added or lost: the tokens put together are the text. mode: how long a word is, from A (出 かける), the
    units of UniDic, which make the smallest vocabulary, to C (出かける), whole compounds.

    Takaoka et al. 2018, "Sudachi: a Japanese tokenizer for business", LREC.
    """
    try:
        from sudachipy import Dictionary, SplitMode

        analyser = Dictionary(dict="small").tokenizer(getattr(SplitMode, mode))
    except ImportError as error:  # of the dictionary too, which is a package
        raise UsageError(
            "tokenizer 'japanese-words' needs SudachiPy and its small dictionary: pip install sudachipy "
            "sudachidict-small. Characters (--level char) need neither."
        ) from error

    def split(text: str) -> list[str]:
        surfaces = (morpheme.surface() for piece in _PIECE.findall(text) for morpheme in analyser.tokenize(piece))
        return [surface for surface in surfaces if surface]  # one character may be several morphemes: U+337F

    return Tokenizer(split=split, join="".join, lossless=True)
