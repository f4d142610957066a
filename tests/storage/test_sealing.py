"""What is sealed opens under its key and in its column only; the key file is its owner's alone."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core.errors import SecretUnreadable, SettingsError
from batchbell.storage import masterkeys
from batchbell.storage.rekey import SEALED, place_of
from batchbell.storage.sealing import HEAD, KEY_BYTES, Seal, Sealed, head_of, key_id

OLD, NEW = b"o" * KEY_BYTES, b"n" * KEY_BYTES
PLACE = "projects.webhook_secret"
keys = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)


@given(text=st.text(), key=keys)
def test_what_was_sealed_opens_again(text: str, key: bytes) -> None:
    kept = Seal([key]).close(text, column=PLACE)
    assert kept.startswith(head_of(key_id(key)))
    assert Seal([OLD, key]).open(kept, column=PLACE) == text


@given(text=st.text(), data=st.data())
def test_one_changed_bit_is_noticed(text: str, data: st.DataObject) -> None:
    seal = Seal([OLD])
    head, _, packed = seal.close(text, column=PLACE).rpartition(".")
    sealed = bytearray(base64.b64decode(packed))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SecretUnreadable, match=PLACE):
        seal.open(f"{head}.{base64.b64encode(sealed).decode()}", column=PLACE)


@pytest.mark.parametrize("rest", ["", ".", ".!", ".QUJD", ".AAAA"])
def test_a_broken_text_is_no_crash(rest: str) -> None:
    with pytest.raises(SecretUnreadable):
        Seal([OLD]).open(f"{HEAD}{key_id(OLD)}{rest}", column=PLACE)


def test_the_same_text_is_never_sealed_the_same() -> None:
    seal = Seal([OLD])
    assert seal.close("x", column=PLACE) != seal.close("x", column=PLACE)


def test_a_text_that_was_moved_to_another_column_does_not_open() -> None:
    seal = Seal([OLD])
    kept = seal.close("whsec_x", column=PLACE)
    assert seal.open(kept, column=PLACE) == "whsec_x"
    with pytest.raises(SecretUnreadable, match=r"endpoints\.headers"):
        seal.open(kept, column="endpoints.headers")


def test_a_key_that_is_not_here_is_named() -> None:
    kept = Seal([OLD]).close("whsec_x", column=PLACE)
    with pytest.raises(SecretUnreadable, match=f"{key_id(OLD)}.*BATCHBELL_MASTER_KEY"):
        Seal([NEW]).open(kept, column=PLACE)


def test_the_first_key_seals_and_all_open() -> None:
    both = Seal([NEW, OLD])
    assert both.open(Seal([OLD]).close("x", column=PLACE), column=PLACE) == "x"
    assert Seal([NEW]).open(both.close("x", column=PLACE), column=PLACE) == "x"


def test_without_a_key_texts_stay_plain_but_for_one_that_would_be_misread() -> None:
    assert Seal().close("whsec_x", column=PLACE) == "whsec_x"
    assert Seal([OLD]).open("whsec_x", column=PLACE) == "whsec_x"
    with pytest.raises(ValueError, match="would not be read again"):
        Seal().close(f"{HEAD}whatever", column=PLACE)
    seal = Seal([OLD])
    assert seal.open(seal.close(f"{HEAD}x", column=PLACE), column=PLACE) == f"{HEAD}x"


def test_every_column_of_secrets_is_bound_to_its_own_place() -> None:
    places = {place_of(column) for column in SEALED}
    assert places == {
        "projects.webhook_secret",
        "endpoints.secrets",
        "endpoints.headers",
        "accounts.credentials",
        "accounts.hook_secrets",
    }
    for column in SEALED:
        assert isinstance(column.type, Sealed)
        assert column.type.place == place_of(column)


def test_a_setting_may_hold_several_keys() -> None:
    new, old = (base64.b64encode(key).decode() for key in (NEW, OLD))
    assert masterkeys.read_setting(f" {new} ,{old},") == (NEW, OLD)
    assert masterkeys.read_setting(f"{new},{new}") == (NEW,)


@pytest.mark.parametrize("wrong", ["secretsecret", "c2hvcnQ=", "é", " , "])
def test_a_setting_that_is_no_key_is_refused_and_not_shown(wrong: str) -> None:
    with pytest.raises(SettingsError, match="openssl rand -base64 32") as caught:
        masterkeys.read_setting(wrong)
    assert wrong.strip(" ,") == "" or wrong not in str(caught.value)


def test_a_key_file_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "batchbell.db.key"
    made = masterkeys.make_file(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert masterkeys.read_file(file) == made.keys
    for mode in (0o640, 0o604, 0o620):
        file.chmod(mode)
        with pytest.raises(SettingsError, match=f"chmod 600 {file}"):
            masterkeys.read_file(file)


@pytest.mark.parametrize("text", ["", "\n\n", "x", "\udcff"])
def test_a_key_file_without_a_key_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "batchbell.db.key"
    file.write_bytes(text.encode(errors="surrogateescape"))
    file.chmod(0o600)
    with pytest.raises(SettingsError, match=str(file)):
        masterkeys.read_file(file)


def test_no_key_is_shown_by_what_holds_it(tmp_path: Path) -> None:
    assert "oooo" not in repr(masterkeys.MasterKeys((OLD,), tmp_path / "x"))
