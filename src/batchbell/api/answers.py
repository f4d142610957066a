"""The base of every answer, and the kinds of fields that several answers have.

A client passes over fields that it does not know and takes any word, so an old client reads a new
server: words are `str`, and the OpenAPI document lists those of this version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Annotated, Any, TypeVar, get_type_hints

from msgspec import Meta, Struct
from msgspec.structs import fields

from batchbell.core.model import EventType


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A JSON object that we answer. A field with a default is left out where it has that value."""


class Object(Answer, frozen=True, kw_only=True, tag_field="object", tag="object"):
    """An answer that says in `object` what it is: the `tag` of its class."""


def about(text: str) -> Meta:
    """What the document says of a field."""
    return Meta(description=text)


def one_of(words: Iterable[str]) -> Meta:
    """The words that the document lists for a field."""
    return Meta(extra_json_schema={"enum": [str(word) for word in words]})


Second = Annotated[int, about("Seconds since the epoch.")]
EventWord = Annotated[str, one_of(EventType)]
Metadata = dict[str, str]
Usage = Annotated[dict[str, Any], about("What the provider counts, in its own words.")]

Made = TypeVar("Made", bound=Answer)


def made_of(kind: type[Made], *sources: object, **differing: Any) -> Made:
    """The answer of this kind. What is not given is the attribute of that name of a source.

    The first source that has it counts. Where the answer has whole numbers, times lose their
    fractions. A field with a default is there only where it is given.
    """
    make: Callable[..., Made] = _maker(kind, tuple(map(type, sources)), tuple(differing))
    return make(differing, *sources)


def each_of(kind: type[Made], sources: Sequence[object]) -> tuple[Made, ...]:
    """The answers of this kind for sources of one type, as `made_of` makes each."""
    if not sources:
        return ()
    make: Callable[..., Made] = _maker(kind, (type(sources[0]),), ())
    return tuple([make({}, source) for source in sources])


@cache
def _maker(
    kind: type[Answer], sources: tuple[type, ...], given: tuple[str, ...]
) -> Callable[..., Any]:
    """A function as it would be written by hand: a list of batches makes thousands of answers."""
    left = [one.name for one in fields(kind) if one.required and one.name not in given]
    hints = get_type_hints(kind)
    copied = []
    for at, source in enumerate(sources):
        names = [name for name in left if _has(source, name)]
        left = [name for name in left if name not in names]
        copied += [
            f"{name}=whole(_{at}.{name})" if hints[name] in WHOLE else f"{name}=_{at}.{name}"
            for name in names
        ]
    if left:
        raise TypeError(f"{kind.__name__} needs {', '.join(left)}.")
    arguments = ", ".join(["given", *(f"_{at}" for at in range(len(sources)))])
    text = f"lambda {arguments}: kind({', '.join([*copied, '**given'])})"
    made: Callable[..., Any] = eval(text, {"kind": kind, "whole": whole})  # noqa: S307 - of names
    return made


WHOLE = (int, int | None)


def whole(time: float | None) -> int | None:
    """The second that a time is in."""
    return None if time is None else int(time)


def _has(source: type, name: str) -> bool:
    return hasattr(source, name) or name in getattr(source, "__dataclass_fields__", ())
