"""Every failpoint is killed at, on each database that reaches it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults.rounds import PLACES

from batchbell import failpoints

HERE = Path(__file__).parent
KILLED_AT = re.compile(r"::test_killed_\w+\[(?:(sqlite|postgresql)-)?(\w+\.\w+)(?::\d+)?\]")
"""A test that kills has the place for a parameter, so that its name tells of it."""
OF_ONE_FILE = ("sqlite", (failpoints.BEFORE_KEY_FILE, failpoints.AFTER_KEY_FILE))
"""PostgreSQL has no key file."""
DUTIES_OF_A_ROUND = ("dispatch", "sweep", "replay", "disable", "flush", "collect")


def names() -> set[str]:
    return {
        value for name, value in vars(failpoints).items() if name.isupper() and name != "VARIABLE"
    }


def killed_at() -> set[tuple[str, str]]:
    """Each place with the database at which some test kills there."""
    command = [sys.executable, "-m", "pytest", "--collect-only", str(HERE)]
    collected = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return {(found[1] or "sqlite", found[2]) for found in KILLED_AT.finditer(collected.stdout)}


@pytest.mark.long
def test_every_failpoint_is_killed_at_on_both_databases() -> None:
    found = killed_at()
    database, places = OF_ONE_FILE
    wanted = {
        (name, place)
        for place in names()
        for name in ("sqlite", "postgresql")
        if place not in places or name == database
    }
    assert wanted - found == set()
    assert {place for _, place in found} - names() == set(), "no such failpoint"


def test_the_soak_kills_at_every_failpoint_of_its_duties() -> None:
    wanted = {name for name in names() if name.split(".")[0] in DUTIES_OF_A_ROUND}
    assert wanted == set(PLACES)
