"""The rows of a list answer, read one by one, so that one bad row spoils only itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from batchbell.core.polling import PAGE_SIZE
from batchbell.providers.values import Undecodable, decode

ROWS_MAX = 10 * PAGE_SIZE
"""Rows of one page that are read: a host that does not page may send more than were asked for."""
WHOLE_ROWS_MAX = 20_000
"""The same for a host that lists all batches in one answer."""
SCANNED_BYTES = 256 * 2**10
"""A longer page is read row by row, and only as far as its rows count."""
SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the rows are in a list answer, and how many of them are read."""

    name: str = "data"
    most: int = ROWS_MAX


@dataclass(slots=True)
class Listing:
    """A list answer. Each row is `msgspec.Raw`, or a value where the answer was long."""

    rows: list[Any]
    others: Mapping[str, Any] = field(default_factory=dict)
    """The other fields of the answer; none where it is a bare array."""
    surplus: bool = False
    """Whether there were more rows than are read."""


def listing_in(body: bytes, rows: Rows) -> Listing:
    """The rows of a list answer. Raises Undecodable where it is no list.

    Some hosts answer with a bare array, and Go writes an empty list as null.
    """
    if len(body) > SCANNED_BYTES:
        return _scanned(body, rows)
    found: Any = decode(body, dict[str, msgspec.Raw] | list[msgspec.Raw])  # type: ignore[arg-type]
    if isinstance(found, list):
        return _capped(found, {}, rows)
    if rows.name not in found:
        raise Undecodable(f"The answer has no {rows.name!r}.")
    inner: Any = decode(found.pop(rows.name), list[msgspec.Raw] | None)  # type: ignore[arg-type]
    others = {name: decode(raw, object) for name, raw in found.items()}
    return _capped(inner or [], others, rows)


def _capped(found: list[Any], others: Mapping[str, Any], rows: Rows) -> Listing:
    return Listing(found[: rows.most], others, len(found) > rows.most)


def _scanned(body: bytes, rows: Rows) -> Listing:
    """The same without a decode of the whole: what is small as text may be large in memory."""
    text = body.decode("utf-8-sig", "replace")
    try:
        start = _past_space(text, 0)
        if text[start] == "[":
            return _elements(text, start, rows)[0]
        return _members(text, start, rows)
    except (ValueError, IndexError, RecursionError) as error:
        raise Undecodable(str(error)[:200]) from None


_scan = json.JSONDecoder(parse_constant=lambda _: None).raw_decode


def _past_space(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    return at if found is None else found.end()


def _elements(text: str, at: int, rows: Rows) -> tuple[Listing, int]:
    """The elements of the array that begins here, and where it ends; surplus ones are not read."""
    found: list[Any] = []
    at = _past_space(text, at + 1)
    while text[at] != "]":
        if len(found) == rows.most:
            return Listing(found, surplus=True), at
        row, at = _scan(text, at)
        found.append(row)
        at = _past_space(text, at)
        if text[at] == ",":
            at = _past_space(text, at + 1)
    return Listing(found), at + 1


def _members(text: str, at: int, rows: Rows) -> Listing:
    """The listing in the object that begins here. Nothing after surplus rows is read."""
    if text[at] != "{":
        raise ValueError("The answer is no object.")
    listing, others = None, {}
    at = _past_space(text, at + 1)
    while text[at] != "}":
        name, at = _scan(text, at)
        at = _past_space(text, at)
        if text[at] != ":":
            raise ValueError("The answer is no object.")
        at = _past_space(text, at + 1)
        if name == rows.name and text[at] == "[":
            listing, at = _elements(text, at, rows)
            if listing.surplus:
                return listing
        else:
            others[str(name)[:20]], at = _scan(text, at)
        at = _past_space(text, at)
        if text[at] == ",":
            at = _past_space(text, at + 1)
    if listing is None:
        if others.get(rows.name, 0) is not None:
            raise ValueError("The answer has no list.")
        listing = Listing([])
    return Listing(listing.rows, others)
