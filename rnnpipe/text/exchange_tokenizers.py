"""A dictionary with its rules as `tokenizer.json` of Hugging Face `tokenizers`, which then gives the same ids.

The file is written here and needs that library only to be read. Its regular expressions are those of Oniguruma, whose
`\\s` lacks four control characters that Python takes for blanks and whose `\\w` has other members: both are spelt out.
"""

from __future__ import annotations

import json
from typing import Any

from rnnpipe.errors import InputError
from rnnpipe.text.rules import Named
from rnnpipe.text.subwords import LONGEST_WORD
from rnnpipe.text.unicode_words import INVISIBLE, STRAIGHTEN
from rnnpipe.text.vocabulary import DOC, UNK, Vocabulary

_BLANK = r"\s\x1c-\x1f"
_WORD = r"\p{L}\p{N}"
_MARK = r"\p{M}\x{200C}\x{200D}"

# Of the rule for a capital sigma at the end of a word (Unicode, section 3.13): letters that have a case, and what may
# stand between them.
_CASED = r"\p{Lu}\p{Ll}\p{Lt}"
_IGNORED = r"\p{Mn}\p{Me}\p{Cf}\p{Lm}\p{Sk}'.:\x{00B7}\x{2018}\x{2019}"


def to_tokenizers(vocabulary: Vocabulary, name: str, *, cleaned: bool = False) -> bytes:
    """Return `tokenizer.json`; with `cleaned` for text that has been cleaned already.

    The specials have the last two ids, as here; where the text has a token that is spelt like one, the special's name
    gets underscores behind it. Raises InputError for a cleaner or tokenizer that has no equal there.
    """
    rules = vocabulary.rules
    ids: dict[str, int] = dict(vocabulary.ids)
    doc, unk = (_free(special, ids) for special in (DOC, UNK))
    ids |= {doc: vocabulary.doc_id, unk: vocabulary.unk_id}
    normalizers, splitter = _steps(Named("none") if cleaned else rules.cleaner, rules.tokenizer, name)
    model: dict[str, Any] = {"type": "WordLevel", "vocab": ids, "unk_token": unk}
    if rules.tokenizer.name == "bpe":
        merges = rules.tokenizer.options["model"]["merges"]
        _check_merges(merges, ids, name)
        model = {"type": "BPE", "vocab": ids, "unk_token": unk, "merges": merges}
    record: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
        "pre_tokenizer": splitter,
        "decoder": None if rules.tokenizer.name == "whitespace" else {"type": "Fuse"},  # none: blanks between tokens
        "model": model,
    }
    return (json.dumps(record, ensure_ascii=False, indent=1) + "\n").encode()


def _free(special: str, ids: dict[str, int]) -> str:
    while special in ids:
        special += "_"
    return special


def _check_merges(merges: list[list[str]], ids: dict[str, int], name: str) -> None:
    """Raise InputError if what a merge makes has no id: the other program refuses such a model."""
    for left, right in merges:
        for token in (left, right, left + right):
            if token not in ids:
                raise InputError(
                    f"{name}: the subword {token!r} has no id, but others are made of it; build the dictionary without "
                    "--unknown-threshold and --max-size."
                )


def _steps(cleaner: Named, tokenizer: Named, name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the normalizers and the pre-tokenizer of a cleaner and a tokenizer."""
    splitters = {
        "whitespace": _split(f"[{_BLANK}]+", "Removed"),
        "characters": _split(r"[\s\S]", "Isolated"),
        "bpe": _split(
            f" ?[{_WORD}_]{{1,{LONGEST_WORD}}}| ?[^{_WORD}_{_BLANK}]{{1,{LONGEST_WORD}}}|[{_BLANK}]", "Isolated"
        ),
    }
    if tokenizer.name not in splitters:
        raise InputError(
            f"{name}: the tokenizer '{tokenizer.name}' has no equal in Hugging Face tokenizers; "
            f"{', '.join(sorted(splitters))} have. Export --format text."
        )
    if cleaner.name == "none":
        return [], splitters[tokenizer.name]
    if tokenizer.name == "whitespace" and cleaner.name == "ascii-words":
        return _ascii_words(), splitters[tokenizer.name]
    if tokenizer.name == "whitespace" and cleaner.name == "unicode-words":
        return _unicode_words(**cleaner.options)
    raise InputError(
        f"{name}: the cleaner '{cleaner.name}' in front of the tokenizer '{tokenizer.name}' has no equal in Hugging "
        "Face tokenizers. With --cleaned the file is for text that `rnnpipe clean` has cleaned."
    )


def _split(pattern: str, behavior: str, *, invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _ascii_words() -> list[dict[str, Any]]:
    """Return the rules of `ascii-words`, as far as words between blanks depend on them."""
    return [
        {"type": "Lowercase"},
        _replace(r"[\n\r]", " "),
        _replace(r"[^a-z '\-]+", ""),
        _replace(r"(?<![^ ])-[^ ]*", ""),
    ]


def _unicode_words(
    lowercase: bool = True, punctuation: bool = False, form: str = "NFC"
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rules of `unicode-words`; its last one, which words are kept, is the splitter."""
    normalizers = [_replace(INVISIBLE.pattern, ""), {"type": form}]
    normalizers += [{"type": "Replace", "pattern": {"String": old}, "content": new} for old, new in STRAIGHTEN.items()]
    if lowercase:
        # There each character is lowered by itself; a capital sigma that ends a word has a form of its own.
        normalizers.append(_replace(rf"[{_CASED}][{_IGNORED}]*\K\x{{03A3}}(?![{_IGNORED}]*[{_CASED}])", "\u03c2"))
        normalizers += [{"type": "Lowercase"}, {"type": form}]
    word = rf"[{_WORD}][{_WORD}{_MARK}]*"
    pattern = rf"{word}(?:['\-]{word})*"
    if punctuation:
        pattern += rf"|[^{_BLANK}\x00-\x1f\x7f-\x9f{_MARK}\p{{Cf}}]"
    return normalizers, _split(pattern, "Removed", invert=True)
