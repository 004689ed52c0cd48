"""Where a text stops before its document ends: at given strings, or at the end of a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from rnnpipe.generation.engine import Ints
from rnnpipe.generation.tokens import Tokens

# A mark with what closes behind it, and white space: "3.5" goes on. Marks of scripts without blanks need none.
_SENTENCE = re.compile(r"""[.!?…][.!?…"'”’)\]]*(?=\s)|[。！？][。！？」』”’）]*""")
_SENTENCE_TOKENS = 12  # at the end of a text, in which a sentence can have ended with the last one


@dataclass(frozen=True, eq=False)
class Stops:
    """Stop strings, and whether the end of a sentence stops a text too; called with the ids drawn so far."""

    tokens: Tokens
    strings: Sequence[str] = ()
    sentence: bool = False

    def __call__(self, drawn: Ints) -> bool:
        """Say whether the text of these ids stops with the last of them, if it did not with one before."""
        return self._found(self._text(drawn[-self._longest :].tolist())) is not None

    def cut(self, drawn: Iterable[int]) -> str:
        """Return the text of ids up to the first stop string, or behind the first sentence, whichever comes first."""
        ids = list(drawn)
        text = self.tokens.spell(ids)
        place = self._found(self._text(ids))
        return text if place is None else text[:place]

    def sentences_end(self) -> bool:
        """Say whether any token has a mark that ends a sentence."""
        return any(mark in text for text in self.tokens.texts for mark in ".!?…。！？")

    def impossible(self) -> list[str]:
        """Return the stop strings that no text of this vocabulary has in it."""
        return [string for string in self.strings if not can_occur(string, self.tokens)]

    @cached_property
    def _longest(self) -> int:
        strings = max(map(len, self.strings), default=0) + 1  # a token each, and one that a blank stands behind
        return max(strings, _SENTENCE_TOKENS if self.sentence else 0)

    def _text(self, ids: list[int]) -> str:
        # What the next token would be set off by ends a sentence already.
        return self.tokens.spell(ids) + ((self.tokens.between or "") if self.sentence and ids else "")

    def _found(self, text: str) -> int | None:
        places = [place for string in self.strings if (place := text.find(string)) >= 0]
        if self.sentence and (match := _SENTENCE.search(text)):
            places.append(match.end())
        return min(places, default=None)


def can_occur(string: str, tokens: Tokens) -> bool:
    """Say whether a text that is joined of tokens can have a string in it; yes where that cannot be known."""
    between = tokens.between
    if between is None:
        return True
    texts = [text for number, text in enumerate(tokens.texts) if number not in (tokens.boundary, tokens.unknown)]
    if any(string in text for text in texts) or string in between:
        return True
    begins = [0]  # places in the string at which a token may begin, the string before it told
    begins += [len(between) - cut for cut in range(len(between)) if string.startswith(between[cut:])]
    ends = {n for text in texts for n in range(1, min(len(text), len(string))) if text.endswith(string[:n])}
    seen = set(begins)
    while begins or ends:
        for end in ends:
            rest = string[end:]
            if between.startswith(rest):
                return True
            begin = end + len(between)
            if rest.startswith(between) and begin not in seen:
                seen.add(begin)
                begins.append(begin)
        ends = set()
        while begins:
            rest = string[(begin := begins.pop()) :]
            if any(text.startswith(rest) for text in texts):
                return True
            ends |= {begin + len(text) for text in texts if rest.startswith(text)}
    return False
