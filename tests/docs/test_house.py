"""The house rules that a program can check."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"
FILE_LINES_MAX = 700
FUNCTION_LINES_MAX = 60
NAMES_THAT_SAY_NOTHING = {
    f"{word}{ending}" for word in ("util", "helper", "common", "manager") for ending in ("", "s")
}
CLOCK_CHANCE_AND_IO = {
    "asyncio",
    "io",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "threading",
    "time",
    "uuid",
}

STRUCTS = ("msgspec.Struct.", "msgspec.field.", "msgspec.structs.")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(under: str = "") -> list[Path]:
    found = sorted((SRC / under).rglob("*.py"))
    assert found, f"no source under {under or 'src'}"
    return found


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


def imports(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that the floors can be read"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_file_is_longer_than_its_room() -> None:
    """But for migrations: each is one step, and is never edited."""
    lines = {
        name(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources()
        if "versions" not in path.parts
    }
    assert {file: n for file, n in lines.items() if n > FILE_LINES_MAX} == {}


def test_no_function_is_too_long_to_be_read_at_once() -> None:
    """Migrations are lists of what the database is told, one after the other: they may be long."""
    too_long = {
        f"{name(path)}:{node.name}": lines
        for path in sources()
        if "versions" not in path.parts
        for node in ast.walk(tree(path))
        if isinstance(node, Function)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    }
    assert too_long == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    named = {
        name(path)
        for path in sources()
        if NAMES_THAT_SAY_NOTHING & {part.removesuffix(".py") for part in path.parts}
    }
    assert named == set()


def test_each_package_says_what_it_is_for() -> None:
    silent = [name(path) for path in sources() if path.name == "__init__.py"]
    silent = [file for file in silent if not ast.get_docstring(tree(SRC / file))]
    assert silent == []


def test_core_knows_the_standard_library_structs_and_itself_only() -> None:
    strangers = {
        f"{name(path)}: {module}"
        for path in sources("batchbell/core")
        for module in imports(tree(path))
        if module.split(".")[0] not in sys.stdlib_module_names
        and not f"{module}.".startswith(("batchbell.core.", *STRUCTS))
    }
    assert strangers == set()


def test_core_has_no_clock_no_chance_and_no_io() -> None:
    impure = {
        f"{name(path)}: {module}"
        for path in sources("batchbell/core")
        for module in imports(tree(path))
        if module.split(".")[0] in CLOCK_CHANCE_AND_IO
    }
    assert impure == set()
