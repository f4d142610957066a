"""What a provider means that refuses a file, or to make a batch of it.

There are no codes that hosts agree on, so their sentences are read as well.
"""

from __future__ import annotations

import re

from msgspec.structs import replace

from batchbell.core.submission import Expiry

FILE_WAIT_SECONDS = 600.0
"""How long a file may need, after its upload, until it can be used."""
FILE_GONE_SECONDS = 120.0
"""A file that was uploaded longer ago and is not found is uploaded again."""
PASSING_STATUSES = frozenset({408, 409, 421, 423, 425, 429})
"""4xx that say: not now."""

_FILE = re.compile(
    r"invalid[ _](input[ _])?file|(can ?not|could not|unable to) (find|access|read|locate)[^.]*file"
    r"|no such file|file[^.]*(not|n't)( yet)? (found|exist|ready|processed|available|uploaded)"
    r"|file[^.]*not in (the processed|an active) state"
    r"|file[^.]*(pending|processing|expired|deleted|missing)"
    r"|file[^.]*status|unknown file|input_file_id",
    re.IGNORECASE,
)
_EXPIRY = re.compile(r"expires?[_ ]?after|expir(y|ation|es_at)", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])(\d[\d_,]{2,14}\d)(?![\w.]*\w)")


def is_about_file(code: str | None, message: str) -> bool:
    """Whether the file cannot be used (yet, or any more): another time it may be."""
    return bool(_FILE.search(message) or _FILE.search(code or ""))


def is_about_expiry(code: str | None, message: str) -> bool:
    """Whether it is the time after which files are to be forgotten that was refused."""
    return bool(_EXPIRY.search(message) or _EXPIRY.search(code or ""))


def allowed_seconds(asked: int | None, message: str) -> int | None:
    """The nearest time that the refusal allows, such as `between 259200 and 2592000`.

    None where it names none: then the host's own time holds.
    """
    named = sorted(int(re.sub(r"\D", "", number)) for number in _NUMBER.findall(message))
    named = [number for number in named if number != asked]
    if asked is None or not named:
        return None
    low, high = named[0], named[-1]
    if low == high:
        return low
    return low if asked < low else high if asked > high else None


def expiry_after(expiry: Expiry, message: str, *, of_input: bool) -> Expiry:
    """The expiry to ask for after this one was refused."""
    if of_input:
        seconds = allowed_seconds(expiry.input_seconds, message)
        return replace(expiry, input_seconds=seconds)
    return replace(expiry, output_seconds=allowed_seconds(expiry.output_seconds, message))
