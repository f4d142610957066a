"""Ids that hold slashes, or are long: everywhere that an id may stand."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from batchbell.core.model import Status

from ..core.making import a_snapshot
from .making import Served

pytestmark = pytest.mark.databases("sqlite")

IDS = [
    "batches/abc123",
    "accounts/acme/batchInferenceJobs/b1",
    "projects/1/results/x",
    "b/cancel",
    "b/results",
    "a/expunge",
    "batch_" + "Ab1_" * 126 + "~=",
]


@pytest.mark.parametrize("id", IDS)
async def test_an_id_with_slashes_works_wherever_an_id_may_stand(served: Served, id: str) -> None:
    path = f"/v1/batches/{quote(id, safe='')}"
    awaited = await served.http.post(
        "/batch-awaiter", json={"id": id, "webhookUrl": "https://example.com/a"}
    )
    assert (awaited.status_code, awaited.json()["batchId"]) == (201, id)
    watch = await served.watch(id)
    assert watch["batch_id"] == id
    listed = await served.http.get("/v1/watches", params={"batch_id": id})
    assert {one["id"] for one in listed.json()["data"]} >= {watch["id"]}
    found = await served.http.get(path, params={"fresh": "false"})
    assert found.json()["id"] == id
    assert (await served.http.get(f"{path}/results")).status_code == 409
    assert (await served.http.post(f"{path}/expunge")).status_code == 409
    await served.see(a_snapshot(Status.FAILED, id=id))
    events = await served.http.get("/v1/events", params={"batch_id": id})
    assert [one["data"]["id"] for one in events.json()["data"]] == [id]
    after = await served.http.get("/v1/batches", params={"after": id})
    assert after.status_code == 200


async def test_a_plain_slash_is_part_of_the_id_unless_the_path_ends_in_what_to_do(
    served: Served,
) -> None:
    for id in ("batches/abc123", "b/results/c", "b/cancel"):
        await served.watch(id)
    for path, id in [
        ("batches/abc123", "batches/abc123"),
        ("batches%2fabc123", "batches/abc123"),
        ("b/results/c", "b/results/c"),
        ("b%2Fcancel", "b/cancel"),
    ]:
        found = await served.http.get(f"/v1/batches/{path}", params={"fresh": "false"})
        assert (found.status_code, found.json().get("id")) == (200, id)
    assert (await served.http.get("/v1/batches/batches/abc123/results")).status_code == 409
    assert (await served.http.post("/v1/batches/batches/abc123/expunge")).status_code == 409
    assert (await served.http.get("/v1/batches/b/cancel")).status_code == 405


@pytest.mark.parametrize(
    "path", ["/v1/batches/", "/v1/batches/a//b", "/v1/batches//", "/v1/batches/a/"]
)
async def test_a_path_with_an_empty_segment_is_no_id(served: Served, path: str) -> None:
    assert (await served.http.get(path)).status_code == 404
