"""Every dependency says what it earns, and none is praised that is gone."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "dependencies.md"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return {NAME.match(line)[0] for group in groups for line in group}  # type: ignore[index]


def listed() -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def test_each_dependency_has_one_line_that_says_what_it_earns() -> None:
    assert sorted(listed()) == sorted(declared())


@pytest.mark.parametrize("name", sorted(declared()))
def test_each_dependency_is_pinned_for_the_image_and_for_the_tests(name: str) -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().replace("_", "-")
    assert re.search(rf"^{re.escape(name.lower())}==", pins, re.MULTILINE)
