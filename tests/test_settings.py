"""Settings that are wrong are said so, by their name."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchbell.core.deletion import Deletes
from batchbell.core.errors import SettingsError
from batchbell.settings import Source, describe, load_settings


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
        ("BATCHBELL_TRUSTED_PROXIES", "10.0.0.0/8, proxy.internal", "'proxy.internal'"),
        ("BATCHBELL_TRUSTED_PROXIES", "*", "no address and no network"),
        ("BATCHBELL_URL", "localhost", "must begin with http://"),
        ("HOST", "http://0.0.0.0:3000", "set PORT for the port"),
        ("HOST", "127.0.0.1:8080", "set PORT for the port"),
    ],
)
def test_a_wrong_value_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as error:
        load_settings()
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BATCHBELL_POLL_INTERVAL", "BATCHBELL_POLL_INTERVAL_SECONDS"),
        ("BATCHBELL_WEBHOOK_SECERT", "BATCHBELL_WEBHOOK_SECRET"),
        ("batchbell_allow_htttp", "BATCHBELL_ALLOW_HTTP"),
        ("BATCHBELL_SERVER", "BATCHBELL_URL"),
        ("BATCHBELL_DATABASE_ZEBRA", None),
    ],
)
def test_a_variable_that_is_no_setting_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str | None
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsError, match=name) as error:
        load_settings()
    if meant is not None:
        assert f"Did you mean {meant!r}?" in str(error.value)


def test_what_kubernetes_injects_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """For Services that are named `batchbell`, `batchbell-worker` and `batchbell-metrics`."""
    for name, value in {
        "BATCHBELL_SERVICE_HOST": "10.0.0.1",
        "BATCHBELL_SERVICE_PORT": "80",
        "BATCHBELL_SERVICE_PORT_HTTP": "80",
        "BATCHBELL_PORT": "tcp://10.0.0.1:80",
        "BATCHBELL_PORT_80_TCP": "tcp://10.0.0.1:80",
        "BATCHBELL_PORT_80_TCP_ADDR": "10.0.0.1",
        "BATCHBELL_WORKER_SERVICE_HOST": "10.0.0.2",
        "BATCHBELL_WORKER_PORT": "tcp://10.0.0.2:80",
        "BATCHBELL_WORKER_PORT_80_TCP_PROTO": "tcp",
        "BATCHBELL_METRICS_PORT": "tcp://10.0.0.3:9090",
    }.items():
        monkeypatch.setenv(name, value)
    assert load_settings().metrics_port is None


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHBELL_ZEBRA", "")
    monkeypatch.setenv("BATCHBELL_METRICS_PORT", "")
    assert load_settings().metrics_port is None


def test_an_unknown_name_in_the_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "batchbell.toml"
    file.write_text("poll_intervall_seconds = 5\nhost = '127.0.0.1'\n[server]\nport = 1\n")
    monkeypatch.setenv("BATCHBELL_CONFIG", str(file))
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert "Did you mean 'poll_interval_seconds'?" in str(error.value)
    assert "'server'" in str(error.value)


def test_what_is_in_force_says_where_it_comes_from_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "batchbell.toml"
    file.write_text("retention_days = 7\nport = 4000\n")
    monkeypatch.setenv("BATCHBELL_CONFIG", str(file))
    monkeypatch.setenv("PORT", "5000")
    monkeypatch.setenv("BATCHBELL_WEBHOOK_SECRET", "whsec_hidden")
    monkeypatch.setenv(
        "DATABASE_URL", "postgresql://me:hidden@db/bell?sslmode=require&password=hidden"
    )
    found = {one.row.toml: one for one in describe(load_settings(host="::1"))}
    assert (found["port"].value, found["port"].source) == ("5000", Source.ENVIRONMENT)
    assert (found["retention_days"].value, found["retention_days"].source) == ("7.0", Source.FILE)
    assert (found["host"].value, found["host"].source) == ("::1", Source.COMMAND_LINE)
    assert (found["log_level"].value, found["log_level"].source) == ("info", Source.DEFAULT)
    assert found["webhook_secret"].value == "set"
    assert found["database_url"].value == "postgresql://…db/bell?sslmode=require&…"
    assert not [one for one in found.values() if "hidden" in one.value]
