"""What is told of requests before they are uploaded, and how they are split."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core.limits import Limits
from batchbell.files.preflight import PROBLEMS_MAX, Prepared, first_model, prepare, split

URL = "/v1/chat/completions"


def line(name: str, *, url: str | None = URL, model: str = "gpt-5-mini", **more: Any) -> bytes:
    whole = {"custom_id": name, "method": "POST", "url": url, "body": {"model": model}, **more}
    return json.dumps({key: value for key, value in whole.items() if value is not None}).encode()


def prepared(folder: Path, content: bytes, limits: Limits | None = None, **more: Any) -> Prepared:
    return prepare(io.BytesIO(content), folder, limits=limits or Limits(), **more)


def written(result: Prepared) -> list[list[dict[str, Any]]]:
    return [
        [json.loads(text) for text in part.path.read_bytes().splitlines()] for part in result.parts
    ]


def test_good_lines_are_written_as_they_came(tmp_path: Path) -> None:
    content = b"\n".join(line(name) for name in "abc")
    result = prepared(tmp_path, content)
    assert (result.lines, result.url, result.model) == (3, URL, "gpt-5-mini")
    assert result.problems == []
    (part,) = result.parts
    assert part.path.read_bytes() == content + b"\n"
    assert (part.lines, part.size) == (3, len(content) + 1)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\n\n", b" \r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_ends_of_lines_and_a_byte_order_mark_are_no_matter(
    tmp_path: Path, ending: bytes, mark: bytes
) -> None:
    result = prepared(tmp_path, mark + ending.join([line("a"), line("b")]))
    assert [row["custom_id"] for row in written(result)[0]] == ["a", "b"]


def test_a_custom_id_that_the_provider_does_not_take_is_refused(tmp_path: Path) -> None:
    limits = Limits(custom_id=r"[a-zA-Z0-9_-]{1,64}", custom_id_characters=64)
    content = b"\n".join(line(name) for name in ("good_1", "a b", "x" * 65, "é"))
    result = prepared(tmp_path, content, limits)
    assert [(one.line, one.code) for one in result.problems] == [
        (2, "invalid_custom_id"),
        (3, "invalid_custom_id"),
        (4, "invalid_custom_id"),
    ]
    assert "[a-zA-Z0-9_-]{1,64}" in result.problems[0].message


def test_what_is_missing_is_filled_in(tmp_path: Path) -> None:
    content = b'{"body":{"model":"m"}}\n\n{"custom_id":null,"body":{"x":1.50},"priority":7}'
    result = prepared(tmp_path, content, url=URL)
    ((first, second),) = written(result)
    assert first == {
        "custom_id": "request-000001",
        "method": "POST",
        "url": URL,
        "body": {"model": "m"},
    }
    assert second["priority"] == 7
    assert b'{"x":1.50}' in result.parts[0].path.read_bytes(), "a body is never written anew"


def test_an_id_that_is_null_is_filled_in(tmp_path: Path) -> None:
    result = prepared(tmp_path, b'{"custom_id":null,"url":"/u","body":{}}')
    assert written(result)[0][0]["custom_id"] == "request-000001"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", (None, "empty_file")),
        (b"\n \r\n", (None, "empty_file")),
        (line("a").decode().encode("utf-16"), (None, "invalid_encoding")),
        (line("a") + b"\n{broken", (2, "invalid_json_line")),
        (line("a") + b"\n[1]", (2, "invalid_json_line")),
        (b'{"custom_id":"a","url":"/u","body":' + b"[" * 5000, (1, "invalid_json_line")),
        (b'{"custom_id":"a\xff","url":"/u","body":{}}', (1, "invalid_encoding")),
        (b'{"custom_id":"a\x00","url":"/u","body":{}}', (1, "invalid_json_line")),
        (line("a") + b"\n" + line("a"), (2, "duplicate_custom_id")),
        (line("a") + b"\n" + line("b", url="/v1/embeddings"), (2, "mismatched_url")),
        (line("a") + b"\n" + line("b", model="other"), (2, "mismatched_model")),
        (b'{"custom_id":"a","url":"/u","body":{"x":"\\ud83d"}}', (1, "invalid_json_line")),
        (b'{"custom_id":"a","custom_id":"b","url":"/u","body":{}}', (1, "duplicate_field")),
        (b'{"custom_id":"a","\\u0075rl":"/v","url":"/u","body":{}}', (1, "duplicate_field")),
        (b'{"custom_id":"a","url":"/u","body":{"model":"m","model":"n"}}', (1, "duplicate_field")),
        (line("a", url=None), (1, "missing_url")),
        (line("a", url="v1"), (1, "invalid_url")),
        (line("a", url="/u\0"), (1, "invalid_url")),
        (line("a", url="/" * 257), (1, "invalid_url")),
        (b'{"custom_id":"a","url":"/u"}', (1, "missing_body")),
        (b'{"custom_id":"a","url":"/u","body":[]}', (1, "invalid_body")),
        (b'{"custom_id":"a","url":"/u","body":{"model":5}}', (1, "invalid_model")),
        (line("a", model=""), (1, "invalid_model")),
        (line("a", model="m\0"), (1, "invalid_model")),
        (b'{"custom_id":5,"url":"/u","body":{}}', (1, "invalid_custom_id")),
        (line(""), (1, "invalid_custom_id")),
        (line("a" * 513), (1, "invalid_custom_id")),
        (line("a", method="GET"), (1, "invalid_method")),
        (line("a", body={"text": "x" * 7000}), (1, "line_too_long")),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    tmp_path: Path, content: bytes, problem: tuple[int | None, str]
) -> None:
    """Pitfall 22: a duplicate custom_id is refused before the upload, with its line."""
    result = prepared(tmp_path, content, Limits(line_bytes=6000))
    assert [(found.line, found.code) for found in result.problems] == [problem]


MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("content", "number", "code", "words"),
    [
        (b"", None, "empty_file", "is empty"),
        (MARK, None, "empty_file", "is empty"),
        (line("a").decode().encode("utf-16-le"), None, "invalid_encoding", "UTF-16"),
        (line("a").decode().encode("utf-16-be"), None, "invalid_encoding", "UTF-16"),
        (line("a").decode().encode("utf-32"), None, "invalid_encoding", "UTF-32"),
        (gzip.compress(line("a")), None, "not_json_lines", "gzip"),
        (b"PK\x03\x04" + bytes(100), None, "not_json_lines", "zip"),
        (b"PAR1\x15\x04" + bytes(100), None, "not_json_lines", "Parquet"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), None, "not_json_lines", "zstd"),
        (bz2.compress(line("a")), None, "not_json_lines", "bzip2"),
        (lzma.compress(line("a")), None, "not_json_lines", "xz"),
        (b"%PDF-1.7\n", None, "not_json_lines", "PDF"),
        (b"custom_id,method,url,body\na,POST,/u,{}\n", None, "not_json_lines", "CSV"),
        (MARK + b"custom_id;prompt\r\na;b\r\n", None, "not_json_lines", "CSV"),
        (b"id\tprompt\na\tb\n", None, "not_json_lines", "CSV"),
        (b"<!doctype html>\n<html>", None, "not_json_lines", "HTML"),
        (b"[" + line("a") + b"," + line("b") + b"]", None, "not_json_lines", "one JSON array"),
        (b"[\n  " + line("a") + b"\n]\n", None, "not_json_lines", "one JSON array"),
        (b'{\n  "custom_id": "a"\n}\n', None, "not_json_lines", "several lines"),
        (line("a") + b"\n" + MARK + line("b"), 2, "invalid_json_line", "byte order mark"),
        (line("a") + b"\r" + line("b") + b"\r", 1, "invalid_json_line", "CR alone"),
        ((line("a") + b"\r") * 100, 1, "line_too_long", "CR alone"),
        (line("a", body={"x": float("nan")}), 1, "invalid_json_line", "NaN is no JSON"),
        (line("a", x=float("-inf")), 1, "invalid_json_line", "-Infinity is no JSON"),
        (line("a") + line("b"), 1, "invalid_json_line", "This is no JSON"),
        (line("a")[:-1], 1, "invalid_json_line", "This is no JSON"),
        (b'{"custom_id":"\\ud83d","url":"/u","body":{}}', 1, "invalid_json_line", "surrogate"),
    ],
)
def test_the_error_says_what_the_file_really_is(
    tmp_path: Path, content: bytes, number: int | None, code: str, words: str
) -> None:
    (found,) = prepared(tmp_path, content, Limits(line_bytes=6000)).problems
    assert (found.line, found.code) == (number, code)
    assert words in found.message


@pytest.mark.parametrize("wrong", [{"url": 5}, {"custom_id": 5}, {"body": {"model": 5}}])
def test_what_is_wrong_with_one_line_is_not_told_of_the_next(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    bad = b"\n".join([line("a", **wrong), line("b", **wrong), line("c")])
    assert [found.line for found in prepared(tmp_path, bad).problems] == [1, 2]


def test_a_field_that_only_looks_repeated_is_none(tmp_path: Path) -> None:
    quoted = b'{"custom_id":"\\"url\\":","method":"POST","url":"/u","\\"":1,"body":{"x":{"url":1}}}'
    result = prepared(tmp_path, quoted)
    assert result.problems == []
    assert result.parts[0].path.read_bytes() == quoted + b"\n"
    twice = quoted.replace(b'"url":"/u"', b'"url":"/u","\\u0022":1')
    assert [found.code for found in prepared(tmp_path, twice).problems] == ["duplicate_field"]


def test_a_line_is_one_line_to_every_reader(tmp_path: Path) -> None:
    content = b'{"custom_id":"a",\r"method":"post",\r"url":"/u","body":{\r"input":"x\\r"}}\r\n'
    result = prepared(tmp_path, content)
    written = result.parts[0].path.read_bytes()
    assert (written.count(b"\r"), written.count(b"\n")) == (0, 1)
    assert json.loads(written)["method"] == "POST"
    assert json.loads(written)["body"] == {"input": "x\r"}


def test_a_repeated_id_names_the_line_that_had_it_first(tmp_path: Path) -> None:
    result = prepared(tmp_path, b"\n".join([line("a"), line("b"), b"", line("a")]))
    assert result.problems[0].line == 4
    assert "line 1" in result.problems[0].message


def test_all_problems_are_counted_and_the_first_are_told(tmp_path: Path) -> None:
    result = prepared(tmp_path, b"nonsense\n" * 250)
    assert (len(result.problems), result.problems_in_all) == (PROBLEMS_MAX, 250)


@pytest.mark.parametrize(
    ("limits", "lines"),
    [
        (Limits(lines=2), [2, 2, 1]),
        (Limits(bytes=3 * (len(line("a")) + 1)), [3, 2]),
        (Limits(bytes=1), [1, 1, 1, 1, 1]),
        (Limits(tokens=30), [1, 1, 1, 1, 1]),
        (Limits(tokens=60), [2, 2, 1]),
    ],
)
def test_what_is_too_much_for_one_batch_is_split(
    tmp_path: Path, limits: Limits, lines: list[int]
) -> None:
    """Pitfall 22: inputs over a provider's limits are split."""
    result = prepared(tmp_path, b"\n".join(line(name) for name in "abcde"), limits)
    assert [part.lines for part in result.parts] == lines
    assert [row["custom_id"] for part in written(result) for row in part] == list("abcde")


def test_parts_know_which_lines_of_the_file_they_have(tmp_path: Path) -> None:
    content = b"\n\n" + b"\n\n".join(line(name) for name in "abcd") + b"\n" + line("e")
    (part,) = prepared(tmp_path, content).parts
    assert part.numbering.runs == ((1, 3, 2), (5, 10, 0))
    (pieces := tmp_path / "pieces").mkdir()
    with part.path.open("rb") as source:
        how: dict[str, Any] = {"bytes_per_token": 4.0, "runs": part.numbering.runs}
        made = split(source, pieces, limits=Limits(lines=3), **how)
    assert [piece.numbering.runs for piece in made] == [((1, 3, 2),), ((1, 9, 1),)]


def test_the_model_of_what_cannot_be_read_is_none() -> None:
    deep = b'{"body":{"model":"m","x":' + b"[" * 5000 + b"]" * 5000 + b"}}"
    assert first_model(io.BytesIO(deep)) is None


@given(st.binary(max_size=400), st.booleans())
def test_no_bytes_at_all_break_it(content: bytes, named: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = prepared(Path(folder), content, url=URL if named else None)
        assert bool(result.problems) or result.lines == sum(part.lines for part in result.parts)
        if not result.problems:
            assert all(
                isinstance(row["custom_id"], str) for part in written(result) for row in part
            )


texts = st.text(max_size=20)


identities = st.lists(st.text(min_size=1, max_size=20), unique=True, min_size=1, max_size=20)


@given(identities, st.integers(1, 7), st.data())
def test_every_request_is_in_exactly_one_part(
    names: list[str], most: int, data: st.DataObject
) -> None:
    bodies = [{"model": "m", "input": data.draw(texts)} for _ in names]
    content = b"\n".join(line(name, body=body) for name, body in zip(names, bodies, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        result = prepared(Path(folder), content, Limits(lines=most))
        assert result.problems == []
        rows = [row for part in written(result) for row in part]
    assert [(row["custom_id"], row["body"]) for row in rows] == list(
        zip(names, bodies, strict=True)
    )
