"""Bodies are judged by their declaration: everything that is wrong comes at once, in our words."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any

import pytest
from pydantic import Field

from batchbell.api.fields import (
    AnyEvents,
    BatchEvents,
    BatchId,
    Conflict,
    Name,
    Pairs,
    Request,
    Results,
    Text,
)
from batchbell.core.errors import AddressRefused, InvalidRequest
from batchbell.web.bodies import judge, read
from batchbell.web.errors import Code, InvalidBody

pytestmark = pytest.mark.databases("sqlite")


class Sample(Request):
    text: Text
    name: Name | None = None
    batch: BatchId | None = None
    flag: bool | None = None
    number: Annotated[float, Field(ge=1, le=86_400)] | None = None
    whole: Annotated[int, Field(gt=0)] | None = None
    waits: Annotated[list[Annotated[float, Field(ge=1)]], Field(max_length=2)] | None = None
    events: BatchEvents | None = None
    any: AnyEvents | None = None
    results: Results | None = None
    metadata: Pairs | None = None

    @classmethod
    def conflicts(cls, sound: Mapping[str, Any], spoilt: Collection[str]) -> Iterator[Conflict]:
        if sound.get("flag") and sound.get("number"):
            yield Conflict("flag", "stands against number.")


WRONG: list[tuple[Any, str | None, str]] = [
    ([], None, "The body must be a JSON object."),
    (None, None, "The body must be a JSON object."),
    ({}, "text", "text is required."),
    ({"text": None}, "text", "text is required."),
    ({"text": 7}, "text", "text must be a string."),
    ({"text": True}, "text", "text must be a string."),
    ({"text": ""}, "text", "text must have 1 or more characters."),
    ({"text": "x" * 101}, "text", "text must have at most 100 characters."),
    ({"text": "a\0b"}, "text", "text holds a character that cannot be stored."),
    ({"text": "\ud800"}, "text", "text holds a character that cannot be stored."),
    ({"name": "a b"}, "name", "name must be a plain token of letters"),
    ({"name": "a\n"}, "name", "name must be a plain token of letters"),
    ({"batch": "../x"}, "batch", "batch must consist of letters"),
    ({"flag": "true"}, "flag", "flag must be true or false."),
    ({"flag": 1}, "flag", "flag must be true or false."),
    ({"number": "2"}, "number", "number must be a number."),
    ({"number": True}, "number", "number must be a number."),
    ({"number": 10**400}, "number", "number must be a number."),
    ({"number": 0}, "number", "number must be 1 or more."),
    ({"number": 1e9}, "number", "number must be 86,400 or less."),
    ({"whole": 1.5}, "whole", "whole must be a whole number."),
    ({"whole": 0}, "whole", "whole must be more than 0."),
    ({"waits": 3}, "waits", "waits must be a list."),
    ({"waits": [3, 0]}, "waits[1]", "waits[1] must be 1 or more."),
    ({"waits": [3, None]}, "waits[1]", "waits[1] must be a number."),
    ({"waits": [3, 3, 3]}, "waits", "waits must have at most 2 entries."),
    ({"events": []}, "events", "events must have 1 or more entries."),
    ({"events": "batch.completed"}, "events", "events must be a list."),
    ({"events": ["x"]}, "events[0]", "events[0] is no event type: use batch.completed, "),
    ({"events": [{}]}, "events[0]", "events[0] is no event type: use batch.completed, "),
    ({"events": ["endpoint.disabled"]}, "events[0]", "events[0] happens to no batch, so only"),
    ({"any": ["endpoint.disabled", 1]}, "any[1]", "any[1] must be one of batch.completed, "),
    ({"results": "all"}, "results", "results must be one of link, inline, none."),
    ({"metadata": []}, "metadata", "metadata must be an object."),
    ({"metadata": {"k": 1}}, "metadata", "metadata: the value of 'k' must be a string."),
    ({"metadata": {"k" * 65: ""}}, "metadata", "metadata: the name 'kkk"),
    ({"metadata": {"k": "\0"}}, "metadata", "metadata: the value of 'k' holds a character"),
    (
        {"metadata": {str(i): "" for i in range(17)}},
        "metadata",
        "metadata must have at most 16 entries.",
    ),
    ({"flag": True, "number": 2}, "flag", "flag stands against number."),
    ({"txt": "a"}, "txt", "Unknown field 'txt'. Did you mean 'text'?"),
]


@pytest.mark.parametrize(("value", "param", "message"), WRONG)
def test_what_is_wrong_is_named_in_plain_words(value: Any, param: str | None, message: str) -> None:
    if isinstance(value, dict) and param not in ("text", None):
        value = {"text": "a", **value}
    made, [problem] = judge(Sample, value, {})
    assert made is None
    assert problem.param == param
    assert problem.message.startswith(message), problem.message


def test_all_of_it_comes_at_once_unknown_fields_first() -> None:
    def refuse(url: str) -> None:
        raise AddressRefused(f"{url} is refused.")

    def miss(value: Any) -> None:
        raise InvalidRequest("There is none.", code=Code.UNKNOWN_ACCOUNT)

    body = {"flag": True, "number": 2, "whole": "x", "text": "u", "name": "n", "zebra": 1}
    checks = {
        "text": refuse,
        "name": miss,
        "whole": miss,
        "batch": lambda value: value is None or miss(value),
    }
    with pytest.raises(InvalidBody) as caught:
        read(Sample, body, checks, where="list[3].")
    assert [(one.param, one.code) for one in caught.value.problems] == [
        ("list[3].zebra", "unknown_parameter"),
        ("list[3].whole", "invalid_value"),
        ("list[3].flag", "invalid_value"),
        ("list[3].text", "address_refused"),
        ("list[3].name", "unknown_account"),
    ]


def test_at_most_a_hundred_problems_are_answered() -> None:
    body = {"text": "a", "waits": [], "events": ["x"] * 300}
    with pytest.raises(InvalidBody) as caught:
        read(Sample, body)
    assert len(caught.value.problems) == 100
    assert "299 more" in caught.value.message


def test_what_is_right_is_read_and_what_was_named_is_known() -> None:
    made = read(Sample, {"text": "ä", "number": 2, "results": "inline", "flag": None})
    assert made.named() == {"text": "ä", "number": 2.0, "results": "inline", "flag": None}
