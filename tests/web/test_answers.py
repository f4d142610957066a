"""Answers are declared once, in `batchbell.api`, and made of our own types by names."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import msgspec
import pytest

from batchbell import api
from batchbell.api.answers import Answer, Object, Second, made_of, one_of
from batchbell.web.app import ROUTERS
from batchbell.web.openapi import COMPONENTS

pytestmark = pytest.mark.databases("sqlite")


@dataclass(frozen=True, slots=True)
class Owner:
    id: str
    name: str
    made_at: float


@dataclass(frozen=True)
class Thing:
    id: str
    ended_at: float | None
    size: float
    state: str = "new"
    secret: str = "hush"

    @property
    def label(self) -> str:
        return f"{self.id}!"


class Shown(Object, frozen=True, kw_only=True, tag="shown"):
    id: str
    label: str
    name: str
    made_at: Second
    ended_at: Second | None
    size: float
    state: Annotated[str, one_of(("new", "old"))]
    more: int
    secret: str | None = None


THING, OWNER = Thing("t", None, 1.5), Owner("o", "Ada", 99.9)


def test_what_is_not_given_is_copied_from_the_first_that_has_it() -> None:
    made = made_of(Shown, THING, OWNER, more=3)
    assert msgspec.to_builtins(made) == {
        "object": "shown",
        "id": "t",
        "label": "t!",
        "name": "Ada",
        "made_at": 99,
        "ended_at": None,
        "size": 1.5,
        "state": "new",
        "more": 3,
    }
    assert made_of(Shown, THING, OWNER, more=3, id="x").id == "x"
    assert made_of(Shown, Thing("t", 7.9, 0.0), OWNER, more=3).ended_at == 7


def test_what_may_be_left_out_is_there_only_where_it_is_given() -> None:
    """Else a field of the same name, such as a secret, would be shown by chance."""
    assert made_of(Shown, THING, OWNER, more=3).secret is None
    assert made_of(Shown, THING, OWNER, more=3, secret="shown once").secret == "shown once"


def test_a_field_that_nobody_has_is_an_error_of_ours() -> None:
    with pytest.raises(TypeError, match="Shown needs name, made_at, more"):
        made_of(Shown, THING)


def test_an_old_client_reads_a_new_server() -> None:
    made = msgspec.to_builtins(made_of(Shown, THING, OWNER, more=3))
    new = msgspec.json.encode({**made, "state": "fresh", "added": [1]})
    assert msgspec.json.decode(new, type=Shown).state == "fresh"


def declared(kind: type[Answer] = Answer) -> Iterator[type[Answer]]:
    for one in kind.__subclasses__():
        if one.__module__.startswith("batchbell."):
            yield one
            yield from declared(one)


def test_every_answer_is_declared_in_its_room_and_described() -> None:
    """A type that no route answers would be a second declaration, or a forgotten one."""
    for module in pkgutil.iter_modules(api.__path__):
        importlib.import_module(f"batchbell.api.{module.name}")
    assert ROUTERS
    kinds = {one.__name__ for one in declared()} - {"Object", "Page"}
    assert {one.__module__.rpartition(".")[0] for one in declared()} == {"batchbell.api"}
    assert kinds <= {*COMPONENTS}
