"""What stands in front of the model's name in a request: `nightly/gpt-5-mini`."""

from __future__ import annotations

from typing import Any

import msgspec

from batchbell.files.lines import BYTE_ORDER_MARK, UNREADABLE, Repeated, fields_of


class WrongLine(Exception):
    """A line that cannot be taken: a stable word for programs, and one for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class _Body(msgspec.Struct, gc=False):
    model: Any = None


class _Line(msgspec.Struct, gc=False):
    body: _Body


_line = msgspec.json.Decoder(_Line)
_text = msgspec.json.Decoder(str)


def model_of(line: bytes) -> str | None:
    """The model that a request names; None where it names none, or is no request."""
    try:
        model = _line.decode(line.removeprefix(BYTE_ORDER_MARK)).body.model
    except UNREADABLE:
        return None
    return model if isinstance(model, str) else None


def bare(line: bytes, front: str) -> bytes:
    """The request without the front of its model's name, padded to the length that it had.

    JSON lets spaces stand behind a value, so what is around the line need not know. Raises
    WrongLine for what is no request, and for one whose model has no such front.
    """
    text = line.removeprefix(BYTE_ORDER_MARK).strip()
    begin = line.index(text)
    try:
        fields = fields_of(text)
        body = fields_of(bytes(fields["body"]))
        model = _text.decode(body["model"])
    except Repeated as error:
        message = f"{error.name[:80]} stands there twice: which one counts?"
        raise WrongLine("duplicate_field", message) from error
    except (*UNREADABLE, KeyError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        message = f"This is no request with a model, as the first line is: {why}."
        raise WrongLine("invalid_json_line", message) from error
    if not model.startswith(front):
        message = (
            f"The model is {model[:200]!r}, without the {front!r} of the first line: all requests"
            " of a file are for one account."
        )
        raise WrongLine("mismatched_account", message)
    named = {**body, "model": model.removeprefix(front)}
    made = msgspec.json.encode({**fields, "body": named})
    return line[:begin] + made.ljust(len(text)) + line[begin + len(text) :]
