"""The reference of the Python client has every method, argument, error and type, as they are."""

from __future__ import annotations

import inspect
import re

from tools.client_reference import GROUPS, PAGE, methods, whole

from batchbell import client
from batchbell.client import Batchbell, ClientError


def test_the_generated_part_is_not_stale() -> None:
    """To mend it, run `make format`; a new method needs a place in GROUPS."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == whole(page).rstrip() + "\n"


def test_each_method_stands_in_one_group() -> None:
    grouped = [name for names in GROUPS.values() for name in names.split()]
    assert sorted(grouped) == sorted(methods(Batchbell))


def test_each_argument_is_explained() -> None:
    taken = {
        name
        for method in methods(Batchbell).values()
        for name in inspect.signature(method).parameters
        if name != "self"
    }
    assert rows("Arguments") == sorted(taken)


def test_each_error_is_explained() -> None:
    kinds = {
        name
        for name in client.__all__
        if isinstance(kind := getattr(client, name), type) and issubclass(kind, ClientError)
    }
    assert {*rows("Errors"), "ClientError"} == kinds


def rows(heading: str) -> list[str]:
    """The first column of the table under a heading."""
    found = re.search(
        rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.M | re.S
    )
    assert found, heading
    return re.findall(r"^\| `([^`]+)` \|", found[1], re.M)
