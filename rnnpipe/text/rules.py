"""How a text becomes tokens: the cleaner and the tokenizer, by name for files and as objects for work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from rnnpipe.errors import InputError
from rnnpipe.text.cleaning import ByteTable, Cleaner
from rnnpipe.text.tokenizing import Tokenizer

Level: TypeAlias = Literal["word", "char", "subword"]
MODEL = "model"  # the option of a tokenizer that is what it has learnt
_LONGEST = 120  # characters of an option's value that people are shown


@dataclass(frozen=True)
class Named:
    """A plugin's name and the options that a person gave it."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the form in which it stands in files: the name, then the options."""
        return {"name": self.name, **self.options}

    def brief(self) -> dict[str, Any]:
        """Return that form for people to read: of a long value, such as a learnt model, only its digest."""
        return {
            key: value if len(json.dumps(value)) <= _LONGEST else f"sha256:{rules_digest(value)}"
            for key, value in self.to_json().items()
        }

    @classmethod
    def from_json(cls, value: Any, place: str) -> Named:
        """Read that form; raise InputError naming the `place`."""
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise InputError(f"{place}: expected a name with options such as {{'name': 'none'}}, received {value!r}.")
        return cls(value["name"], {key: option for key, option in value.items() if key != "name"})


@dataclass(frozen=True)
class TextRules:
    """The names and options of a cleaner and a tokenizer: what a dictionary, a token file and a run agree on."""

    cleaner: Named
    tokenizer: Named

    @property
    def level(self) -> Level:
        """Return what a token is under these rules."""
        if self.tokenizer.name == "characters":
            return "char"
        return "subword" if MODEL in self.tokenizer.options else "word"

    def learnt(self, model: Any) -> TextRules:
        """Return these rules with what their tokenizer has learnt."""
        return replace(self, tokenizer=Named(self.tokenizer.name, {**self.tokenizer.options, MODEL: model}))

    @property
    def unlearnt(self) -> TextRules:
        """Return these rules as a person gave them, without what their tokenizer has learnt."""
        options = {key: value for key, value in self.tokenizer.options.items() if key != MODEL}
        return replace(self, tokenizer=Named(self.tokenizer.name, options))

    def to_json(self) -> dict[str, Any]:
        """Return the form in which the rules stand in files."""
        return {"cleaner": self.cleaner.to_json(), "tokenizer": self.tokenizer.to_json()}

    def brief(self) -> dict[str, Any]:
        """Return that form for people to read."""
        return {"cleaner": self.cleaner.brief(), "tokenizer": self.tokenizer.brief()}

    @classmethod
    def from_json(cls, value: Any, place: str) -> TextRules:
        """Read that form; raise InputError naming the `place`."""
        if not isinstance(value, dict):
            raise InputError(f"{place}: expected cleaner and tokenizer, received {value!r}.")
        return cls(
            Named.from_json(value.get("cleaner"), f"{place}, cleaner"),
            Named.from_json(value.get("tokenizer"), f"{place}, tokenizer"),
        )


def rules_digest(value: Any) -> str:
    """Return a short digest of rules or of anything else that JSON can hold, for people to compare."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Rules:
    """The cleaner and the tokenizer themselves."""

    cleaner: Cleaner
    tokenizer: Tokenizer

    @property
    def splits_words(self) -> bool:
        """Say whether the tokens are the words between blanks, which the cleaner's tables give."""
        return self.tokenizer.split is str.split

    @property
    def byte_table(self) -> ByteTable | None:
        """Return these rules as one pass over bytes, if they are words that a byte table leaves."""
        return self.cleaner.byte_table if self.splits_words else None

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of an uncleaned text."""
        return self.tokenizer.split(self.cleaner.clean(text))


LoadRules = Callable[[], Rules]  # worker processes call it, so it must be a module-level function or a partial of one
