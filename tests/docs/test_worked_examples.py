"""The examples of CONTRIBUTING are a host and a dialect that work."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aiohttp import web

from batchbell.core.errors import ProviderAuthError, ProviderNotFound, ProviderUnavailable
from batchbell.core.model import DEFAULT_PROJECT, Account, Status
from batchbell.net.api import ApiClient
from batchbell.providers import Provider, open_provider
from batchbell.providers.profile import ListStyle, Profile
from batchbell.providers.profiles import PROFILES
from batchbell.providers.registry import DIALECTS

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KEY = "sk-globex-0123456789"


def example(holding: str) -> str:
    """The one block of code that holds these words."""
    (found,) = (code for code in BLOCK.findall(PAGE.read_text(encoding="utf-8")) if holding in code)
    return str(found)


def module(name: str, holding: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A block as the module that it is to be."""
    made = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, made)  # its classes look for themselves there
    exec(compile(example(holding), name, "exec"), made.__dict__)
    return made


def test_a_host_is_facts() -> None:
    names: dict[str, Any] = {"Profile": Profile, "Status": Status, "ListStyle": ListStyle}
    exec(example("ACME = Profile("), names)
    acme: Profile = names["ACME"]
    assert acme.dialect in DIALECTS
    assert acme.statuses["working"] is Status.IN_PROGRESS


async def test_a_dialect_is_an_adapter_a_sandbox_and_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dialect = module("batchbell.providers.globex", "class Globex:", monkeypatch).DIALECT
    fake = module("batchbell.sandbox.globex", "class GlobexProvider", monkeypatch)
    monkeypatch.setitem(DIALECTS, "globex", dialect)  # type: ignore[arg-type]
    profile = Profile(
        name="globex",
        title="Globex",
        dialect="globex",
        base_url="https://api.globex.example",
        key_variables=("GLOBEX_API_KEY",),
        page_size=2,
        submissions=False,
    )
    monkeypatch.setitem(PROFILES, "globex", profile)  # type: ignore[arg-type]
    state = fake.GlobexProvider(api_key=KEY)
    runner = web.AppRunner(fake.globex_app(state), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        await keeps_its_promises(state, base_url, tmp_path)
    finally:
        await runner.cleanup()


async def keeps_its_promises(state: Any, base_url: str, folder: Path) -> None:
    client, provider = opened(base_url, KEY)
    ids = state.add_batches(3, total=4)
    first = await provider.list_page()
    assert [one.id for one in first.batches] == [ids[2], ids[1]]
    last = await provider.list_page(first.next_cursor)
    assert ([one.id for one in last.batches], last.next_cursor) == ([ids[0]], None)
    state.finish(ids[0], "completed")
    done = await provider.retrieve(ids[0])
    assert (done.status, done.answers) == (Status.COMPLETED, (ids[0],))
    await provider.results(ids[0], folder / "answers", most_bytes=10**6)
    lines = [json.loads(line) for line in (folder / "answers").read_bytes().splitlines()]
    assert {line["custom_id"] for line in lines} == {f"request-{n}" for n in range(1, 5)}
    assert (await provider.cancel(ids[1])).id == ids[1]
    state.set_status(ids[2], "Reticulating")
    assert (await provider.retrieve(ids[2])).status is None
    with pytest.raises(ProviderNotFound):
        await provider.retrieve("batch_unknown")
    state.faults.add("html", status=200)
    with pytest.raises(ProviderUnavailable):
        await provider.list_page()
    await client.aclose()
    client, stranger = opened(base_url, "sk-another-0123456789")
    with pytest.raises(ProviderAuthError):
        await stranger.list_page()
    await client.aclose()


def opened(base_url: str, key: str) -> tuple[ApiClient, Provider]:
    account = Account(
        id="acc_1", project_id=DEFAULT_PROJECT, name="g", provider="globex", base_url=base_url
    )
    client = ApiClient(base_url, {"authorization": f"Bearer {key}"})
    return client, open_provider(account, key, connect=lambda *_: client)
