"""The body of an event, as it is stored: what is fast says the same as what is plain."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core import payload
from batchbell.storage.outbox import compact

words = st.text(max_size=20)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | words
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


@given(value=values)
def test_it_is_ascii_and_means_the_same(value: Any) -> None:
    body = compact(value)
    assert body.isascii()
    assert json.loads(body) == json.loads(payload.compact(value))


@pytest.mark.parametrize("value", ["half \ud83d", {"half \ud83d": 1}, 2**200, {1: "one"}])
def test_what_is_odd_is_written_as_ever(value: Any) -> None:
    assert compact(value) == payload.compact(value)
