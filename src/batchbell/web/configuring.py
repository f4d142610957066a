"""From a body to an endpoint: what may be wished for, field by field."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from batchbell.core import signing
from batchbell.core.endpoint import GRACE_MAX_SECONDS, TIMEOUT_SECONDS, header_problem
from batchbell.core.errors import InvalidRequest
from batchbell.core.model import Account, EventType
from batchbell.core.rate import RATE_PER_SECOND
from batchbell.storage.managed import Wishes
from batchbell.web.bodies import Fields
from batchbell.web.context import Context
from batchbell.web.endpoint_describing import MASK
from batchbell.web.endpoint_shapes import (
    ACCOUNTS_MAX,
    DESCRIPTION_MAX,
    HEADER_VALUE_MAX,
    HEADERS_MAX,
    NAME_MAX,
    WAIT_SECONDS,
    WAITS_MAX,
    EndpointChanges,
    EndpointRequest,
    RotateRequest,
)
from batchbell.web.faults import Code
from batchbell.web.registering import event_types, metadata_pairs, results_mode, webhook_url

DAY_SECONDS = 86_400.0
SECRET_MAX = 200


class EndpointForm:
    """Reads what a body asks of an endpoint, under the rules and accounts of this moment."""

    def __init__(self, context: Context, accounts: Mapping[str, Account]) -> None:
        rules = context.rules()
        self._readers: Mapping[str, Callable[[Fields], Any]] = {
            "url": lambda fields: webhook_url(fields, "url", rules),
            "name": lambda fields: fields.text("name", most=NAME_MAX),
            "event_types": lambda fields: event_types(fields, "event_types", list(EventType)),
            "description": lambda fields: fields.optional_text("description", most=DESCRIPTION_MAX),
            "accounts": lambda fields: _accounts(fields, accounts),
            "metadata": lambda fields: metadata_pairs(fields) or None,
            "headers": _headers,
            "timeout_seconds": _timeout,
            "schedule": _schedule,
            "rate_limit": _rate_limit,
            "ordered": lambda fields: fields.flag("ordered"),
            "results": results_mode,
        }

    def create(self, body: Any) -> tuple[Wishes, str]:
        """What is wished for, and the secret: a new one unless one is given."""
        fields = Fields(body, EndpointRequest)
        values = {name: read(fields) for name, read in self._readers.items()}
        secret = signing_secret(fields)
        fields.raise_problems()
        return Wishes(**values), secret

    def changes(self, body: Any) -> dict[str, Any]:
        """Those of the Wishes that the body names."""
        fields = Fields(body, EndpointChanges)
        values = {name: read(fields) for name, read in self._readers.items() if fields.has(name)}
        fields.raise_problems()
        return values


def rotation(body: Any) -> tuple[str, float]:
    """The next secret, and for how many seconds those before it go on signing."""
    fields = Fields(body, RotateRequest)
    day = fields.flag("keep_old_secret_active_for_24_hours")
    seconds = fields.optional_number(
        "keep_old_secret_active_seconds", least=0.0, most=GRACE_MAX_SECONDS
    )
    secret = signing_secret(fields)
    fields.raise_problems()
    if seconds is None:
        seconds = DAY_SECONDS if day else 0.0
    return secret, seconds


def tested_type(body: Any, shape: type[Struct], name: str) -> EventType:
    """What a test event tells of, from the field `name`; `batch.completed` by default."""
    fields = Fields(body, shape)
    value = fields.get(name)
    known = list(EventType)
    if value is not None and value not in known:
        fields.wrong(name, f"{name} is no event type: use {', '.join(known)}.")
    fields.raise_problems()
    return EventType.COMPLETED if value is None else EventType(value)


def signing_secret(fields: Fields) -> str:
    """The secret that is to be imported, or a new one."""
    given = fields.optional_text("signing_secret", most=SECRET_MAX)
    if given is None:
        return signing.make_secret(secrets.token_bytes(signing.SECRET_BYTES))
    try:
        signing.check_secret(given)
    except InvalidRequest as error:
        fields.wrong("signing_secret", error.message)
    return given


def _accounts(fields: Fields, known: Mapping[str, Any]) -> tuple[str, ...] | None:
    value = fields.get("accounts")
    if value is None:
        return None
    if not isinstance(value, list) or not 1 <= len(value) <= ACCOUNTS_MAX:
        fields.wrong("accounts", f"accounts must be a list of 1 to {ACCOUNTS_MAX} names.")
        return None
    for i, name in enumerate(value):
        if not isinstance(name, str) or name not in known:
            there = ", ".join(known) or "none"
            message = f"There is no such account; there are: {there}."
            fields.wrong(f"accounts[{i}]", message, Code.UNKNOWN_ACCOUNT)
            return None
    return tuple(dict.fromkeys(value))


def _headers(fields: Fields) -> dict[str, str] | None:
    value = fields.get("headers")
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) > HEADERS_MAX:
        fields.wrong("headers", f"headers must be an object of up to {HEADERS_MAX} headers.")
        return None
    for name, text in value.items():
        if problem := _header_problem(name, text):
            fields.wrong("headers", f"headers: {problem}")
    if len({name.lower() for name in value}) < len(value):
        fields.wrong("headers", "headers: a name is there twice; case makes no difference.")
    return value or None


def _header_problem(name: str, text: Any) -> str | None:
    if not isinstance(text, str) or len(text) > HEADER_VALUE_MAX:
        return f"a value is a string of up to {HEADER_VALUE_MAX} characters."
    if text == MASK:
        return f"{MASK} stands in answers for the value of {name!r}: send the value itself."
    return header_problem(name, text)


def _timeout(fields: Fields) -> float | None:
    least, most = TIMEOUT_SECONDS
    return fields.optional_number("timeout_seconds", least=least, most=most)


def _rate_limit(fields: Fields) -> float | None:
    least, most = RATE_PER_SECOND
    return fields.optional_number("rate_limit", least=least, most=most)


def _schedule(fields: Fields) -> tuple[float, ...] | None:
    value = fields.get("schedule")
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > WAITS_MAX:
        fields.wrong("schedule", f"schedule must be a list of up to {WAITS_MAX} waits.")
        return None
    least, most = WAIT_SECONDS
    for i, wait in enumerate(value):
        if not _is_number(wait) or not least <= wait <= most:
            name = f"schedule[{i}]"
            fields.wrong(name, f"{name} must be a number of seconds from {least:g} to {most:g}.")
            return None
    return tuple(float(wait) for wait in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
