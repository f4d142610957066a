"""Write the methods and types of docs/reference/python-client.md. `make format` does so.

What stands above the mark is written by hand, and so is the meaning of each argument.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from batchbell import client
from batchbell.client import AsyncBatchbell, Batchbell

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "python-client.md"
MARK = "<!-- From here on `make format` writes this page. -->\n"
GROUPS = {
    "Watches": "watch watch_many get_watch list_watches update_watch delete_watch",
    "Batches": "batch batches timeline wait expunge",
    "Results": "results result_texts download_results fetch_results",
    "Submissions": "submit submission submissions cancel_submission",
    "Events": "event events stream trigger resend",
    "Deliveries": "delivery deliveries",
    "Endpoints": "create_endpoint endpoint endpoints update_endpoint delete_endpoint"
    " rotate_secret test_endpoint disable_endpoint enable_endpoint",
    "Replays": "replay count_replay get_replay list_replays cancel_replay",
    "Accounts": "accounts account add_account update_account pause_account resume_account"
    " test_account remove_account",
    "Projects, keys and secrets": "create_project projects create_key list_keys revoke_key secret",
    "Server": "ready close",
}
AWAITED_NAMES = {"close": "aclose"}
WORDS_MAX = 9
EPOCH = "Seconds since the epoch."


def methods(of: type) -> dict[str, Callable[..., object]]:
    """The public methods."""
    found = inspect.getmembers(of, inspect.isfunction)
    return {name: method for name, method in found if not name.startswith("_")}


def whole(page: str) -> str:
    """The page with its generated part as it has to be."""
    return page.partition(MARK)[0] + MARK + "\n" + "\n".join(_generated()) + "\n"


def _generated() -> Iterator[str]:
    found = methods(Batchbell)
    for group, names in GROUPS.items():
        yield f"## {group}\n"
        for name in names.split():
            yield from _method(name, found.pop(name))
    if found:
        raise ValueError(f"Methods in no group: {', '.join(found)}.")
    yield "## Types\n"
    yield "Frozen objects with these attributes. Times are seconds since the epoch.\n"
    for name in sorted(client.__all__):
        kind = getattr(client, name)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield from _type(kind)


def _method(name: str, method: Callable[..., object]) -> Iterator[str]:
    awaited = AWAITED_NAMES.get(name, name)
    other = inspect.unwrap(getattr(AsyncBatchbell, awaited))
    yield f"### `{name}`\n"
    yield "```python"
    yield signature(name, method)
    yield "```\n"
    yield f"{inspect.getdoc(method)}\n"
    if inspect.isasyncgenfunction(other) or not inspect.iscoroutinefunction(other):
        yield f"Awaited: `async for item in bell.{awaited}(…)`.\n"
    elif awaited != name:
        yield f"Awaited: `await bell.{awaited}()`.\n"


def signature(name: str, method: Callable[..., object]) -> str:
    """As it is called, without `self`."""
    found = inspect.signature(method)
    given = [one for one in found.parameters.values() if one.name != "self"]
    texts = [_argument(one) for one in given]
    keywords = [at for at, one in enumerate(given) if one.kind is one.KEYWORD_ONLY]
    if keywords:
        texts.insert(keywords[0], "*")
    answer = _plain(str(found.return_annotation))
    line = f"{name}({', '.join(texts)}) -> {answer}"
    if len(line) <= 100:
        return line
    return f"{name}(\n" + "".join(f"    {text},\n" for text in texts) + f") -> {answer}"


def _argument(one: inspect.Parameter) -> str:
    stars = "**" if one.kind is one.VAR_KEYWORD else ""
    default = "" if one.default is one.empty else f" = {one.default!r}"
    return f"{stars}{one.name}: {_plain(str(one.annotation))}{default}".replace("'", '"')


def _plain(annotation: str) -> str:
    return re.sub(r"\b(?:batchbell|collections|typing)(?:\.[a-z_]+)*\.|\bcalls\.", "", annotation)


def _type(kind: type[msgspec.Struct]) -> Iterator[str]:
    yield f"### `{kind.__name__}`\n"
    if kind.__doc__:
        yield f"{inspect.getdoc(kind)}\n"
    yield "| attribute | type | meaning |"
    yield "|---|---|---|"
    types, described = get_type_hints(kind), get_type_hints(kind, include_extras=True)
    for name in kind.__struct_fields__:
        yield f"| `{name}` | `{_shown(types[name])}` | {_meaning(described[name])} |"
    yield ""


def _shown(hint: Any) -> str:
    text = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    text = re.sub(r"Optional\[(.*)\]$", r"\1 | None", _plain(text))
    return text.replace("|", "\\|")


def _meaning(hint: Any) -> str:
    """The words that a field may have, unless they are many, and what is said of it."""
    notes = [one for one in getattr(hint, "__metadata__", ()) if isinstance(one, msgspec.Meta)]
    says = [one.description for one in notes if one.description not in (None, EPOCH)]
    words = [one.extra_json_schema["enum"] for one in notes if one.extra_json_schema]
    listed = [
        ", ".join(f"`{word}`" for word in few) + "." for few in words if len(few) <= WORDS_MAX
    ]
    return " ".join([*listed, *says])


def main() -> None:
    """Write the page."""
    PAGE.write_text(whole(PAGE.read_text(encoding="utf-8")).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
