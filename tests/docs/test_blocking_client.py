"""The blocking client is the one that `make format` makes, and nothing of it is awaited."""

from __future__ import annotations

import ast
import inspect

from tools.blocking_client import SOURCE, TARGET, blocking, main

from batchbell.client import AsyncBatchbell, Batchbell


def test_it_is_not_stale() -> None:
    """To mend it, run `make format`."""
    assert TARGET.read_text(encoding="utf-8") == blocking(SOURCE.read_text(encoding="utf-8"))
    assert main(["--check"]) == 0


def test_a_change_of_the_source_changes_it() -> None:
    source = SOURCE.read_text(encoding="utf-8")
    changed = source.replace('"""One batch."""', '"""One batch, changed."""')
    assert changed != source
    assert '"""One batch, changed."""' in blocking(changed)


def test_nothing_of_it_is_awaited() -> None:
    tree = ast.parse(TARGET.read_text(encoding="utf-8"))
    awaited = ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith | ast.Await
    assert [node for node in ast.walk(tree) if isinstance(node, awaited)] == []
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert [name for name in names if "async" in name.lower()] == []


def test_both_have_the_same_methods_with_the_same_arguments() -> None:
    def arguments(client: type) -> dict[str, list[str]]:
        return {
            "close" if name == "aclose" else name: [
                str(one.replace(annotation=inspect.Parameter.empty))
                for one in inspect.signature(method).parameters.values()
            ]
            for name, method in inspect.getmembers(client, inspect.isfunction)
            if not name.startswith("_")
        }

    assert arguments(Batchbell) == arguments(AsyncBatchbell)
