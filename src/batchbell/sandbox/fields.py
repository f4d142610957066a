"""Google's `fields`: which parts of an answer are wanted, as `name,metadata(state,output/file)`."""

from __future__ import annotations

import re
from typing import Any

from batchbell.sandbox.answers import ApiError

TOKEN = re.compile(r"[^,/()\s]+|[,/()]")
Tree = dict[str, Any]
"""What is wanted of each field: an empty tree is all of it."""


def chosen(answer: Any, fields: str | None) -> Any:
    """The parts of an answer that `fields` names; all of it without them. Raises ApiError (400)."""
    if fields is None:
        return answer
    tokens = TOKEN.findall(fields)
    tree, rest = _list(tokens)
    if rest or not tree:
        raise ApiError(400, f"Invalid field selection {fields}")
    return _cut(answer, tree)


def _list(tokens: list[str]) -> tuple[Tree, list[str]]:
    tree: Tree = {}
    while tokens:
        name, tokens = tokens[0], tokens[1:]
        if name in ",/()":
            raise ApiError(400, f"Invalid field selection {name}")
        inner: Tree = {}
        if tokens[:1] == ["/"]:
            path, tokens = _path(tokens[1:])
            inner = path
        elif tokens[:1] == ["("]:
            inner, tokens = _list(tokens[1:])
            if tokens[:1] != [")"]:
                raise ApiError(400, "Invalid field selection: a bracket is not closed")
            tokens = tokens[1:]
        tree[name] = {**tree.get(name, {}), **inner}
        if tokens[:1] != [","]:
            break
        tokens = tokens[1:]
    return tree, tokens


def _path(tokens: list[str]) -> tuple[Tree, list[str]]:
    if not tokens or tokens[0] in ",/()":
        raise ApiError(400, "Invalid field selection: a path does not end")
    name, tokens = tokens[0], tokens[1:]
    if tokens[:1] == ["/"]:
        inner, tokens = _path(tokens[1:])
        return {name: inner}, tokens
    return {name: {}}, tokens


def _cut(value: Any, tree: Tree) -> Any:
    if not tree:
        return value
    if isinstance(value, list):
        return [_cut(one, tree) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {name: _cut(value[name], inner) for name, inner in tree.items() if name in value}
    return {name: one for name, one in kept.items() if one != {} or value[name] == {}}
