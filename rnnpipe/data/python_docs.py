"""The dataset `python-docs`: the reference text that ships inside every Python (`pydoc_data.topics`).

About 465,000 characters of English technical prose in 79 topics (Python 3.11), always there, nothing to download. It
differs a little from one Python version to the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rnnpipe.data.base import PARTS, Part
from rnnpipe.data.text_files import parse_split

_UNDERLINE = re.compile(r"^[ \t]*[+|]?(?:[*=\-~^#+\"]{3,}[+| ]*)+\n", re.MULTILINE)


class PythonDocs:
    """Whole topics in the order of their names, dealt to the parts so that each has about its share of characters.

    Lines that only underline a heading or rule a table are left out: they are typesetting, not text.
    """

    def __init__(self, *, split: str = "8:1:1") -> None:
        self.shares = parse_split(split)

    def documents(self, split: Part) -> Iterable[str]:
        """Yield the topics of one part."""
        from pydoc_data.topics import topics

        # Dealt like cards, one at a time to the part that is furthest behind its share: the parts are then alike,
        # which runs of the alphabet are not (all of "typesseq" to "with" is reference tables).
        sizes = [0] * len(self.shares)
        for name in sorted(topics):
            behind = min(range(len(self.shares)), key=lambda part: (sizes[part] + 1) / (self.shares[part] or 1e-9))
            sizes[behind] += len(topics[name])
            if PARTS[behind] == split:
                yield _UNDERLINE.sub("", topics[name])
