"""SIGKILL between the ends of batches and their webhooks, at every provider."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx2
import pytest
from tests.faults.conftest import Town
from tests.own_forms import KEY, OWN_FORMS

from batchbell import failpoints
from batchbell.sandbox import Sandbox, SandboxProvider

HOSTS: dict[str, tuple[Callable[[Sandbox], dict[str, str]], Callable[[Sandbox], SandboxProvider]]]
HOSTS = {name: (own.variables, own.played) for name, own in OWN_FORMS.items()} | {
    "groq": (
        lambda sandbox: {"GROQ_API_KEY": KEY, "GROQ_BASE_URL": sandbox.groq_url},
        lambda sandbox: sandbox.groq,
    ),
    "azure": (
        lambda sandbox: {
            "AZURE_OPENAI_API_KEY": KEY,
            "AZURE_OPENAI_ENDPOINT": sandbox.azure_url,
        },
        lambda sandbox: sandbox.azure,
    ),
}
TOTAL, FAILED = 5, 2


@pytest.mark.parametrize("place", [f"{failpoints.BEFORE_STORING}:2"])
async def test_killed_while_every_providers_results_are_merged(town: Town, place: str) -> None:
    """Of some the results are kept, of some they are not, and of some the end was not seen."""
    ids = {}
    for name, (variables, played) in HOSTS.items():
        town.settings |= variables(town.sandbox)
        ids[name] = played(town.sandbox).add_batch(total=TOTAL)
    process = await town.start(failpoint=place)
    for name, id in ids.items():
        watch = {"batch_id": id, "url": town.receiver.url(f"/{name}"), "account": name}
        await town.ask("POST", "/v1/watches", **watch)
    for name, (_, played) in HOSTS.items():
        played(town.sandbox).finish(ids[name], "completed", failed=FAILED)
    await process.killed()
    town.let_leases_run_out()
    await town.start()
    assert set(await town.all_arrived(list(ids.values()))) == set(ids.values())
    assert {len(one) for one in town.webhook_ids().values()} == {1}, "whatever was sent again"
    async with httpx2.AsyncClient(base_url=town.url, timeout=60.0) as client:
        for name, id in ids.items():
            answer = await client.get(f"/v1/batches/{id}/results", params={"account": name})
            assert answer.status_code == 200, (name, answer.text)
            lines = [json.loads(line) for line in answer.content.splitlines()]
            assert len({line["custom_id"] for line in lines}) == len(lines) == TOTAL, name
            good = [line for line in lines if line["response"]["status_code"] == 200]
            assert len(good) == TOTAL - FAILED, name
