"""Regular expressions as automata: what a text may go on with, character by character.

The syntax is the part of Python's `re` that says which whole texts match: characters, `.`, classes `[a-z]`, `\\d`,
`\\w`, `\\s` and their opposites, groups, `|`, and `* + ? {m} {m,} {m,n}`. What depends on more than the characters read
so far is refused by name: anchors, look-around, references, lazy repetition. `{,n}` is `{0,n}` there and refused here.

An expression becomes an automaton of Thompson's (1968), that one a table of states over the characters of an alphabet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from rnnpipe.errors import UsageError

Test: TypeAlias = Callable[[str], bool]
MOST_REPEATS = 1000
MOST_STATES = 10_000
MOST_GROUPS = 100  # inside each other
DEAD = -1

_CLASSES: dict[str, Test] = {
    "d": str.isdecimal,
    "w": lambda character: character.isalnum() or character == "_",
    "s": str.isspace,
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_REPEATS = ("*", "+", "?", "{")
_MOST_DIGITS = 9  # of a number of repetitions
_SPECIAL = frozenset("()[]{}|*+?.^$\\")


@dataclass(frozen=True)
class Automaton:
    """A table [S, A] of the state behind each state and character, DEAD where no text goes on; it begins in state 0.

    characters: the alphabet, whose places are the columns. accepting: [S], where a text may end.
    """

    table: np.ndarray[Any, np.dtype[np.int64]]
    characters: dict[str, int]
    accepting: np.ndarray[Any, np.dtype[np.bool_]]

    def matches(self, text: str) -> bool:
        """Say whether a whole text matches."""
        state = 0
        for character in text:
            column = self.characters.get(character)
            state = DEAD if column is None or state == DEAD else int(self.table[state, column])
        return state != DEAD and bool(self.accepting[state])


def compile_regex(expression: str, alphabet: Iterable[str]) -> Automaton:
    """Return the automaton of an expression over an alphabet; raise UsageError naming what it cannot read."""
    graph = _Graph()
    parser = _Parser(expression, graph)
    start, end = parser.alternatives()
    if parser.place < len(expression):
        raise parser.error("')' without '('")
    return _determinize(graph, start, end, sorted(set(alphabet)))


def escape(text: str) -> str:
    """Return the expression that matches one text alone."""
    return "".join(f"\\{character}" if character in _SPECIAL else character for character in text)


# --- the expression's own automaton ---


@dataclass
class _Graph:
    """States with free moves to others, and moves to others by a character that passes a test."""

    free: list[list[int]] = field(default_factory=list)
    moves: list[tuple[int, int] | None] = field(default_factory=list)  # test, target
    tests: list[Test] = field(default_factory=list)

    def state(self) -> int:
        if len(self.free) > 20 * MOST_STATES:
            raise UsageError("the pattern is too large: fewer or smaller repetitions, please.")
        self.free.append([])
        self.moves.append(None)
        return len(self.free) - 1

    def by(self, test: Test) -> tuple[int, int]:
        """Return the two ends of one move."""
        start, end = self.state(), self.state()
        self.tests.append(test)
        self.moves[start] = (len(self.tests) - 1, end)
        return start, end


class _Parser:
    """Reads an expression into a graph: each method returns the two ends of what it has read."""

    def __init__(self, expression: str, graph: _Graph) -> None:
        self.expression = expression
        self.graph = graph
        self.place = 0
        self.groups = 0  # that are open

    def error(self, reason: str) -> UsageError:
        return UsageError(f"pattern {self.expression!r}, character {self.place + 1}: {reason}.")

    def peek(self) -> str:
        return self.expression[self.place : self.place + 1]

    def take(self, expected: str = "") -> str:
        found = self.peek()
        if not found or (expected and found != expected):
            raise self.error(f"expected {expected!r}" if expected else "the pattern ends in the middle")
        self.place += 1
        return found

    def alternatives(self) -> tuple[int, int]:
        parts = [self.sequence()]
        while self.peek() == "|":
            self.take()
            parts.append(self.sequence())
        if len(parts) == 1:
            return parts[0]
        start, end = self.graph.state(), self.graph.state()
        for first, last in parts:
            self.graph.free[start].append(first)
            self.graph.free[last].append(end)
        return start, end

    def sequence(self) -> tuple[int, int]:
        start = end = self.graph.state()
        while self.peek() not in ("", "|", ")"):
            begun = self.place
            first, last = self.item()
            low, high = self.repetition()
            if (low, high) != (1, 1):
                first, last = self.repeat(begun, self.place, low, high)
            self.graph.free[end].append(first)
            end = last
        return start, end

    def repetition(self) -> tuple[int, int | None]:
        sign = self.peek()
        if sign not in _REPEATS:
            return 1, 1
        self.take()
        low, high = {"*": (0, None), "+": (1, None), "?": (0, 1), "{": (1, 1)}[sign]
        if sign == "{":
            low, high = self.bounds()
        if self.peek() in _REPEATS:
            raise self.error("a repetition of a repetition; lazy and possessive ones are not accepted, use a group")
        return low, high

    def bounds(self) -> tuple[int, int | None]:
        close = self.expression.find("}", self.place)
        words = self.expression[self.place : close].split(",") if close >= 0 else []
        if any(len(word) > _MOST_DIGITS for word in words):
            raise self.error(f"at most {MOST_REPEATS} repetitions are accepted")
        numbers = [int(word) if word.isascii() and word.isdecimal() else None for word in words]
        low = numbers[0] if numbers else None
        high = numbers[-1] if numbers else None
        open_end = len(words) == 2 and not words[1]
        if low is None or len(words) > 2 or (high is None and not open_end) or (high is not None and high < low):
            raise self.error("expected {m}, {m,} or {m,n} with m up to n")
        if max(low, high or 0) > MOST_REPEATS:
            raise self.error(f"at most {MOST_REPEATS} repetitions are accepted")
        self.place = close + 1
        return low, high

    def repeat(self, begun: int, after: int, low: int, high: int | None) -> tuple[int, int]:
        """Read an item again for each time that it may come."""
        start = end = self.graph.state()
        final = self.graph.state()
        for number in range(low if high is None else high):
            if number >= low:
                self.graph.free[end].append(final)
            self.place = begun
            first, last = self.item()
            self.graph.free[end].append(first)
            end = last
        if high is None:
            self.place = begun
            first, last = self.item()
            loop = self.graph.state()
            self.graph.free[end].append(loop)
            self.graph.free[loop].append(first)
            self.graph.free[last].append(loop)
            end = loop
        self.graph.free[end].append(final)
        self.place = after
        return start, final

    def item(self) -> tuple[int, int]:
        character = self.take()
        if character == "(":
            if self.peek() == "?":
                if self.expression[self.place : self.place + 2] != "?:":
                    raise self.error("of groups only (...) and (?:...) are accepted")
                self.place += 2
            if self.groups >= MOST_GROUPS:
                raise self.error(f"at most {MOST_GROUPS} groups inside each other are accepted")
            self.groups += 1
            inside = self.alternatives()
            self.take(")")
            self.groups -= 1
            return inside
        if character in "^$":
            self.place -= 1
            raise self.error(f"{character!r} is not needed: the whole text must match. \\{character} is the character")
        if character in "*+?{":
            self.place -= 1
            raise self.error(f"nothing to repeat before {character!r}; \\{character} is the character")
        if character == "[":
            return self.graph.by(self.character_class())
        if character == ".":
            return self.graph.by(lambda each: each != "\n")
        return self.graph.by(self.escaped() if character == "\\" else _same(character))

    def escaped(self) -> Test:
        character = self.take()
        if character.lower() in _CLASSES:
            test = _CLASSES[character.lower()]
            return test if character.islower() else lambda each: not test(each)
        if character in _ESCAPES:
            return _same(_ESCAPES[character])
        if character.isalnum():
            self.place -= 1
            raise self.error(f"\\{character} is not accepted; there are \\d \\w \\s \\D \\W \\S \\n \\t \\r and signs")
        return _same(character)

    def character_class(self) -> Test:
        negated = self.peek() == "^"
        if negated:
            self.take()
        tests: list[Test] = []
        while self.peek() != "]" or not tests:
            tests.append(self.member())
        self.take("]")
        return lambda each: any(test(each) for test in tests) != negated

    def member(self) -> Test:
        first = self.take()
        if first == "\\":
            code = self.peek()
            test = self.escaped()
            if code.lower() in _CLASSES:
                return test
            first = _ESCAPES.get(code, code)
        if self.peek() != "-" or self.expression[self.place + 1 : self.place + 2] in ("]", ""):
            return _same(first)
        self.take()
        last = self.take()
        if last == "\\":
            code = self.peek()
            self.escaped()
            if code.lower() in _CLASSES:
                raise self.error(f"a range cannot end with \\{code}")
            last = _ESCAPES.get(code, code)
        if last < first:
            raise self.error(f"the range {first}-{last} is the wrong way round")
        return lambda each: first <= each <= last


def _same(character: str) -> Test:
    return lambda each: each == character


# --- the table ---


def _determinize(graph: _Graph, start: int, end: int, alphabet: Sequence[str]) -> Automaton:
    """Return the table of the sets of states that an expression can be in (Rabin & Scott 1959)."""
    passed = np.array([[test(character) for character in alphabet] for test in graph.tests], dtype=bool)
    passed = passed.reshape(len(graph.tests), len(alphabet))
    # Characters that pass the same tests are one: an alphabet of thousands has a few kinds.
    kinds, of_character = np.unique(passed, axis=1, return_inverse=True)
    sets = {_closure(graph, [start]): 0}
    rows: list[list[int]] = []
    order = list(sets)
    for found in order:  # it grows on the way
        moves = [move for state in found if (move := graph.moves[state]) is not None]
        row = []
        for kind in range(kinds.shape[1]):
            reached = _closure(graph, [target for test, target in moves if kinds[test, kind]])
            if reached and reached not in sets:
                if len(sets) >= MOST_STATES:
                    raise UsageError(f"the pattern needs more than {MOST_STATES} states; make it simpler.")
                sets[reached] = len(sets)
                order.append(reached)
            row.append(sets[reached] if reached else DEAD)
        rows.append(row)
    table = np.array(rows, dtype=np.int64).reshape(len(order), kinds.shape[1])[:, of_character.reshape(-1)]
    accepting = np.array([end in found for found in order])
    return Automaton(table, {character: column for column, character in enumerate(alphabet)}, accepting)


def _closure(graph: _Graph, states: Iterable[int]) -> frozenset[int]:
    """Return the states that free moves reach."""
    found: set[int] = set()
    waiting = list(states)
    while waiting:
        state = waiting.pop()
        if state not in found:
            found.add(state)
            waiting += graph.free[state]
    return frozenset(found)
