"""The cleaner `aozora`: what the volunteers of Aozora Bunko wrote into a text, taken out of it again.

The marks are those of the library's manual for annotations (https://www.aozora.gr.jp/annotation/); none of them reaches
across a line end.
"""

import re
import unicodedata

from rnnpipe import Cleaner, Rule

_RUBY = re.compile(r"｜(?=[^《》｜\n]*《)|《[^《》\n]*》")
_BODY = r"［＃(?:[^［］\n]|［[^［］\n]*］)*］"  # an annotation may quote a text that has one in it
_NOTE = rf"(?:(?<!※)|(?=［＃「※」)){_BODY}"  # behind ※ stands what character is meant, unless it is about that sign
_NOTES = re.compile(rf"^(?:{_NOTE})+\n|{_NOTE}", re.MULTILINE)  # a line of nothing else goes with its line end
_ACCENTED = re.compile(r"〔([^〔〕\n]*)〕")
_ACCENT = re.compile(r"[!?]@|(?:AE|OE|ae|oe)&|s&|[Oo]/|[AEIOUaeiou][`'^:_]|[ANOano]~|[Aa]&|[Cc],|[Yy]'|y:")
_ABSENT = re.compile(rf"※({_BODY})")
_CODE_POINT = re.compile(r"U\+([0-9A-Fa-f]{4,6})")
_JIS = re.compile(r"(?<![0-9])([12])-([0-9]{1,2})-([0-9]{1,2})(?![0-9-])")  # plane, row, cell; a page and line are two

_LETTERS = {
    "!@": "¡", "?@": "¿", "AE&": "Æ", "OE&": "Œ", "ae&": "æ", "oe&": "œ", "s&": "ß", "O/": "Ø", "o/": "ø",
}  # fmt: skip
_MARKS = dict(zip("`'^~:&,_", "\u0300\u0301\u0302\u0303\u0308\u030a\u0327\u0304", strict=True))
GETA = "〓"  # what printers set for a character that they have not got


def aozora() -> Cleaner:
    """Take the marks of Aozora Bunko out of a text and leave what was printed; lines are kept.

    Ruby (readings above a word) and annotations go. A character that the file's encoding lacks is described by an
    annotation: it becomes that character if a Unicode code point or a place in JIS X 0213 is given, otherwise 〓.
    """
    return Cleaner(
        rules=(
            Rule("remove ruby", lambda text: _RUBY.sub("", text)),
            Rule("remove annotations", lambda text: _NOTES.sub("", text)),
            Rule("write accents and ligatures", lambda text: _ACCENTED.sub(_write_accents, text)),
            Rule("write repeat marks", lambda text: text.replace("／″＼", "〴〵").replace("／＼", "〳〵")),
            # Last: the characters written may be those that mark ruby and the like in a file.
            Rule("write characters outside the encoding", lambda text: _ABSENT.sub(_write_character, text)),
        )
    )


def _write_accents(match: re.Match[str]) -> str:
    """Return a text in 〔〕 with its accents and without the brackets, or as it is if there are none in it."""
    written = _ACCENT.sub(lambda accent: _accented(accent[0]), match[1])
    return match[0] if written == match[1] else written


def _accented(notation: str) -> str:
    return _LETTERS.get(notation) or unicodedata.normalize("NFC", notation[0] + _MARKS[notation[1]])


def _write_character(match: re.Match[str]) -> str:
    """Return the character that an annotation describes, or 〓."""
    if code := _CODE_POINT.search(match[1]):
        point = int(code[1], 16)
        return chr(point) if point <= 0x10FFFF and unicodedata.category(chr(point)) not in ("Cc", "Cs") else GETA
    if place := _JIS.search(match[1]):
        return _jis_character(*map(int, place.groups()))
    return GETA


def _jis_character(plane: int, row: int, cell: int) -> str:
    """Return the character at a place in JIS X 0213, by the escape sequences of ISO-2022-JP-2004."""
    escape = {1: b"\x1b$(Q", 2: b"\x1b$(P"}[plane]
    try:
        return (escape + bytes([0x20 + row, 0x20 + cell])).decode("iso2022_jp_2004")
    except UnicodeDecodeError:
        return GETA
