"""What stands in front of a model's name: found, and taken off without a change of length."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core.account import Account, by_front
from batchbell.files.fronts import WrongLine, bare, model_of

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def accounts(*names: str) -> dict[str, Account]:
    return {
        name: Account(id=f"acc_{name}", project_id="p", name=name, provider="openai", base_url="u")
        for name in names
    }


@pytest.mark.parametrize(
    ("line", "model"),
    [
        (b'{"body": {"model": "nightly/gpt-5-mini"}}', "nightly/gpt-5-mini"),
        (b'\xef\xbb\xbf {"body":{"model":"m"}}\r\n', "m"),
        (b'{"model": "not/here", "body": {"x": {"model": "nor/here"}}}', None),
        (b'{"body": {"model": 7}}', None),
        (b'{"body": []}', None),
        (b"[]", None),
        (b"no json", None),
        (b'{"body": {"model": "\xff"}}', None),
        (b"", None),
    ],
)
def test_the_model_is_read_from_the_body(line: bytes, model: str | None) -> None:
    assert model_of(line) == model


@pytest.mark.parametrize(
    ("line", "made"),
    [
        (
            b'{"custom_id":"a","body":{"model":"n/m","x":1}}\n',
            b'{"custom_id":"a","body":{"model":"m","x":1}}  \n',
        ),
        (b'{"body": {"model": "n/n/m"}}', b'{"body":{"model":"n/m"}}    '),
        (
            b'\xef\xbb\xbf\t{"body":{"model":"n\\/m"}} \r\n',
            b'\xef\xbb\xbf\t{"body":{"model":"m"}}    \r\n',
        ),
        (
            b'{"body":{"model":"n/m","a":1.0e0,"b":"\\u00e9"}}',
            b'{"body":{"model":"m","a":1.0e0,"b":"\\u00e9"}}  ',
        ),
    ],
)
def test_the_front_is_taken_off_and_all_else_stays(line: bytes, made: bytes) -> None:
    assert bare(line, "n/") == made


@given(st.dictionaries(st.text(), VALUES), st.dictionaries(st.text(), VALUES), st.booleans())
def test_whatever_is_in_a_line_it_keeps_its_meaning_and_its_length(
    fields: dict[str, Any], body: dict[str, Any], ascii: bool
) -> None:
    whole = {**fields, "body": {**body, "model": "nightly/m/ü"}}
    line = json.dumps(whole, ensure_ascii=ascii).encode() + b"\n"
    made = bare(line, "nightly/")
    assert len(made) == len(line)
    whole["body"]["model"] = "m/ü"
    assert json.loads(made) == whole


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"body": {"model": "gpt-5-mini"}}', "mismatched_account"),
        (b'{"body": {"model": "other/gpt-5-mini"}}', "mismatched_account"),
        (b'{"body": {"model": 7}}', "invalid_json_line"),
        (b'{"body": {}}', "invalid_json_line"),
        (b"{}", "invalid_json_line"),
        (b"[]", "invalid_json_line"),
        (b'{"body": {"model": "n/m"}', "invalid_json_line"),
        (b'{"\xff": 1, "body": {"model": "n/m"}}', "invalid_json_line"),
    ],
)
def test_a_line_that_is_not_of_its_kind_is_refused(line: bytes, code: str) -> None:
    with pytest.raises(WrongLine) as caught:
        bare(line, "n/")
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("model", "named", "found"),
    [
        ("nightly/m", None, ("nightly", "nightly/")),
        ("nightly/m", "nightly", ("nightly", "nightly/")),
        ("nightly/m", "openai", ("openai", "")),
        ("nightly/openai/m", None, ("nightly", "nightly/")),
        ("other/m", None, (None, "")),
        ("other/m", "openai", ("openai", "")),
        ("nightly", None, (None, "")),
        ("/m", None, (None, "")),
        (None, None, (None, "")),
        (None, "openai", ("openai", "")),
    ],
)
def test_whose_requests_they_are(
    model: str | None, named: str | None, found: tuple[str | None, str]
) -> None:
    known = accounts("openai", "nightly")
    account, front = by_front(model, known, known[named] if named else None)
    assert (account and account.name, front) == found
