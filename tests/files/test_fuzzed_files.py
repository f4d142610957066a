"""What must hold of any bytes at all, and most of all of those that are nearly right."""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core.limits import Limits
from batchbell.files import lines
from batchbell.files.lines import Read, has_text_id, read_lines
from batchbell.files.merge import merge
from batchbell.files.preflight import Prepared, prepare
from batchbell.files.rounds import Rounds, gather_passing, join

from .fuzzing import URL, answers, files, requests

ERRORS = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
LIMITS = Limits(lines=3, bytes=1000, line_bytes=20_000, tokens=200)
"""A line may be longer than a part, and shorter than the deepest one."""
MARK = b"\xef\xbb\xbf"
MISSING = ("not_run", "Nothing was heard of it.")
NAMES = [f"r{n}" for n in range(6)]


@pytest.fixture(scope="module")
def known_codes() -> set[str]:
    """The codes that the reference explains."""
    section = ERRORS.read_text(encoding="utf-8").partition("## Requests that are wrong")[2]
    listed = re.findall(r"^- (.*?):", section, re.MULTILINE | re.DOTALL)
    return set(re.findall(r"`(\w+)`", " ".join(listed)))


def model(content: bytes, most: int) -> Iterator[Read]:
    """`read_lines`, as simply as it can be said."""
    begins = 0
    for number, line in enumerate(content.split(b"\n"), start=1):
        text = line.removeprefix(MARK) if number == 1 else line
        if len(line) > most:
            yield Read(number, begins, b"")
        elif text.strip():
            begun = begins + len(line) - len(text.lstrip())
            yield Read(number, begun, text.strip())
        begins += len(line) + 1


@given(st.one_of(st.binary(max_size=300), files(requests())), st.integers(1, 400))
def test_lines_are_read_where_they_stand(content: bytes, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "LINE_MAX_BYTES", most)
        read = list(read_lines(io.BytesIO(content)))
    assert read == list(model(content, most))
    assert all(content[line.offset :].startswith(line.text) for line in read)


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def strictly(text: bytes) -> dict[str, Any]:
    """As the strictest of providers reads a line. Numbers stay as they are written."""
    assert not set(b"\r\n") & set(text), "some readers would see two lines"
    whole = text.decode("utf-8", "strict")
    numbers: dict[str, Any] = {"parse_int": str, "parse_float": str}
    fields = json.loads(whole, object_pairs_hook=tuple, **numbers)
    for pairs in (fields, dict(fields)["body"]):
        assert len({name for name, _ in pairs}) == len(pairs), "the provider may read the other"
    found: dict[str, Any] = json.loads(whole, parse_constant=_no_constant, **numbers)
    json.dumps(found, ensure_ascii=False).encode("utf-8", "strict")
    return found


def loosely(text: bytes) -> Any:
    return json.loads(text, parse_int=str, parse_float=str)


def prepared(folder: str, content: bytes, **wishes: Any) -> Prepared:
    return prepare(io.BytesIO(content), Path(folder), limits=LIMITS, **wishes)


@given(files(requests()), st.booleans())
def test_what_is_accepted_is_what_the_provider_will_read(content: bytes, named: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = prepared(folder, content, url=URL if named else None)
        if found.problems:
            return
        written = [part.path.read_bytes().split(b"\n") for part in found.parts]
        assert all(texts.pop() == b"" for texts in written), "each line is ended"
    rows = [strictly(text) for texts in written for text in texts]
    asked = list(read_lines(io.BytesIO(content)))
    assert len(rows) == len(asked) == found.lines
    for row, line in zip(rows, asked, strict=True):
        meant = loosely(line.text)
        defaults = {"custom_id": f"request-{line.number:06d}", "url": found.url}
        filled = {name: meant.get(name) or default for name, default in defaults.items()}
        assert row == {**meant, **filled, "method": "POST"}
    assert max(Counter(row["custom_id"] for row in rows).values()) == 1
    assert {row["url"] for row in rows} == {found.url}
    models = {row["body"].get("model") for row in rows} - {None}
    assert models == ({found.model} if found.model is not None else set())


@given(files(requests()))
def test_parts_hold_what_they_say_and_no_more_than_they_may(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = prepared(folder, content)
        if found.problems:
            return
        for part in found.parts:
            whole = part.path.read_bytes()
            assert (part.size, part.lines) == (len(whole), whole.count(b"\n"))
            assert 0 < part.lines <= LIMITS.lines
            assert part.size <= LIMITS.bytes or part.lines == 1
            assert LIMITS.tokens is not None
            assert part.tokens <= LIMITS.tokens or part.lines == 1


@given(files(requests()))
def test_what_is_refused_names_its_line_and_a_known_code(
    known_codes: set[str], content: bytes
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = prepared(folder, content)
    for problem in found.problems:
        assert problem.code in known_codes
        whole_file = problem.code in ("empty_file", "invalid_encoding")
        assert whole_file if problem.line is None else 0 < problem.line <= content.count(b"\n") + 1
        problem.message.encode("utf-8", "strict")
    assert bool(found.problems) != bool(found.lines and found.parts) or found.problems


def identity_of(text: bytes) -> str | None:
    """Whose line it is, by Python's own reading."""
    try:
        row = json.loads(text.decode("utf-8", "replace"), parse_int=str)
    except (ValueError, RecursionError):
        return None
    name = row.get("custom_id") if isinstance(row, dict) else None
    return name if isinstance(name, str) else None


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def texts_of(content: bytes) -> list[bytes]:
    return [line.text for line in read_lines(io.BytesIO(content))]


Files = st.lists(files(answers(st.sampled_from(NAMES))), max_size=3)
INPUTS = st.one_of(
    files(requests()),
    st.just(b"".join(b'{"custom_id":"%s"}\n' % name.encode() for name in NAMES)),
)


@given(INPUTS, Files)
def test_any_files_at_all_are_merged(input: bytes, outputs: list[bytes]) -> None:
    target = io.BytesIO()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        paths = [put(folder, f"{n}", content) for n, content in enumerate(outputs)]
        asked = put(folder, "in", input)
        tally = merge(asked, paths, target, missing_code=MISSING[0], missing_message=MISSING[1])
    *written, last = target.getvalue().split(b"\n")
    assert last == b""
    names = [name for name in map(identity_of, written) if name is not None]
    wanted = [name for name in map(identity_of, texts_of(input)) if name is not None]
    assert names[: len(wanted)] == wanted
    given_ = {text for content in outputs for text in texts_of(content)}
    for text in set(written) - given_:
        error = json.loads(text.decode("utf-8", "replace")).get("error")
        if identity_of(text) is None or (error and error["code"] == MISSING[0]):
            continue
        assert identity_of(text) in wanted, "an answer that got the name of its request"
    for text in given_:
        if has_text_id(text):
            assert text in written, "byte for byte as the provider wrote it"
    assert tally.lines == len(written) == tally.succeeded + tally.failed + tally.not_run
    assert tally.size == len(target.getvalue())
    assert all(sum(map(abs, _numbers(used))) < 2**53 for used in tally.usage.values())


def _numbers(used: Any) -> list[int]:
    return [getattr(used, name) for name in used.__struct_fields__]


@given(st.lists(Files, min_size=1, max_size=2))
def test_any_rounds_at_all_are_joined(rounds: list[list[bytes]]) -> None:
    requests_ = b"".join(b'{"custom_id":"%s"}\n' % name.encode() for name in NAMES)
    target = io.BytesIO()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        positions = [
            Rounds(
                requests=put(folder, f"{place}.in", requests_),
                answers=[put(folder, f"{place}.{n}", one) for n, one in enumerate(outputs)],
                missing_code=MISSING[0],
                missing_message=MISSING[1],
            )
            for place, outputs in enumerate(rounds)
        ]
        for position in positions:
            for one in position.answers:
                again = gather_passing(position.requests, one, folder / "again")
                assert (folder / "again").read_bytes().count(b"\n") == again.lines <= len(NAMES)
        tally = join(positions, target)
    written = target.getvalue().split(b"\n")[:-1]
    assert tally.lines == len(written)
    named = [name for name in map(identity_of, written) if name in NAMES]
    assert named[: len(NAMES)] == NAMES
    assert min(Counter(named).values()) >= len(rounds)
