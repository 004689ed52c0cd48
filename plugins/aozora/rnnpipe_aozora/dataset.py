"""The dataset `aozora`: files of Aozora Bunko without what stands around the work."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rnnpipe.data.base import Part
from rnnpipe.data.text_files import Cut, TextFiles, split_text
from rnnpipe.text.files import Errors, TextFile
from rnnpipe.text.opening import open_texts

# Title and author up to a blank line; then, between two lines of dashes, what the marks mean, unless there are none.
_HEADER = re.compile(
    r"\s*(?:(?!----)[^\r\n]+\r?\n)+(?:\r?\n)*"
    r"(?P<legend>-{4,}\r?\n【テキスト中に現れる記号について】.*?^-{4,}\r?\n)?(?:\r?\n)*".encode(),
    re.DOTALL | re.MULTILINE,
)
_FOOTER = re.compile("^底本(?:：|:)".encode(), re.MULTILINE)  # the book that was copied, and who did it


class Aozora(TextFiles):
    """Files, folders and globs of Aozora Bunko; each work is one document, divided contiguously by `split`.

    The title, the explanation of the marks and the lines about the edition are left out; a file that has none of these
    is taken whole. The marks within the lines are for the cleaner `aozora`. Works are divided, not dealt out whole: a
    person has a few, of different authors and times, and a part that holds one of them measures something else than
    what was trained on.

    inputs: what to read, as on the command line. split: shares of train, valid and test. encoding, errors: as for
    Python's `open`; the library's files are Shift-JIS with Microsoft's additions.
    """

    def __init__(
        self, *, inputs: Sequence[str], split: str = "8:1:1", encoding: str = "cp932", errors: Errors = "strict"
    ) -> None:
        super().__init__(inputs=inputs, split=split, encoding=encoding, errors=errors)
        self._works: dict[Path, list[TextFile]] = {}  # standard input can be read only once

    def texts(self, split: Part, spool: Path, at: Cut) -> Sequence[TextFile]:
        """Return the byte ranges of one part, one for each work that has any.

        They are cut at line ends whatever `at` says: anywhere else may be within a mark, which no rule would then know.
        """
        if spool not in self._works:
            texts = open_texts(self.inputs, spool, self.encoding, self.errors)
            self._works[spool] = [find_work(text) for text in texts]
        parts = (split_text(work, self.shares, "line") for work in self._works[spool])
        return [part[split] for part in parts if split in part]


def find_work(text: TextFile) -> TextFile:
    """Return the bytes of a file that are the work itself."""
    data = text.path.read_bytes()[text.start : text.stop]
    header, footer = _HEADER.match(data), _FOOTER.search(data)
    if footer is None and (header is None or header["legend"] is None):
        return text
    start = header.end() if header else 0
    size = len(data[start : footer.start() if footer else None].rstrip())
    return replace(text, start=text.start + start, stop=text.start + start + size)
