"""Batches in a provider's JSON, one or a list of them: one bad row spoils only itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from batchbell.core.errors import MalformedBatch, ProviderUnavailable
from batchbell.core.model import Snapshot
from batchbell.core.polling import PAGE_SIZE
from batchbell.providers.protocol import Malformed, Page
from batchbell.providers.values import ID_MAX_CHARACTERS, Undecodable, count_of, decode

R = TypeVar("R", bound=msgspec.Struct)

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
    cursor: str | None = None
    """The field that names the next page; None where the last row does, and `has_more` says so."""
    total: str | None = None
    """The field that counts the rows of all pages, where pages are numbered, from 0."""
    size: int = PAGE_SIZE
    """How many rows a numbered page has, but for the last."""
    beside: frozenset[str] | None = None
    """An answer with no other fields than these, and no rows, is an empty page; None where an
    empty page names its rows too."""


@dataclass(slots=True)
class Listing:
    """A list answer. Each row is `msgspec.Raw`, or a value where the answer was long."""

    rows: list[Any]
    hashes: list[int]
    """Of each row as it was written. Python's own, which has a secret of the process in it: nobody
    can make two rows that are taken for the same."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """The other fields of the answer; none where it is a bare array."""
    surplus: bool = False
    """Whether there were more rows than are read."""


def snapshot_in(
    raw: bytes | msgspec.Raw, kind: type[R], snapshot_of: Callable[[R], Snapshot]
) -> Snapshot:
    """The snapshot in the JSON of one batch, whose row is of this kind. Raises MalformedBatch."""
    try:
        return snapshot_of(decode(raw, kind))
    except Undecodable as error:
        raise MalformedBatch(f"A batch is not a JSON object: {error}"[:200]) from None


def page_in(
    body: bytes,
    cursor: str | None,
    kind: type[R],
    snapshot_of: Callable[[R], Snapshot],
    *,
    rows: Rows = Rows(),
    whole: bool = False,
    known: Mapping[int, str] | None = None,
) -> Page:
    """The page in a list answer to `cursor`. Raises ProviderUnavailable where it is no list.

    A list that is `whole` has no pages: nothing follows. `known` is as for `Provider.list_page`.
    """
    try:
        listing = listing_in(body, rows)
    except Undecodable:
        raise ProviderUnavailable("The provider's answer is not a list of batches.") from None
    known = known or {}
    read = [
        known.get(row_hash) or _row_in(row, kind, snapshot_of)
        for row, row_hash in zip(listing.rows, listing.hashes, strict=True)
    ]
    fault = f"A page of the list has more than {rows.most} rows." if listing.surplus else None
    return Page(
        batches=tuple(row for row in read if isinstance(row, Snapshot)),
        malformed=tuple(row for row in read if isinstance(row, Malformed)),
        next_cursor=None if whole else _next_cursor(listing, read, cursor, rows),
        fault=fault,
        hashes=tuple(
            row_hash
            for row_hash, row in zip(listing.hashes, read, strict=True)
            if isinstance(row, Snapshot)
        ),
        unchanged=tuple(row for row in read if isinstance(row, str)),
    )


def _row_in(row: Any, kind: type[R], snapshot_of: Callable[[R], Snapshot]) -> Snapshot | Malformed:
    """One row of a list, decoded once: a batch, or what is wrong with it."""
    try:
        found = decode(row, kind) if isinstance(row, msgspec.Raw) else msgspec.convert(row, kind)
    except (Undecodable, msgspec.ValidationError) as error:
        return Malformed(None, f"A batch is not a JSON object: {error}"[:200])
    try:
        return snapshot_of(found)
    except MalformedBatch as error:
        id = getattr(found, "id", None)
        named = isinstance(id, str) and 0 < len(id) <= ID_MAX_CHARACTERS
        return Malformed(id if named else None, error.message)


def _next_cursor(
    listing: Listing, read: list[Snapshot | Malformed | str], cursor: str | None, rows: Rows
) -> str | None:
    if rows.total is not None:
        return _next_number(listing, int(cursor or 0), rows)
    if rows.cursor is not None:
        named = listing.others.get(rows.cursor)
        return named if isinstance(named, str) and named not in ("", cursor) else None
    return _following(listing, _id_of(read[-1]), cursor) if read else None


def _id_of(read: Snapshot | Malformed | str) -> str | None:
    return read if isinstance(read, str) else read.id


def _next_number(listing: Listing, number: int, rows: Rows) -> str | None:
    """A page that is full may be followed by one even where nothing is counted."""
    shown = number * rows.size + len(listing.rows)
    total = count_of(listing.others.get(rows.total or ""))
    follows = len(listing.rows) >= rows.size if total is None else shown < total
    return str(number + 1) if listing.rows and follows else None


def _following(listing: Listing, last_row: str | None, cursor: str | None) -> str | None:
    """None after the last page, and where the next would be this one again."""
    if not (listing.surplus or listing.others.get("has_more") is True):
        return None
    last = None if listing.surplus else listing.others.get("last_id")
    following = last if isinstance(last, str) and last else last_row
    return following if following != cursor else None


def listing_in(body: bytes, rows: Rows) -> Listing:
    """The rows of a list answer. Raises Undecodable where it is no list.

    Some hosts answer with a bare array, and Go writes an empty list as null.
    """
    if len(body) > SCANNED_BYTES:
        return _scanned(body, rows)
    found: Any = decode(body, dict[str, msgspec.Raw] | list[msgspec.Raw])  # type: ignore[arg-type]
    if isinstance(found, list):
        return _capped(found, {}, rows)
    if rows.name not in found and (rows.beside is None or not found.keys() <= rows.beside):
        raise Undecodable(f"The answer has no {rows.name!r}.")
    named = found.pop(rows.name, msgspec.Raw(b"null"))
    inner: Any = decode(named, list[msgspec.Raw] | None)  # type: ignore[arg-type]
    others = {name: decode(raw, object) for name, raw in found.items()}
    return _capped(inner or [], others, rows)


def _capped(found: list[msgspec.Raw], others: Mapping[str, Any], rows: Rows) -> Listing:
    read = found[: rows.most]
    return Listing(read, [hash(bytes(row)) for row in read], others, len(found) > rows.most)


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
    listing = Listing([], [])
    at = _past_space(text, at + 1)
    while text[at] != "]":
        if len(listing.rows) == rows.most:
            listing.surplus = True
            return listing, at
        begin = at
        row, at = _scan(text, begin)
        listing.rows.append(row)
        listing.hashes.append(hash(text[begin:at]))
        at = _past_space(text, at)
        if text[at] == ",":
            at = _past_space(text, at + 1)
    return listing, at + 1


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
        listing = Listing([], [])
    listing.others = others
    return listing
