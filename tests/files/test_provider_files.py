"""What a provider sent as a file: lines are taken for lines, however they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchbell.core.errors import ProviderUnavailable
from batchbell.core.results import Arrived
from batchbell.files.provider_files import in_place_of_lines, unpack

LINE = b'{"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": {}}'
ESCAPED = LINE.replace(b"custom_id", b"\\u0063ustom_id")
LINES = {
    "a line": LINE,
    "a key with escaped letters": ESCAPED,
    "two of them": ESCAPED + b"\n" + ESCAPED,
    "an id that is a number": LINE.replace(b'"a"', b"7").replace(b"custom_id", b"\\u0063ustom_id"),
    "a response without an id": b'{"\\u0072esponse": {"status_code": 200, "body": {"id": "x"}}}',
    "cut off": LINE[:30],
    "nothing": b"",
}
PAGES = {
    "an error": b'{"error": {"message": "Not now."}}',
    "an error as text": b'{"error": "Not now."}',
    "another object": b'{"status": "processing"}',
    "HTML": b"<html>Bad gateway</html>",
    "a word": b"upstream connect error",
}


@pytest.mark.parametrize("content", LINES.values(), ids=LINES)
def test_lines_are_lines(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert in_place_of_lines(tmp_path / "file") is None


@pytest.mark.parametrize("content", PAGES.values(), ids=PAGES)
def test_what_stands_in_their_place_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert in_place_of_lines(tmp_path / "file") is not None


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("\ufeff".encode("utf-16-le") + LINE.decode().encode("utf-16-le"), LINE),
        ("\ufeff".encode("utf-16-be") + LINE.decode().encode("utf-16-be"), LINE),
        (b"\xff\xfe" + LINE, b"\xff\xfe" + LINE),
        (b"\xfe\xff" + LINE, b"\xfe\xff" + LINE),
    ],
)
def test_a_mark_alone_makes_no_utf_16(tmp_path: Path, content: bytes, lines: bytes) -> None:
    """Else every answer of a file in UTF-8 would turn to garbage."""
    (tmp_path / "packed").write_bytes(content)
    unpack(tmp_path / "packed", tmp_path / "lines", Arrived(), most_bytes=10_000)
    assert (tmp_path / "lines").read_bytes() == lines


def test_a_page_may_be_asked_again(tmp_path: Path) -> None:
    (tmp_path / "packed").write_bytes(PAGES["an error"])
    with pytest.raises(ProviderUnavailable, match="Not now"):
        unpack(tmp_path / "packed", tmp_path / "lines", Arrived(), most_bytes=10_000)


def test_lines_of_another_dialect_are_put_into_shape(tmp_path: Path) -> None:
    """Those that the dialect cannot read stay as they are: nothing that was paid for is lost."""

    def reshape(line: bytes) -> bytes:
        key, _, body = line.partition(b"=")
        return b'{"custom_id":"%s","response":{"body":%s}}' % (key, body) if body else line

    (tmp_path / "sent").write_bytes(b"a={}\r\nodd\n\nb=1")
    target = tmp_path / "lines"
    unpack(tmp_path / "sent", target, Arrived(), most_bytes=1_000, reshape=reshape)
    assert target.read_bytes().splitlines() == [
        b'{"custom_id":"a","response":{"body":{}}}',
        b"odd",
        b'{"custom_id":"b","response":{"body":1}}',
    ]
