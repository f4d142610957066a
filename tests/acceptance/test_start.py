"""The command before it does anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from batchbell import __version__
from tests.acceptance.conftest import Shell

HEAVY = ("aiohttp", "alembic", "asyncpg", "fastapi", "httpx2", "openai", "sqlalchemy", "uvicorn")


async def test_the_version_is_told(shell: Shell) -> None:
    assert (await shell.run_anew("--version")).out == f"batchbell {__version__}\n"


async def test_help_names_every_command(shell: Shell) -> None:
    told = await shell.run_anew("--help")
    assert told.code == 0
    for name in ("serve", "worker", "demo", "watch", "wait", "list", "keys", "doctor"):
        assert f" {name} " in told.out


def test_the_installed_script_is_the_same_command() -> None:
    script = Path(sys.executable).with_name("batchbell")
    told = subprocess.run([script, "--version"], capture_output=True, check=True, text=True)
    assert told.stdout == f"batchbell {__version__}\n"


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    program = "import sys, batchbell.cli.app; print(*sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert "batchbell.cli.app" in told.stdout.split()
    assert set(HEAVY) & set(told.stdout.split()) == set()


async def test_reading_the_secret_makes_no_database(shell: Shell, tmp_path: Path) -> None:
    """From the wrong directory a new file would hold another secret than the server's."""
    elsewhere = tmp_path / "elsewhere.db"
    for words in (("secret",), ("keys", "list")):
        ended = await shell.run(*words, DATABASE_PATH=str(elsewhere))
        assert ended.code == 2
        assert "There is no database at" in ended.err
    assert not elsewhere.exists()
    assert (await shell.run("keys", "create", "--name", "first", DATABASE_PATH=str(elsewhere))).out
    assert elsewhere.exists()
