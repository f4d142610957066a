"""Batch files that are nearly right: valid lines, mutated as people and programs mutate them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

URL = "/v1/responses"
MODEL = "gpt-5-mini"
DEEP = b"[" * 12_000 + b"]" * 12_000
"""Deeper than any parser goes."""
ODD_TEXTS = st.sampled_from(
    ["", "a", "b", "c", '"', '\\"', "'", "\\", "\0", "é", "🔔", "\u2028", "\x85", "\ufeff", "\r\n"]
)
TEXTS = st.one_of(ODD_TEXTS, st.text(max_size=8))
ENDINGS = st.sampled_from([b"\n"] * 6 + [b"\r\n", b"\n\n", b" \r\n", b"\n\t\n", b"\r"])
MARKS = st.sampled_from([b"", b"", b"", b"\xef\xbb\xbf", b" \r\n", b"\xff\xfe"])
INSERTED = st.sampled_from(
    [
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\r",
        b"\n",
        b"\xe2\x80\xa8",
        b"\\ud83d",
        b"\\udc00\\ud800",
        b"\\u0000",
        b'"',
        b"\\",
        b"{",
        b"}",
        b",",
        b" ",
        b"\x0b",
        b"'",
    ]
)
ODD_VALUES = st.sampled_from(
    [
        b"null",
        b"true",
        b"5",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"1" * 40,
        b"1" * 5000,
        b"-0",
        b'""',
        b'"\\ud800"',
        b'"\\u0000"',
        b'"a"',
        b"[]",
        b"{}",
        b'{"model":"gpt-5-mini","model":"other"}',
        b'{"model":null,"\\u006dodel":"other"}',
        b'"%s"' % (b"x" * 30_000),
        DEEP,
    ]
)
NAMES = ("custom_id", "method", "url", "body", "model", "response", "error", "status_code", "usage")


def requests() -> st.SearchStrategy[dict[str, Any]]:
    """Requests that are in order."""
    names = st.uuids().map(str) | st.text(min_size=1, max_size=6)
    return st.builds(
        lambda name, said: {
            "custom_id": name,
            "method": "POST",
            "url": URL,
            "body": {"model": MODEL, "input": said, "tools": [{"url": said, "body": 1.50}]},
        },
        names,
        TEXTS,
    )


def answers(names: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Lines of output and error files."""
    usage = st.sampled_from([None, {"input_tokens": 2, "output_tokens": 1}, {"input_tokens": -5}])
    body = st.builds(lambda said, used: {"model": MODEL, "text": said, "usage": used}, TEXTS, usage)
    status = st.sampled_from([200, 200, 200, 400, 429, 500, None, "200"])
    responses = st.one_of(
        st.none(), st.builds(lambda code, whole: {"status_code": code, "body": whole}, status, body)
    )
    errors = st.sampled_from([None, None, {"code": "batch_expired", "message": "x"}, {}, "no"])
    return st.builds(
        lambda name, response, error: {"custom_id": name, "response": response, "error": error},
        names,
        responses,
        errors,
    )


def _plain(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _escaped(row: dict[str, Any]) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode()


def _keys_escaped(row: dict[str, Any]) -> bytes:
    text = _escaped(row)
    for name in NAMES:
        key = b'"%s":' % name.encode()
        text = text.replace(key, b'"\\u%04x%s":' % (ord(name[0]), name[1:].encode()))
    return text


def _airy(row: dict[str, Any]) -> bytes:
    return json.dumps(row, separators=(" \r,\t", " : ")).encode()


ENCODERS: list[Callable[[dict[str, Any]], bytes]] = [_plain, _escaped, _keys_escaped, _airy]


@st.composite
def mutated(draw: st.DrawFn, line: bytes) -> bytes:
    """The line with one thing changed."""
    place = draw(st.integers(0, len(line)))
    other = draw(st.integers(0, len(line)))
    match draw(st.integers(0, 8)):
        case 0:
            return line[:place]
        case 1:
            return line + line
        case 2:
            return line[:place] + draw(INSERTED) + line[place:]
        case 3:
            return line[: min(place, other)] + line[max(place, other) :]
        case 4:
            return _with_first(line, draw(st.sampled_from(NAMES)), draw(ODD_VALUES))
        case 5:
            return line.replace(b'"body"', b'"body":{},"body"', 1)
        case 6:
            return line.replace(b'"' + MODEL.encode() + b'"', draw(ODD_VALUES), 1)
        case 7:
            return draw(st.sampled_from([b"", b" \t", b"\x0b", b"[]", b"7", b"{}", DEEP, b"\xff"]))
        case _:
            return line.replace(b'"input"', b'"' + draw(st.sampled_from(NAMES)).encode() + b'"', 1)


def _with_first(line: bytes, name: str, value: bytes) -> bytes:
    """The field stands at the front too."""
    return b'{"%s":%s,' % (name.encode(), value) + line[1:]


@st.composite
def files(draw: st.DrawFn, rows: st.SearchStrategy[dict[str, Any]], *, most: int = 8) -> bytes:
    """A few lines, some of them mutated, put together as a file."""
    whole = draw(MARKS)
    spoiled = draw(st.sampled_from([0, 1, 1, 2]))
    for row in draw(st.lists(rows, min_size=1, max_size=most)):
        line = draw(st.sampled_from(ENCODERS))(row)
        if spoiled and draw(st.booleans()):
            spoiled -= 1
            line = draw(mutated(line))
        whole += line + draw(ENDINGS)
    return whole if draw(st.booleans()) else whole.rstrip(b"\r\n")
