"""Settings that are wrong are said so, by their name."""

from __future__ import annotations

import pytest

from batchbell.core.deletion import Deletes
from batchbell.core.errors import SettingsError
from batchbell.settings import load_settings


def test_providers_keep_their_files_by_default() -> None:
    settings = load_settings()
    assert settings.delete_provider_files is Deletes.NONE
    assert settings.input_expires_after_seconds is None
    assert settings.output_expires_after_seconds is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("BATCHBELL_DELETE_PROVIDER_FILES", "everything", "'none', 'outputs' or 'all'"),
        ("BATCHBELL_INPUT_EXPIRES_AFTER_SECONDS", "3599", "greater than or equal to 3600"),
        ("BATCHBELL_OUTPUT_EXPIRES_AFTER_SECONDS", "2592001", "less than or equal to 2592000"),
        ("BATCHBELL_OUTPUT_EXPIRES_AFTER_SECONDS", "30 days", "integer"),
    ],
)
def test_a_wrong_value_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as error:
        load_settings()
    assert words in str(error.value)
