"""Nothing outside `providers` knows a provider: not by its name, and not by its dialect."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchbell.providers.profiles import PROFILES

SRC = Path(__file__).parents[2] / "src" / "batchbell"
OURS = ("providers", "sandbox")
"""The rooms that speak as providers do."""
NAMES = sorted(PROFILES)
SHAPE = re.compile(r"OpenAI's (batch )?(SDKs?|shapes?|format|`\w+`)")
"""OpenAI's is the shape of our own API, whatever the provider: texts for people say so."""
ALLOWED = {
    "api/accounts.py": "examples in the API's description",
    "cli/accounts.py": "the help says which provider is the default",
    "cli/app.py": "the help says how to begin",
    "cli/demo.py": "shows the sandbox with the openai SDK",
    "cli/walkthrough.py": "plays the demo with the openai SDK",
    "files/results_store.py": "the results store may be of a cloud that is a provider too",
}


def sources() -> list[Path]:
    found = [p for p in sorted(SRC.rglob("*.py")) if p.relative_to(SRC).parts[0] not in OURS]
    assert len(found) > 100
    return found


def words(tree: ast.Module) -> Iterator[str]:
    """Every name, and every text that is no documentation."""
    documents = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in documents:
            yield str(node.value)
        for field in ("name", "id", "attr", "arg", "asname", "module"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield value


def named_in(word: str) -> bool:
    bare = SHAPE.sub("", word).lower()
    return any(re.search(rf"(?<![a-z]){re.escape(name)}", bare) for name in NAMES)


def test_no_code_names_a_provider_but_where_there_is_a_reason() -> None:
    named = {
        path.relative_to(SRC).as_posix()
        for path in sources()
        if any(map(named_in, words(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert named == set(ALLOWED)


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("openai_api_key", True),
        ("OPENAI_API_KEY", True),
        ("OpenAIStatus", True),
        ("https://api.openai.com/v1", True),
        ("Batches, in OpenAI's shape", False),
        ("Calls of OpenAI's SDKs are not taken", False),
        ("an account of OpenAI", True),
        ("batches", False),
    ],
)
def test_a_name_is_found_however_it_is_written(word: str, named: bool) -> None:
    assert named_in(word) is named
