"""What the ids of a vocabulary stand for, for whatever steers or ends a text by its tokens or characters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rnnpipe.errors import unknown_name
from rnnpipe.text.rules import Rules
from rnnpipe.text.vocabulary import DOC, UNK, Vocabulary

_PROBE = ("a", "bc", "d")


@dataclass(frozen=True, eq=False)
class Tokens:
    """The texts of the ids [V]; the two specials, `boundary` and `unknown`, have names for people instead.

    ids: of the texts, without the specials. join: makes a text of tokens.
    """

    texts: Sequence[str]
    boundary: int
    unknown: int
    ids: Mapping[str, int]
    join: Callable[[Iterable[str]], str]

    @classmethod
    def of(cls, vocabulary: Vocabulary, rules: Rules) -> Tokens:
        """Return the tokens of a vocabulary."""
        texts = [vocabulary.token(token_id) for token_id in range(vocabulary.size)]
        return cls(texts, vocabulary.doc_id, vocabulary.unk_id, vocabulary.ids, rules.tokenizer.join)

    def id(self, text: str) -> int:
        """Return the id of a token, or of a special by its name; raise UsageError if there is none."""
        specials = {DOC: self.boundary, UNK: self.unknown}
        found = self.ids.get(text, specials.get(text))
        if found is None:
            near = [token for token in self.ids if abs(len(token) - len(text)) < 2 and token[:1] == text[:1]]
            raise unknown_name("token", text, [*near[:20], DOC, UNK])
        return found

    @cached_property
    def between(self) -> str | None:
        """Return what `join` puts between any two tokens, None if that is not always the same."""
        between = self.join(_PROBE[:2]).removeprefix(_PROBE[0]).removesuffix(_PROBE[1])
        return between if self.join(_PROBE) == between.join(_PROBE) else None

    def spell(self, ids: Iterable[int]) -> str:
        """Return the text of ids."""
        return self.join(self.texts[token_id] for token_id in ids)
