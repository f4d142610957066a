"""Session texts: what they say, and what cannot be said by others."""

from __future__ import annotations

import pytest

from batchbell.core import session

NOW = 1_790_000_000.0
TEXT = session.begin("key_1", secret="s", now=NOW)


def test_a_session_names_its_key_and_ends() -> None:
    found = session.read(TEXT)
    assert found is not None
    assert (found.key_id, found.expires) == ("key_1", int(NOW) + session.SESSION_SECONDS)
    assert session.is_genuine(found, secret="s", now=found.expires - 1)
    assert not session.is_genuine(found, secret="s", now=found.expires)
    assert not session.is_genuine(found, secret="another", now=NOW)


@pytest.mark.parametrize("text", ["", "key_1", TEXT + "0", TEXT.replace("key", "kez"), TEXT + "\n"])
def test_what_is_no_session_text_is_none(text: str) -> None:
    assert session.read(text) is None


def test_another_end_or_key_has_another_signature() -> None:
    found = session.read(TEXT)
    assert found is not None
    for forged in (
        session.Session("key_2", found.expires, found.signature),
        session.Session(found.key_id, found.expires + 1, found.signature),
    ):
        assert not session.is_genuine(forged, secret="s", now=NOW)


def test_a_form_is_of_one_session_and_one_project() -> None:
    token = session.form_token(TEXT, "default", secret="s")
    assert session.is_form_token(token, TEXT, "default", secret="s")
    for text, project, secret in (
        (TEXT, "prj_2", "s"),
        ("x", "default", "s"),
        (TEXT, "default", "t"),
    ):
        assert not session.is_form_token(token, text, project, secret=secret)
    assert not session.is_form_token("é", TEXT, "default", secret="s")


def test_a_proof_is_of_one_address_and_no_session() -> None:
    made = session.proof("key_1", "/there?a=1", secret="s", now=0.0)
    found = session.read(made)
    assert found is not None
    assert session.is_proof(found, "/there?a=1", secret="s", now=86_399.0)
    assert not session.is_proof(found, "/there?a=1", secret="s", now=86_400.0)
    assert not session.is_proof(found, "/there?a=2", secret="s", now=0.0)
    assert not session.is_proof(found, "/there?a=1", secret="t", now=0.0)
    assert not session.is_genuine(found, secret="s", now=0.0)
