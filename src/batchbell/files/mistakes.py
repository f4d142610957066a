"""What a file of requests is instead of JSON lines, in words that say how to mend it."""

from __future__ import annotations

import json
from typing import IO, NoReturn

from batchbell.files.lines import BYTE_ORDER_MARK

BEGIN_BYTES = 4096
"""What a file is shows in its first line, or in so much of it."""
UTF8 = "save it as UTF-8"
WIDE = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
MAGIC = {
    b"\x1f\x8b": ("compressed with gzip", "unpack it first"),
    b"PK\x03\x04": ("a zip archive or an Excel file", "send the JSON lines themselves"),
    b"PAR1": ("a Parquet file", "write its rows as JSON lines"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unpack it first"),
    b"BZh": ("compressed with bzip2", "unpack it first"),
    b"\xfd7zXZ\0": ("compressed with xz", "unpack it first"),
    b"%PDF": ("a PDF file", "send JSON lines"),
}
CARRIAGE_RETURNS = "The lines end in CR alone: end them with LF, as `tr '\\r' '\\n'` does."
Whole = tuple[str, str]
"""The code and the message of what is wrong with a whole file."""


def other_than_lines(source: IO[bytes]) -> Whole | None:
    """What the file is, where it is no JSON lines at all; None where its lines are worth a look.

    Reads from the beginning, and goes back there.
    """
    begin = source.read(BEGIN_BYTES)
    source.seek(0)
    for magic, (what, mend) in MAGIC.items():
        if begin.startswith(magic):
            return "not_json_lines", f"The file is {what}: {mend}."
    if begin.startswith(WIDE) or (b"\0" in begin[:4] and begin.strip(b"\0 \t\r\n")):
        what = "UTF-16 or UTF-32" if begin[:4].count(b"\0") > 1 else "UTF-16"
        return "invalid_encoding", f"The file is {what}: {UTF8}."
    return _other_text(begin.removeprefix(BYTE_ORDER_MARK).lstrip())


def _other_text(begin: bytes) -> Whole | None:
    first = begin.partition(b"\n")[0].rstrip()
    inner = begin[1:].lstrip()
    if begin.startswith(b"[") and inner.startswith(b"{"):
        said = "one JSON array: write each request on a line of its own, without the brackets"
    elif first == b"{" and inner.startswith(b'"'):
        said = "JSON over several lines: write each request on one line"
    elif begin.startswith(b"<"):
        said = "HTML or XML: was an error page saved in its place?"
    elif not first.startswith((b"{", b"[", b'"')) and _is_header(first):
        said = "CSV: write each row as a JSON object on a line of its own"
    else:
        return None
    return "not_json_lines", f"The file is {said}" + ("" if said.endswith("?") else ".")


def _is_header(line: bytes) -> bool:
    """Whether a line is names, with commas, semicolons or tabs between them."""
    names = line.replace(b";", b",").replace(b"\t", b",").split(b",")
    return len(names) > 1 and all(one.strip(b' "').replace(b"_", b"").isalnum() for one in names)


def why_too_long(text: bytes) -> str | None:
    """Where many lines were taken for one."""
    return CARRIAGE_RETURNS if _has_carriage_returns(text) else None


def _has_carriage_returns(text: bytes) -> bool:
    first, mark, rest = text.partition(b"\r")
    return bool(mark) and rest.lstrip().startswith(b"{") and first.rstrip().endswith(b"}")


def why_no_json(text: bytes, error: Exception) -> str:
    """What is wrong with a line that is UTF-8 but no JSON, as `error` of the decoder says."""
    if isinstance(error, RecursionError):
        return "This is nested too deeply."
    if text.startswith(BYTE_ORDER_MARK):
        return (
            "The line begins with a byte order mark, as where files were joined: remove those three"
            " bytes (EF BB BF)."
        )
    if _has_carriage_returns(text):
        return CARRIAGE_RETURNS
    try:
        json.loads(text, parse_constant=_refuse)
    except _NoNumber as found:
        return f"{found} is no JSON: write null, or leave the field out."
    except (ValueError, RecursionError):
        return f"This is no JSON: {error}."
    return "A character is half of a surrogate pair: a text was cut within it."


class _NoNumber(Exception):
    """A word that Python writes for a number, and JSON does not know."""


def _refuse(word: str) -> NoReturn:
    raise _NoNumber(word)
