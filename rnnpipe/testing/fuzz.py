"""Texts to try text plugins on, from the shortest to longer ones, and the smallest text that shows a fault."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from rnnpipe.testing.report import Failure

# What a reader hands on: valid Unicode without surrogates and NUL, whose line ends are all `\n`.
PIECES = (
    # words, blanks, line ends, punctuation, what tokenizers may take for their own marks
    *("a", "Z", "the", " The ", "don't", "x-y", "-x", "--", "'", '"', ".", ", ", "!?", "(", "&", "\\n", "\\", "#", "%"),
    *(" ", "  ", "\n", "\n\n", " \n ", "\t", "_", "a_b", "1984", "3.14", "<unk>", "<doc>", "##a", "@@", "\u2581"),
    # what Python's splitlines and split part lines and words at, though no reader does
    *("\v", "\f", "\x1c", "\x1d", "\x1e", "\x1f", "\x85", "\u2028", "\u2029", "\u00a0", "\u2003", "\u3000"),
    # controls, noncharacters, private use, the replacement character
    *("\x01", "\x07", "\x1b", "\x7f", "\x9f", "\ufffe", "\uffff", "\U0010ffff", "\ue000", "\U000f0000", "\ufffd"),
    # invisible: soft hyphen, zero width space, joiners, marks and overrides of direction, byte-order mark
    *("\u00ad", "\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u200e", "\u200f", "\u202e", "\u2066", "\u2069"),
    # letters whose case, width or normal form is another or longer text
    *("\u0130", "\u0131", "\u017f", "\u212a", "\u00df", "\u1e9e", "\ufb01", "\u01c5", "\u0391\u03a3", "\u03c2"),
    *("\u0149", "\uff21\uff11", "\u2163", "\u2460", "\u00bd", "x\u00b2", "\u210c", "\u2122", "\u03d4", "\u0344"),
    # combining marks, alone, stacked, and in the scripts that live by them
    *("e\u0301", "\u00e9", "\u0301", "a\u0323\u0307", "q\u0307\u0323", "\u20dd", "\u0f40\u0f71\u0f72"),
    *("\u0939\u093f\u0928\u094d\u0926\u0940", "\u0e20\u0e32\u0e29\u0e32", "\u1112\u1161\u11ab", "\ud55c"),
    # right to left
    *("\u05e2\u05d1\u05e8\u05d9\u05ea", "\u0627\u0644\u0639\u064e\u0631\u0628\u064a\u0629", "\u0645\u06cc\u200c\u062e"),
    # Chinese and Japanese, their punctuation, ruby marks, half-width and compatibility forms, a variation
    *("\u65e5\u672c\u8a9e", "\u306f\u3044\u3002", "\u300c", "\u300d", "\u30ab\u30fc", "\uff76\uff9e", "\u304b\u3099"),
    *("\uff5c\u6f22\u300a\u304b\u3093\u300b", "\uff3b\uff03\u300c\u300d\uff3d", "\u203b", "\u845b\U000e0100", "\uf900"),
    # beyond the first plane: Gothic, mathematical letters, rare ideographs, emoji with joiners, skin tones and flags
    *("\U00010330", "\U0001d518", "\U00020000", "\U0001f600", "\u2764\ufe0f", "\U0001f44d\U0001f3fd"),
    *("\U0001f1ef\U0001f1f5", "\U0001f468\u200d\U0001f469\u200d\U0001f467"),
)  # fmt: skip
NUMBER = 1000

Broken = tuple[str, str]  # what was expected, what came


def texts(seed: int = 0, number: int = NUMBER) -> Iterator[str]:
    """Yield `number` texts, or a little more: none, each piece alone, then pieces and other characters at random."""
    yield ""
    yield from sorted(PIECES, key=len)
    generator = random.Random(seed)
    more = number - len(PIECES)
    for count in range(more):
        length = 2 + 30 * count // more
        yield "".join(
            generator.choice(PIECES) if generator.random() < 0.9 else _any_character(generator) for _ in range(length)
        )


def _any_character(generator: random.Random) -> str:
    while True:
        point = generator.randrange(1, 0x110000 if generator.random() < 0.5 else 0x3000)
        if point != 0x0D and not 0xD800 <= point < 0xE000:
            return chr(point)


def shrink(text: str, fails: Callable[[str], bool]) -> str:
    """Return what is left of a text that fails when no piece can be deleted any more without it ceasing to fail."""
    size = max(1, len(text) // 2)
    while True:
        start, shorter = 0, False
        while start < len(text):
            candidate = text[:start] + text[start + size :]
            if fails(candidate):
                text, shorter = candidate, True
            else:
                start += size
        if size == 1 and not shorter:
            return text
        size = max(1, size // 2)


def for_each_text(look: Callable[[str], Broken | None]) -> int:
    """Return how many texts `look` found nothing wrong with; raise Failure with the smallest text where it did.

    `look` returns what was expected and what came, or None; what it raises counts as what came.
    """

    def looked(text: str) -> Broken | None:
        try:
            return look(text)
        except Exception as error:  # the plugin's own: anything may come out of code that is not ours
            return "a result", f"{type(error).__name__}: {error}"

    tried = list(texts())
    for text in tried:
        if looked(text) is not None:
            smallest = shrink(text, lambda shorter: looked(shorter) is not None)
            expected, received = looked(smallest) or ("the same outcome each time", "a failure that came only once")
            raise Failure(expected, received, f"the text {smallest!a}")
    return len(tried)


def lines(text: str) -> list[str]:
    """Return a text in pieces that end at its line ends, as its reader may cut it."""
    return [piece for piece in text.replace("\n", "\n\0").split("\0") if piece]
