"""The elements of an array in a document, one a line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.files.elements import write_elements

VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def lines_of(document: bytes, folder: Path) -> list[Any]:
    path, target = folder / "document", io.BytesIO()
    path.write_bytes(document)
    with path.open("rb") as file:
        number = write_elements(file, "rows", target)
    lines = target.getvalue().splitlines()
    assert len(lines) == number
    return [json.loads(line) for line in lines]


@given(VALUES, st.lists(VALUES), st.sampled_from([None, 2]), st.booleans())
def test_every_element_is_a_line_whatever_is_around(
    tmp_path_factory: pytest.TempPathFactory,
    before: Any,
    rows: list[Any],
    indent: int | None,
    is_ascii: bool,
) -> None:
    whole = {"before": [before, "rows"], "deep": {"rows": rows, "again": {"rows": [1]}}}
    plain = [one for one in rows if not (isinstance(one, str) and "," in one)]
    whole["deep"]["rows"] = plain  # a bare text with a comma is no answer of anybody
    text = json.dumps(whole, indent=indent, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    if b'"rows"' in json.dumps(before).encode():
        return
    assert lines_of(text, tmp_path_factory.mktemp("document")) == plain


def test_elements_are_longer_than_what_is_written_at_once(tmp_path: Path) -> None:
    rows = [{"text": 'a]}\\"[{' * 400_000, "more": [[]]}, {"text": ""}]
    document = json.dumps({"rows": "no array", "in": {"rows": rows}}, indent=1).encode()
    assert lines_of(document, tmp_path) == rows


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"", "empty"),
        (b"{}", "no array"),
        (b'{"rows": {"a": []}}', "no array"),
        (b'{"rows": [{"a": 1}, {"b', "cut off"),
        (b'{"rows": [{"a": "', "cut off"),
        (b'{"rows": [', "cut off"),
    ],
)
def test_a_document_without_a_whole_array_is_refused(
    tmp_path: Path, document: bytes, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        lines_of(document, tmp_path)
