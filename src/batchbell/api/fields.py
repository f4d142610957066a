"""The base of every request, and the kinds of fields that several requests have."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from batchbell.core.attachment import ResultsMode
from batchbell.core.model import ID_PATTERN, MAX_ID_LENGTH, NAME_PATTERN, EventType

ID_MAX = 64
NAME_MAX = 100
URL_MAX = 2048
PAIRS_MAX = 16
PAIR_NAME_MAX = 64
PAIR_VALUE_MAX = 512
LEFT_OUT = ""
"""The default of a field that may be left out but may not be null: ask `Request.named` for it."""
SPELLINGS = ("url", "webhook_url", "webhookUrl")
"""What the URL of a webhook may be called: one of them in one request, whichever it is."""
LAST_SECOND = 253_402_300_799
"""The end of the year 9999."""

ID_SHAPE = (
    "must consist of letters, digits and . _ : @ = + ~ - /, such as batch_abc123 or"
    " batches/abc123; no part of it may be empty or begin with a dot."
)
NAME_SHAPE = "must be a plain token of letters, digits and . _ : @ = + -, such as nightly."
ABOUT_NO_BATCH = "happens to no batch, so only endpoints of the whole project hear of it"
BATCH_EVENTS = tuple(type_ for type_ in EventType if type_.of_batch)

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""PostgreSQL stores no NUL character, and UTF-8 has no lone surrogates."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """What is wrong between fields, or with one in the light of another."""

    field: str
    message: str
    """Begins with a verb: it stands behind the field's name."""
    code: str = "invalid_value"


def respelt(value: Mapping[str, Any], own: str) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The object with its destination called `own`, and all that it is called there."""
    given = tuple(name for name in value if name in SPELLINGS)
    if not given or given == (own,):
        return value, given
    others = {name: one for name, one in value.items() if name not in given}
    return {**others, own: value[given[0]]}, given


def one_target(sound: Mapping[str, Any]) -> Iterator[Conflict]:
    """A webhook goes to a URL or to an endpoint that is there."""
    if sound.get("url") is not None and sound.get("endpoint_id") is not None:
        yield Conflict("endpoint_id", "and url both say where to send. Send one of them.")


class Request(BaseModel):
    """A JSON object that is sent to us. No field is converted from another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)

    @classmethod
    def conflicts(cls, sound: Mapping[str, Any], spoilt: Collection[str]) -> Iterator[Conflict]:
        """What is wrong between fields.

        `sound` has those that nothing else is wrong with, and `spoilt` the names of the others.
        """
        yield from ()

    @classmethod
    @cache
    def destination(cls) -> str | None:
        """The field that is the URL of a webhook, as this request calls it."""
        names = [field.alias or name for name, field in cls.model_fields.items()]
        return next((name for name in names if name in SPELLINGS), None)

    def named(self) -> dict[str, Any]:
        """The fields that the body names, if only as null."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def _storable(text: str) -> str:
    if UNSTORABLE.search(text):
        raise wrong("holds a character that cannot be stored.")
    return text


def wrong(message: str) -> PydanticCustomError:
    """For a validator to raise. `message` begins with a verb: it stands behind the field's name."""
    return PydanticCustomError("invalid_value", "{message}", {"message": message})


def _of_batch(value: Any) -> EventType:
    if value in BATCH_EVENTS:
        return EventType(value)
    problem = ABOUT_NO_BATCH if value in list(EventType) else "is no event type"
    raise wrong(f"{problem}: use {', '.join(BATCH_EVENTS)}.")


class Shaped:
    """For `Annotated`: a string of this pattern. `shape` explains it, and begins with a verb."""

    def __init__(self, pattern: str, shape: str) -> None:
        self._pattern, self._shape = pattern, shape
        self._fullmatch = re.compile(pattern).fullmatch

    def _check(self, text: str) -> str:
        if self._fullmatch(text) is None:
            raise wrong(self._shape)
        return text

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | {"pattern": self._pattern}


Storable = AfterValidator(_storable)
Text = Annotated[str, Field(min_length=1, max_length=NAME_MAX), Storable]
Identity = Annotated[str, Field(min_length=1, max_length=ID_MAX), Storable]
Name = Annotated[
    str,
    Field(min_length=1, max_length=NAME_MAX, examples=["nightly"]),
    Shaped(NAME_PATTERN, NAME_SHAPE),
]
"""The name of an account or a project."""
BatchId = Annotated[
    str,
    Field(min_length=1, max_length=MAX_ID_LENGTH, examples=["batch_abc123"]),
    Shaped(ID_PATTERN, ID_SHAPE),
]
ProjectId = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH), Storable]
EndpointId = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH), Storable]
WebhookUrl = Annotated[
    str,
    Field(
        min_length=1,
        max_length=URL_MAX,
        examples=["https://example.com/hook"],
        description="`url`, `webhook_url` and `webhookUrl` mean the same; send one of them.",
        json_schema_extra={"format": "uri"},
    ),
    Storable,
]
Flag = bool | None
"""Null is false."""
Moment = Annotated[float, Field(ge=0, le=LAST_SECOND)]
"""Seconds since the epoch; a fraction is allowed."""

AnyEvent = Annotated[EventType, Field(strict=False)]
AnyEvents = Annotated[list[AnyEvent], Field(min_length=1, examples=[["batch.completed"]])]
BatchEvent = Annotated[
    EventType,
    PlainValidator(_of_batch, json_schema_input_type=Literal[BATCH_EVENTS]),
]
BatchEvents = Annotated[
    list[BatchEvent],
    Field(min_length=1, examples=[["batch.completed", "batch.failed"]]),
]
Results = Annotated[ResultsMode, Field(strict=False)]
Pairs = Annotated[
    dict[
        Annotated[str, Field(max_length=PAIR_NAME_MAX), Storable],
        Annotated[str, Field(max_length=PAIR_VALUE_MAX), Storable],
    ],
    Field(max_length=PAIRS_MAX, examples=[{"job": "nightly"}]),
]
"""As OpenAI's metadata."""
