"""Submissions whose bodies, forms and headers are nearly right: never an answer of 5xx."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.files.fuzzing import INSERTED, ODD_VALUES, TEXTS, URL, files, mutated, requests

from .making import HOOK, Served

pytestmark = pytest.mark.databases("sqlite")

EXAMPLES = 30
BOUNDARY = "----boundary"
NAMES = "endpoint account webhook_url endpoint_id events metadata results retry_missing nonsense"
ODD_WISHES = [
    *("", "x", "\0", "é", "1", "1e9", "-1", "NaN", "[]", "{}", URL, HOOK, "openai"),
    *("batch.failed", "batch.failed,", '{"a":"b"}', '{"a":"\\u0000"}', '{"\\ud800":"b"}'),
    *("[" * 5000, "x" * 5000),
]
QUERIES = st.just({}) | st.dictionaries(
    st.sampled_from(NAMES.split()), st.sampled_from(ODD_WISHES), max_size=3
)
GOOD = b'{"custom_id":"a","url":"/v1/responses","body":{"model":"m"}}'
GOOD_FORM = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"\r\n\r\n'.encode()
    + GOOD
    + f"\r\n--{BOUNDARY}--".encode()
)
LINES = st.sampled_from(
    ["application/jsonl", "application/x-ndjson", "text/plain; charset=latin-1"]
)
FORMS = st.sampled_from(
    [
        *[f"multipart/form-data; boundary={BOUNDARY}"] * 20,
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        f'Multipart/Form-Data; charset=x; boundary="{BOUNDARY}"',
        "multipart/form-data; boundary=other",
        "multipart/form-data; boundary=" + "b" * 300,
        "multipart/form-data; boundary=\xe9",
        "multipart/mixed; boundary=" + BOUNDARY,
        "multipart/form-data; boundary*=utf-8''" + BOUNDARY,
        ";;;=;boundary",
    ]
)


@contextmanager
def caller(served: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=served.url, timeout=30) as http:
        yield http


async def in_thread(check: Callable[[], None]) -> None:
    """Hypothesis blocks, and the server is on this test's own loop."""
    await asyncio.to_thread(check)


def judge(answer: httpx2.Response) -> int:
    """Taken, or refused in OpenAI's shape and with a reason; returns the status."""
    assert answer.status_code in (201, 400, 413, 415, 422), answer.text
    body = answer.json()
    if answer.status_code == 201:
        assert body["object"] == "submission"
        return 201
    error = body["error"]
    assert set(error) <= {"message", "type", "param", "code", "problems"}
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert re.fullmatch(r"[a-z_]+", error["code"])
    return answer.status_code


async def test_any_json_lines_are_taken_or_refused(served: Served) -> None:
    seen = set()
    with caller(served) as http:

        @settings(max_examples=EXAMPLES)
        @example(GOOD, {}, "application/jsonl")
        @given(files(requests()), QUERIES, LINES)
        def check(content: bytes, query: dict[str, str], kind: str) -> None:
            headers = {"content-type": kind}
            seen.add(
                judge(http.post("/v1/submissions", params=query, content=content, headers=headers))
            )

        await in_thread(check)
    assert 201 in seen


def as_json(lines: bytes, query: dict[str, str], more: bytes) -> bytes:
    """A body whose requests are lines that may be broken."""
    texts = [line for line in re.split(rb"[\r\n]+", lines) if line.strip()]
    wishes = [b'"%s":%s' % (name.encode(), json.dumps(query[name]).encode()) for name in query]
    fields = [b'"requests":[' + b",".join(texts) + b"]", *wishes, b'"metadata":' + more]
    return b"{" + b",".join(fields) + b"}"


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    metadata = draw(ODD_VALUES | st.just(b"{}"))
    body = as_json(draw(files(requests(), most=3)), draw(QUERIES), metadata)
    return draw(mutated(body)) if draw(st.booleans()) else body


async def test_any_json_is_taken_or_refused(served: Served) -> None:
    seen = set()
    with caller(served) as http:

        @settings(max_examples=EXAMPLES)
        @example(as_json(GOOD, {}, b"{}"))
        @given(bodies())
        def check(body: bytes) -> None:
            seen.add(judge(http.post("/v1/submissions", content=body)))

        await in_thread(check)
    assert 201 in seen


@st.composite
def parts(draw: st.DrawFn, name: str) -> bytes:
    """A field of a form, whose head may be odd."""
    odd = [
        f"form-data; name={name}",
        f"form-data; name*=utf-8''{name}",
        "form-data",
        "",
        "y" * 20_000,
    ]
    named = [f'form-data; name="{name}"', f'form-data; name="{name}"; filename="in.jsonl"']
    head = draw(st.sampled_from([*named * 4, *odd]))
    value = draw(files(requests(), most=2)) if name == "file" else draw(TEXTS).encode()
    return f"--{BOUNDARY}\r\nContent-Disposition: {head}\r\n\r\n".encode() + value + b"\r\n"


@st.composite
def forms(draw: st.DrawFn) -> bytes:
    """A form with what may be wrong with one: fields twice, odd names, odd bytes, no end."""
    names = st.sampled_from(["file", "endpoint", "metadata", "", "é", 'a"b', "x" * 300])
    fields = [*draw(st.just([]) | st.lists(names, max_size=2)), "file"]
    end = draw(st.sampled_from([f"--{BOUNDARY}--\r\n", f"--{BOUNDARY}--", f"--{BOUNDARY}", ""]))
    whole = b"".join(draw(parts(name)) for name in fields) + end.encode()
    place = draw(st.integers(0, len(whole)))
    match draw(st.integers(0, 5)):
        case 0:
            return whole[:place]
        case 1:
            return whole[:place] + draw(INSERTED) + whole[place + draw(st.integers(0, 3)) :]
        case _:
            return whole


async def test_any_form_is_taken_or_refused(served: Served) -> None:
    seen = set()
    with caller(served) as http:

        @settings(max_examples=EXAMPLES)
        @example(GOOD_FORM, f"multipart/form-data; boundary={BOUNDARY}", {})
        @given(forms(), FORMS, QUERIES)
        def check(body: bytes, kind: str, query: dict[str, str]) -> None:
            headers = {b"content-type": kind.encode("latin-1")}
            seen.add(
                judge(http.post("/v1/submissions", params=query, content=body, headers=headers))
            )

        await in_thread(check)
    assert 201 in seen
