"""Lines as no provider should write them, and some may."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

TEXTS = st.text(max_size=12) | st.sampled_from(
    ["", "\0", "a\r\nb", '"', "=1+1", "\ud83d", "é\ud800", "batch_expired", "😀", "\ufeff"]
)
NUMBERS = (
    st.integers()
    | st.sampled_from([200, 400, 2**63, -(2**63) - 1, 10**30, 10**400])
    | st.floats()
    | st.booleans()
)
SOMETHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with some of these fields, each of which may be anything; or anything else."""
    optional = {name: value | SOMETHING for name, value in fields.items()}
    return st.fixed_dictionaries({}, optional=optional) | SOMETHING


PARTS = st.lists(objects(type=st.sampled_from(["output_text", "text", "refusal"]), text=TEXTS))
MESSAGES = objects(type=st.just("message"), content=TEXTS | PARTS)
DETAILS = objects(cached_tokens=NUMBERS, reasoning_tokens=NUMBERS)
USAGE = objects(
    prompt_tokens=NUMBERS,
    input_tokens=NUMBERS,
    completion_tokens=NUMBERS,
    prompt_tokens_details=DETAILS,
    output_tokens_details=DETAILS,
)
BODIES = objects(
    model=TEXTS,
    usage=USAGE,
    choices=st.lists(objects(message=MESSAGES, text=TEXTS, finish_reason=TEXTS), max_size=2),
    output=st.lists(MESSAGES, max_size=2),
    status=TEXTS,
    incomplete_details=objects(reason=TEXTS),
    error=objects(code=TEXTS, message=TEXTS),
)
RESPONSES = objects(status_code=NUMBERS, request_id=TEXTS, body=BODIES)
ERRORS = objects(code=TEXTS, message=TEXTS)


@st.composite
def strange_lines(draw: st.DrawFn) -> bytes:
    """A line that has a `custom_id`, and may have anything else, in any encoding of JSON."""
    line = {
        "custom_id": draw(TEXTS),
        **draw(st.fixed_dictionaries({}, optional={"id": SOMETHING, "response": RESPONSES})),
        "error": draw(ERRORS),
    }
    text = json.dumps(line, ensure_ascii=draw(st.booleans()))
    written = text.encode("utf-8", "surrogatepass")
    return written.replace("é".encode(), b"\xc3") if draw(st.booleans()) else written
