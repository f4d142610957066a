"""The elements of an array somewhere in a JSON document, one a line, however large it is.

Nothing is built of what is read: the file is mapped, and searched for brackets and texts.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from typing import IO

TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]]|"', re.DOTALL)
"""A whole text, a bracket, or the quote of a text that does not end."""
OPENING = frozenset(b"{[")
QUOTE = ord('"')
AFTER_NAME = re.compile(rb"\s*:\s*\[")
CHUNK_BYTES = 2**20


def write_elements(document: IO[bytes], name: str, target: IO[bytes]) -> int:
    """Write each element of the first array that is called `name` as a line; returns how many.

    Raises ValueError where there is no such array, or it does not end.
    """
    try:
        mapped = mmap.mmap(document.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise ValueError("it is empty.") from None
    number = 0
    with mapped as text:
        for start, end in _elements(text, _begin(text, name)):
            for place in range(start, end, CHUNK_BYTES):
                # No text of JSON holds the end of a line as it is: those are between its parts.
                piece = text[place : min(end, place + CHUNK_BYTES)]
                target.write(piece.translate(None, b"\r\n"))
            target.write(b"\n")
            number += 1
    return number


def _begin(text: mmap.mmap, name: str) -> int:
    """Where the array begins, after its bracket."""
    wanted = b'"' + name.encode() + b'"'
    for found in TOKEN.finditer(text):
        if found[0] == wanted and (opened := AFTER_NAME.match(text, found.end())):
            return opened.end()
    raise ValueError(f"there is no array {name!r}.")


def _elements(text: mmap.mmap, place: int) -> Iterator[tuple[int, int]]:
    """Where each element of the array stands; one that is no object or array may be anything."""
    depth, begun = 0, place
    for found in TOKEN.finditer(text, place):
        kind = text[found.start()]
        if kind == QUOTE:
            if found.end() - found.start() == 1:
                break
        elif kind in OPENING:
            if depth == 0:
                yield from _plain(text, begun, found.start())
                begun = found.start()
            depth += 1
        elif depth == 0:
            yield from _plain(text, begun, found.start())
            return
        else:
            depth -= 1
            if depth == 0:
                yield begun, found.end()
                begun = found.end()
    raise ValueError("it was cut off.")


def _plain(text: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The elements between commas: numbers, null, and texts without a comma."""
    while start < end:
        comma = text.find(b",", start, end)
        stop = end if comma < 0 else comma
        if text[start:stop].strip():
            yield start, stop
        start = stop + 1
