"""Projects: who may make them, and whose keys and secrets are whose."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from batchbell.client import ApiError, AsyncBatchbell
from batchbell.core import signing

from ..conftest import SECRET
from .making import HOOK, Served
from .test_keys import bearer, error_of


@pytest.fixture
async def operator(served: Served) -> dict[str, str]:
    """The headers of a key of `default`."""
    made = (await served.http.post("/v1/keys", json={"name": "ops"})).json()
    return bearer(made["key"])


async def tenant(served: Served, operator: dict[str, str], name: str) -> dict[str, str]:
    """The headers of a key of a new project."""
    answer = await served.http.post("/v1/projects", json={"name": name}, headers=operator)
    assert answer.status_code == 201, answer.text
    body = {"name": "team", "project_id": name}
    made = (await served.http.post("/v1/keys", json=body, headers=operator)).json()
    assert made["project_id"] == answer.json()["id"]
    return bearer(made["key"])


async def get(served: Served, path: str, headers: dict[str, str]) -> Any:
    answer = await served.http.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_project_is_made_with_a_secret_of_its_own(
    served: Served, operator: dict[str, str]
) -> None:
    blue = await tenant(served, operator, "blue")
    [first, second] = (await get(served, "/v1/projects", operator))["data"]
    assert (first["id"], second["name"]) == ("default", "blue")
    secret = (await get(served, "/v1/secret", blue))["secret"]
    assert signing.check_secret(secret) != SECRET
    for word in ("blue", second["id"]):
        shown = await get(served, f"/v1/secret?project_id={word}", operator)
        assert shown["secret"] == secret
    assert (await get(served, "/v1/secret", operator))["secret"] == SECRET


async def test_a_key_works_in_its_project_only(served: Served, operator: dict[str, str]) -> None:
    blue = await tenant(served, operator, "blue")
    await served.http.post("/v1/watches", json={"batch_id": "b", "url": HOOK}, headers=operator)
    assert (await get(served, "/v1/watches", blue))["data"] == []
    assert len((await get(served, "/v1/watches", operator))["data"]) == 1
    assert [one["name"] for one in (await get(served, "/v1/keys", blue))["data"]] == ["team"]
    listed = await get(served, "/v1/keys?project_id=blue", operator)
    assert [one["name"] for one in listed["data"]] == ["team"]


async def test_the_operator_revokes_a_key_of_another_project(
    served: Served, operator: dict[str, str]
) -> None:
    blue = await tenant(served, operator, "blue")
    [key] = (await get(served, "/v1/keys", blue))["data"]
    path = f"/v1/keys/{key['id']}"
    assert error_of(await served.http.delete(path, headers=operator)) == (404, "not_found")
    gone = await served.http.delete(f"{path}?project_id=blue", headers=operator)
    assert gone.status_code == 200
    assert error_of(await served.http.get("/v1/keys", headers=blue)) == (401, "invalid_api_key")


async def test_names_are_unique_and_plain(served: Served) -> None:
    made = [await served.http.post("/v1/projects", json={"name": "blue"}) for _ in range(2)]
    assert [one.status_code for one in made] == [201, 409]
    assert error_of(made[1]) == (409, "name_taken")
    for name in ("default", "a b", "", None, "x" * 101):
        answer = await served.http.post("/v1/projects", json={"name": name})
        assert answer.status_code == (409 if name == "default" else 400)
    assert len((await served.http.get("/v1/projects")).json()["data"]) == 2


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/projects"), ("POST", "/v1/projects"), ("GET", "/metrics")]
)
async def test_to_other_projects_what_the_operator_has_is_not_there(
    served: Served, operator: dict[str, str], method: str, path: str
) -> None:
    blue = await tenant(served, operator, "blue")

    async def ask(path: str) -> httpx2.Response:
        return await served.http.request(method, path, json={"name": "red"}, headers=blue)

    answer, never = await ask(path), await ask("/v1/never")
    assert error_of(answer) == (404, "unknown_url")
    assert answer.text == never.text.replace("/v1/never", path)


async def test_the_client_makes_projects_and_their_keys(served: Served) -> None:
    async with AsyncBatchbell(served.url) as first:
        ops = await first.create_key("ops")
    async with AsyncBatchbell(served.url, ops.key) as bell:
        made = await bell.create_project("blue")
        assert [one.name for one in await bell.projects()] == ["default", "blue"]
        key = await bell.create_key("team", project="blue")
        assert [one.id for one in await bell.list_keys(project=made.id)] == [key.id]
        secret = await bell.secret(project="blue")
        async with AsyncBatchbell(served.url, key.key) as theirs:
            assert await theirs.secret() == secret
            with pytest.raises(ApiError, match="No project found"):
                await theirs.create_key("mine", project="default")
        await bell.revoke_key(key.id, project="blue")
