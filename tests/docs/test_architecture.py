"""Each file and function that ARCHITECTURE.md names exists, where it says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\[`([^`]+)`\]\((src/batchbell/[^)#]*)\)")
PATH = re.compile(r"`((?:src/batchbell|docs|tests|web|cli|core|storage|workers)/[\w/.-]+)`")
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def names(module: ast.Module) -> set[str]:
    """Functions and classes, and methods as Class.method."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = {node.name for node in module.body if isinstance(node, kinds)}
    for owner in module.body:
        if isinstance(owner, ast.ClassDef):
            found |= {f"{owner.name}.{node.name}" for node in owner.body if isinstance(node, kinds)}
    return found


def is_true(text: str, target: str) -> bool:
    """Whether the linked text is the file's own path, its room, or a name that the file defines."""
    path = ROOT / target
    if not path.exists():
        return False
    if text.endswith(".py"):
        return target == f"src/batchbell/{text}"
    if path.is_dir():
        return text == path.name
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return text == path.stem or text in names(tree)


@pytest.mark.parametrize(("text", "target"), sorted(set(LINK.findall(PAGE))))
def test_each_file_and_function_that_is_named_exists(text: str, target: str) -> None:
    assert is_true(text, target), f"{target} has no {text}"


def test_each_path_in_code_exists() -> None:
    paths = PATH.findall(PAGE)
    gone = [
        path
        for path in paths
        if not any((ROOT / at / path).exists() for at in (".", "src/batchbell"))
    ]
    assert gone == []


def test_every_room_has_a_row() -> None:
    rooms = {
        path.name
        for path in (ROOT / "src" / "batchbell").iterdir()
        if path.is_dir() and (path / "__init__.py").exists()
    }
    table = PAGE.split("## Rooms")[1].split("\n## ")[0]
    assert {text for text, _ in LINK.findall(table)} >= rooms


def test_what_is_gone_is_found() -> None:
    assert is_true("Loop.run", "src/batchbell/workers/loop.py")
    assert not is_true("Loop.walk", "src/batchbell/workers/loop.py")
    assert not is_true("run", "src/batchbell/workers/loop.py")
    assert not is_true("core", "src/batchbell/gone/")
