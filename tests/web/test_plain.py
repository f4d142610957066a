"""What a body without anything special is read by agrees with what reads every body."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core.errors import InvalidRequest
from batchbell.core.model import Account, AccountState, Dialect
from batchbell.net.guard import AddressRules
from batchbell.storage.watches import Registration
from batchbell.web import watches
from batchbell.web.bodies import _decode
from batchbell.web.watches import PLAIN_AWAITER, PLAIN_WATCH, PLAIN_WATCHES, WatchForm

from .making import HOOK

RULES = AddressRules(allow_http=True, allow_loopback=True)


def _account(name: str, provider: str) -> Account:
    return Account(
        id=f"acc_{name}",
        project_id="default",
        name=name,
        provider=provider,
        base_url="https://api.example",
        state=AccountState.ACTIVE,
        due_at=0.0,
    )


OPENAI, ANTHROPIC = _account("openai", "openai"), _account("anthropic", "anthropic")
TWO = {one.name: one for one in (OPENAI, ANTHROPIC)}
AWAITER = {"id": "batch_1", "webhookUrl": HOOK}
WATCH = {"batch_id": "batch_1", "url": HOOK}


def _long(form: WatchForm, decoder: object, body: bytes) -> list[Registration] | None:
    """By the way that takes every body; None where it refuses it."""
    try:
        value = _decode(body)
        if decoder is PLAIN_AWAITER:
            return [form.awaiter(value)]
        return form.watches(value, name="") if isinstance(value, list) else [form.watch(value)]
    except InvalidRequest:
        return None


def _short(form: WatchForm, decoder: Any, body: bytes) -> list[Registration] | None:
    awaits = decoder is PLAIN_AWAITER
    return form.plain(decoder, body, dialect=Dialect.AWAITER if awaits else Dialect.WATCH)


NAMES = st.sampled_from(["id", "webhookUrl", "batch_id", "url", "webhook_url", "account", "events"])
IDS = ("batch_1", "msgbatch_1", "..", "a/b", "batch_1\n", "batch_1\x00", "é", "", '"', "x" * 600)
SITE = "https://example.com/"
URLS = (HOOK, SITE, "ftp://example.com", "http://10.0.0.1/", f"{SITE}\x00", f"{SITE}ä")
TEXTS = st.sampled_from([*IDS, *URLS, SITE + "x" * 2048, "\ud800", "\u2028"])
VALUES = TEXTS | st.none() | st.integers() | st.lists(TEXTS, max_size=2)
PAIRS = st.lists(st.tuples(NAMES, VALUES), max_size=4)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Objects with names that may come twice, and lists of them."""
    escapes = draw(st.booleans())
    made = []
    for plain in draw(st.lists(st.sampled_from([AWAITER, WATCH, {}]), max_size=3)):
        pairs = draw(PAIRS.filter(bool)) if draw(st.booleans()) else []
        texts = [
            f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=escapes)}"
            for name, value in [*plain.items(), *pairs]
        ]
        made.append("{" + draw(st.sampled_from([", ", ","])).join(texts) + "}")
    text = f"[{', '.join(made)}]" if len(made) != 1 or draw(st.booleans()) else made[0]
    return text.encode("utf-8", "surrogatepass")


@given(body=bodies() | st.binary(max_size=40), decoder=st.sampled_from(range(3)), two=st.booleans())
def test_what_is_read_as_plain_is_read_so_by_the_long_way_too(
    body: bytes, decoder: int, two: bool
) -> None:
    form = WatchForm(RULES, TWO if two else {"openai": OPENAI})
    by = (PLAIN_AWAITER, PLAIN_WATCH, PLAIN_WATCHES)[decoder]
    plain = _short(form, by, body)
    if plain is not None:
        assert plain == _long(form, by, body)


@pytest.mark.parametrize("body", [AWAITER, WATCH, [WATCH], [WATCH, WATCH | {"batch_id": "b"}]])
def test_plain_bodies_are_read_as_plain(body: Mapping[str, str] | list[Any]) -> None:
    form = WatchForm(RULES, {"openai": OPENAI})
    decoder: Any = PLAIN_AWAITER if body is AWAITER else PLAIN_WATCH
    decoder = PLAIN_WATCHES if isinstance(body, list) else decoder
    sent = msgspec.json.encode(body)
    plain = _short(form, decoder, sent)
    assert plain is not None
    assert plain == _long(form, decoder, sent)


NOT_PLAIN = {
    "a name twice": b'{"batch_id": "b", "url": "%s", "url": "%s"}' % (HOOK.encode(), HOOK.encode()),
    "an option": msgspec.json.encode(WATCH | {"metadata": {}}),
    "an escape": json.dumps(WATCH).replace("/", "\\/").encode(),
    "another spelling": msgspec.json.encode({"batch_id": "b", "webhookUrl": HOOK}),
    "a bad id": msgspec.json.encode(WATCH | {"batch_id": ".."}),
    "a bad URL": msgspec.json.encode(WATCH | {"url": "http://10.0.0.1/"}),
    "no text": msgspec.json.encode(WATCH | {"batch_id": 1}),
    "a list that is long": msgspec.json.encode([WATCH] * 1001),
    "an empty list": b"[]",
    "much": msgspec.json.encode(WATCH)[:-1] + b" " * watches.PLAIN_MAX_BYTES + b"}",
    "no JSON": b"{",
    "nothing": b"",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("body", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_all_else_is_left_to_the_long_way(body: bytes) -> None:
    form = WatchForm(RULES, {"openai": OPENAI})
    assert form.plain(PLAIN_WATCH, body) is None
    assert form.plain(PLAIN_WATCHES, body) is None


def test_a_batch_that_several_accounts_may_have_is_left_to_the_long_way() -> None:
    accounts = {name: _account(name, "anthropic") for name in ("claude", "claude-eu")}
    body = msgspec.json.encode(WATCH | {"batch_id": "msgbatch_01HkcTjaV5uDC8jWR4ZsDV8d"})
    assert WatchForm(RULES, accounts).plain(PLAIN_WATCH, body) is None
