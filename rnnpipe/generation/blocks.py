"""Items that come one by one, worked on together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rnnpipe.errors import RnnpipeError

Item = TypeVar("Item")
Waits = Callable[[], bool]


def never() -> bool:
    """Say that the next item is there."""
    return False


def blocks(items: Iterable[Item], size: int, waits: Waits = never) -> Iterator[list[Item]]:
    """Yield items in lists of `size`; a list is shorter at the end, and where the next item would be waited for.

    waits: says whether it would. An error in the making of an item is raised once those before it are done.
    """
    block: list[Item] = []
    try:
        for item in items:
            block.append(item)
            if len(block) == size or waits():
                yield block
                block = []
    except RnnpipeError:
        if block:
            yield block
        raise
    if block:
        yield block
