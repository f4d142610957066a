"""Reading an input file as the provider does: one request a line, or what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

MAX_PROBLEMS = 100
MAX_REQUESTS = 50_000
REQUIRED = ("custom_id", "method", "url", "body")


@dataclass(frozen=True, slots=True)
class Request:
    """One line that is in order."""

    custom_id: str
    prompt: str
    """The last thing that the user said; empty where there is nothing of the kind."""
    model: str = ""
    """Where it may differ from the others' of its batch."""


@dataclass(frozen=True, slots=True)
class Input:
    """A file's requests, or its problems in the shape of `errors.data[]`."""

    requests: tuple[Request, ...] = ()
    model: str | None = None
    problems: tuple[dict[str, Any], ...] = ()


def problem(
    code: str, message: str, *, param: str | None = None, line: int | None = None
) -> dict[str, Any]:
    """One row of a batch's `errors.data`; `line` counts from 1."""
    return {"code": code, "line": line, "message": message, "param": param}


def read_input(content: bytes, endpoint: str) -> Input:
    """Check a whole file for a batch of `endpoint`; every line's first problem is said."""
    reader = _Reader(endpoint)
    lines = [(n, line) for n, line in enumerate(content.split(b"\n"), start=1) if line.strip()]
    if not lines:
        text = "The input file is empty: a batch needs at least one request."
        return Input(problems=(problem("empty_file", text),))
    if len(lines) > MAX_REQUESTS:
        text = f"The input file has {len(lines)} requests; at most {MAX_REQUESTS} are allowed."
        return Input(problems=(problem("too_many_tasks", text),))
    for number, line in lines:
        reader.read(number, line)
    if reader.problems:
        return Input(problems=tuple(reader.problems[:MAX_PROBLEMS]))
    return Input(requests=tuple(reader.requests), model=reader.model)


class _Reader:
    """What has been seen so far: a line is judged by the lines before it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.requests: list[Request] = []
        self.problems: list[dict[str, Any]] = []
        self.model: str | None = None
        self._seen: set[str] = set()
        self._decode = msgspec.json.Decoder().decode

    def read(self, number: int, line: bytes) -> None:
        try:
            row = self._decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            row = None
        if not isinstance(row, dict):
            text = "This line is not parseable as valid JSON."
            self.problems.append(problem("invalid_json_line", text, line=number))
            return
        found = next(self._faults(row), None)
        if found is not None:
            self.problems.append({**found, "line": number})
            return
        self.requests.append(Request(row["custom_id"], _prompt(row["body"])))

    def _faults(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for name in REQUIRED:
            if row.get(name) in (None, ""):
                yield problem(
                    "missing_required_parameter",
                    f"Missing required parameter: '{name}'.",
                    param=name,
                )
        if not isinstance(row["body"], dict) or not isinstance(row["custom_id"], str):
            yield problem("invalid_request", "A field of this line has the wrong type.")
        if row["method"] != "POST":
            yield problem("invalid_method", "Only POST is supported.", param="method")
        if row["url"] != self.endpoint:
            text = "The URL of this request does not match the endpoint of the batch."
            yield problem("invalid_url", text, param="url")
        yield from self._duplicate(row["custom_id"])
        yield from self._mismatch(row["body"].get("model"))

    def _duplicate(self, custom_id: str) -> Iterator[dict[str, Any]]:
        if custom_id in self._seen:
            text = f"The custom_id '{custom_id}' is used by an earlier line; it must be unique."
            yield problem("duplicate_custom_id", text, param="custom_id")
        self._seen.add(custom_id)

    def _mismatch(self, model: object) -> Iterator[dict[str, Any]]:
        if not isinstance(model, str) or not model:
            text = "Missing required parameter: 'body.model'."
            yield problem("missing_required_parameter", text, param="body.model")
        elif self.model is None:
            self.model = model
        elif model != self.model:
            text = f"The model '{model}' differs from the batch's '{self.model}': one per batch."
            yield problem("mismatched_model", text, param="body.model")


def _prompt(body: Mapping[str, Any]) -> str:
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    said = last.get("content") if isinstance(last, dict) else body.get("input")
    return said if isinstance(said, str) else ""
