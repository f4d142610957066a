"""From what a provider sent as a file to lines: unpacked, in UTF-8, and no page of a proxy."""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from batchbell.core.errors import ProviderUnavailable
from batchbell.core.results import Arrived
from batchbell.files.elements import write_elements
from batchbell.files.lines import PIECE_BYTES, open_lines, read_line, read_lines

GZIP = b"\x1f\x8b"
UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
PAGE_MAX_BYTES = 64 * 2**10
"""What stands in place of a file is short."""
NO_LINE = b"null"
"""In place of a line that is too long to be read: it counts as one that is no answer."""
UNKNOWN = frozenset({"br", "zstd", "compress", "x-compress"})


def unpack(
    packed: Path,
    target: Path,
    arrived: Arrived,
    *,
    most_bytes: int,
    reshape: Callable[[bytes], bytes] | None = None,
) -> None:
    """Write the lines of a file that was fetched to `target`; call it in a child.

    Whether it is packed is seen by its first bytes: proxies unpack, and forget to say so.
    `reshape` puts a line into OpenAI's shape, for a provider with another. Raises
    ProviderUnavailable for what is cut off, larger than `most_bytes`, or not lines but an error
    or a page: asking again may bring the file.
    """
    encoding = (arrived.encoding or "identity").lower()
    with packed.open("rb", PIECE_BYTES) as source:
        begin = source.read(2)
        source.seek(0)
        if begin == GZIP:
            _inflate(source, target, zlib.MAX_WBITS | 16, most_bytes)
        elif encoding == "deflate":
            wbits = zlib.MAX_WBITS if begin[:1] == b"\x78" else -zlib.MAX_WBITS
            _inflate(source, target, wbits, most_bytes)
        elif encoding in UNKNOWN:
            raise ProviderUnavailable(f"The provider packed the file as {encoding!r} unasked.")
        else:
            packed.replace(target)
    _as_utf8(target)
    if arrived.inside is not None and not in_place_of_document(target):
        _open_up(target, arrived.inside)
    if reshape is not None:
        _reshape(target, reshape)
    if reason := in_place_of_lines(target):
        raise ProviderUnavailable(reason)


def _inflate(source: IO[bytes], target: Path, wbits: int, most_bytes: int) -> None:
    """Several members after each other are one file."""
    size = 0
    unpacker = zlib.decompressobj(wbits)
    with target.open("wb", PIECE_BYTES) as file:
        packed = source.read(PIECE_BYTES)
        while packed:
            try:
                piece = unpacker.decompress(packed, PIECE_BYTES)
            except zlib.error as error:
                raise ProviderUnavailable(f"The packed file is damaged: {error}.") from error
            file.write(piece)
            size += len(piece)
            if size > most_bytes:
                raise ProviderUnavailable(
                    f"The provider's file is larger than {most_bytes:,} bytes when unpacked: more"
                    " than this batch can have. BATCHBELL_RESULTS_MAX_BYTES is the most for any."
                )
            packed = unpacker.unconsumed_tail
            if unpacker.eof:
                packed = unpacker.unused_data or source.read(PIECE_BYTES)
                if packed.strip(b"\0"):
                    unpacker = zlib.decompressobj(wbits)
                else:
                    packed = b""
            elif not packed:
                packed = source.read(PIECE_BYTES)
    if not unpacker.eof:
        raise ProviderUnavailable("The provider's packed file was cut off.")


def _as_utf8(path: Path) -> None:
    """Some hosts write what their platform calls Unicode."""
    with path.open("rb") as file:
        begin = file.read(PIECE_BYTES)
    word = UTF16.get(begin[:2])
    if word is None or b"\0" not in begin:  # braces and quotes of UTF-16 have a zero byte each
        return
    beside = path.with_name(f"{path.name}.utf8")
    with (
        path.open(encoding=word, errors="replace", newline="") as source,
        beside.open("w", encoding="utf-8", errors="replace", newline="") as file,
    ):
        source.read(1)  # the mark
        while text := source.read(PIECE_BYTES):
            file.write(text)
    beside.replace(path)


def in_place_of_document(path: Path) -> bool:
    """Whether what was sent is no JSON document, but a page: whoever reads lines says so."""
    with path.open("rb") as file:
        return file.read(PIECE_BYTES).lstrip()[:1] == b"<"


def _open_up(path: Path, name: str) -> None:
    """Put the elements of an array in place of the document that it is in."""
    beside = path.with_name(f"{path.name}.elements")
    with path.open("rb") as source, beside.open("wb", PIECE_BYTES) as file:
        try:
            write_elements(source, name, file)
        except ValueError as error:
            raise ProviderUnavailable(f"The provider's answer has no results: {error}") from None
    beside.replace(path)


def _reshape(path: Path, reshape: Callable[[bytes], bytes]) -> None:
    beside = path.with_name(f"{path.name}.lines")
    with open_lines(path) as source, beside.open("wb", PIECE_BYTES) as file:
        for line in read_lines(source):
            file.write((reshape(line.text) if line.text else NO_LINE) + b"\n")
    beside.replace(path)


def in_place_of_lines(path: Path) -> str | None:
    """What stands in the file in place of lines; None where it is lines, or empty."""
    with open_lines(path) as file:
        first = next(read_lines(file), None)
    if first is None:
        return None
    if first.text.startswith(b"<"):
        return "The provider sent a page of HTML or XML in place of the file."
    if path.stat().st_size > PAGE_MAX_BYTES:
        return None
    whole = path.read_bytes().strip()
    if _is_lines(whole):
        return None
    return f"The provider sent this in place of the file: {_shown(whole)}"


def _is_lines(whole: bytes) -> bool:
    """Whether it is one line or more, or what is left of them."""
    if b'"custom_id"' in whole or b'"response"' in whole:
        return True
    only = read_line(whole)  # its keys may have escaped letters
    if only is None:
        return whole[:1] in b'{["'
    return only.name is not None or only.response is not None


def _shown(text: bytes) -> str:
    found = read_line(text)
    error = found.error if found else None
    message = error.get("message") if isinstance(error, dict) else error
    words = message if isinstance(message, str) else text[:300].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in words)[:200]
