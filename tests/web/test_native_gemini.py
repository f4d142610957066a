"""Calls of Google's SDK: what is its own, beside what test_native.py says of every provider."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from batchbell.core.model import Mint
from batchbell.net.api import ApiClient
from batchbell.providers.gemini import Gemini
from batchbell.providers.profiles import GEMINI
from batchbell.sandbox import Sandbox, SandboxProvider

from ..conftest import Clock
from .making import HOOK, Served, seeking
from .test_keys import make_key

MODEL = "/gemini/v1beta/models/gemini-3.5-flash"
BATCHES, FILES = "/gemini/v1beta/batches", "/gemini/v1beta/files"
LINE = b'{"key": "a", "request": {"contents": []}}\n'
START = {"X-Goog-Upload-Protocol": "resumable", "X-Goog-Upload-Command": "start"}


@pytest.fixture
def provider(sandbox: Sandbox) -> SandboxProvider:
    return sandbox.gemini


@pytest.fixture(autouse=True)
async def account(served: Served, sandbox: Sandbox) -> None:
    await add(served, "gemini", sandbox)


async def add(served: Served, name: str, sandbox: Sandbox, **headers: str) -> None:
    body = {"name": name, "provider": "gemini", "api_key": "sk-test"}
    body["base_url"] = sandbox.gemini_url
    answer = await served.http.post("/v1/accounts", json=body, headers=headers)
    assert answer.status_code == 201, answer.text


def inline(number: int, **more: Any) -> dict[str, Any]:
    rows = [{"request": {"contents": []}, "metadata": {"key": f"r{n}"}} for n in range(number)]
    return {"batch": {"inputConfig": {"requests": {"requests": rows}}, **more}}


async def create(served: Served, asked: Any, headers: Any = None) -> httpx2.Response:
    return await served.http.post(f"{MODEL}:batchGenerateContent", json=asked, headers=headers)


async def begun(served: Served, **headers: str) -> str:
    """The address that an upload is to be sent to."""
    asked = {"file": {"displayName": "in", "mimeType": "application/jsonl"}}
    answer = await served.http.post(
        "/gemini/upload/v1beta/files", json=asked, headers=START | headers
    )
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-goog-upload-url"])


async def sent(address: str, *pieces: bytes) -> httpx2.Response:
    """As the SDK sends a file: piece by piece, and without a key."""
    offset = 0
    async with httpx2.AsyncClient() as sdk:
        for piece in pieces:
            last = piece is pieces[-1]
            headers = {
                "X-Goog-Upload-Command": "upload, finalize" if last else "upload",
                "X-Goog-Upload-Offset": str(offset),
            }
            answer = await sdk.post(address, content=piece, headers=headers)
            offset += len(piece)
    return answer


async def uploaded(served: Served) -> str:
    answer = await sent(await begun(served), LINE[:9], LINE[9:])
    assert answer.headers["x-goog-upload-status"] == "final", answer.text
    return str(answer.json()["file"]["name"])


async def urls_of(served: Served, id: str) -> list[str]:
    answer = await served.http.get("/v1/watches", params={"batch_id": id})
    return sorted(one["url"] for one in answer.json()["data"])


async def test_every_call_for_batches_and_files_is_passed_on(
    served: Served, sandbox: Sandbox, provider: SandboxProvider
) -> None:
    http, name = served.http, await uploaded(served)
    asked = {"batch": {"displayName": "mine", "inputConfig": {"fileName": name}}}
    made = await create(served, asked, {"bb-webhook-url": HOOK})
    assert made.status_code == 200, made.text
    id = made.json()["name"]
    assert made.json()["metadata"]["displayName"] == "mine"
    assert await urls_of(served, id) == [HOOK]
    listed = await http.get(BATCHES, params={"pageSize": "1"})
    assert [row["name"] for row in listed.json()["operations"]] == [id]
    provider.finish(id, "completed")
    ended = await http.get(f"/gemini/v1/{id}")
    answers = ended.json()["response"]["responsesFile"]
    shown = (await http.get(f"/gemini/v1beta/{answers}")).json()
    assert shown["downloadUri"] == f"{served.url}/gemini/v1beta/{answers}:download?alt=media"
    assert shown["uri"] == f"{sandbox.gemini_url}/v1beta/{answers}", "requests name a file by it"
    for path in (shown["downloadUri"], f"/gemini/download/v1beta/{answers}:download?alt=media"):
        lines = (await http.get(path)).text.splitlines()
        assert [json.loads(line)["key"] for line in lines] == ["a"]
    files = (await http.get(FILES)).json()["files"]
    assert {one["name"] for one in files} == {name, answers}
    assert (await http.delete(f"/gemini/v1beta/{name}")).status_code == 200
    bare = (await create(served, inline(2))).json()["name"]
    assert (await http.post(f"/gemini/v1beta/{bare}:cancel")).json() == {}
    assert (await http.delete(f"/gemini/v1beta/{bare}")).status_code == 200
    assert (await http.get(f"/gemini/v1beta/{bare}")).json()["error"]["status"] == "NOT_FOUND"


async def test_fields_may_be_written_with_underscores(served: Served) -> None:
    config = {"file_name": await uploaded(served)}
    made = await create(served, {"batch": {"display_name": "mine", "input_config": config}})
    assert made.json()["metadata"]["displayName"] == "mine", made.text


async def test_embeddings_are_made_and_watched(served: Served) -> None:
    answer = await served.http.post(
        f"{MODEL}:asyncBatchEmbedContent", json=inline(1), headers={"bb-webhook-url": HOOK}
    )
    assert answer.status_code == 200, answer.text
    assert await urls_of(served, answer.json()["name"]) == [HOOK]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{MODEL}:generateContent"),
        ("GET", "/gemini/v1beta/models"),
        ("GET", "/gemini/batches"),
        ("GET", "/gemini/v2/batches"),
        ("GET", f"{BATCHES}/%2E%2E"),
        ("GET", f"{BATCHES}/a/b"),
        ("POST", f"{BATCHES}/a:stop"),
        ("POST", FILES),
        ("DELETE", BATCHES),
        ("GET", "/gemini/upload/v1beta/files"),
    ],
)
async def test_nothing_else_is_and_the_error_is_googles(
    served: Served, provider: SandboxProvider, method: str, path: str
) -> None:
    before = provider.calls.copy()
    answer = await served.http.request(method, path)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["status"]) == (404, 404, "NOT_FOUND")
    assert "Send other calls to the provider itself" in error["message"]
    assert error["details"][0]["reason"] == "UNKNOWN_URL"
    assert provider.calls == before


async def test_a_key_may_stand_in_the_query_and_goes_no_further(
    served: Served, provider: SandboxProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    key = (await make_key(served))["key"]
    denied = await served.http.get(BATCHES)
    assert (denied.status_code, denied.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
    for more, headers in ((f"&key={key}", {}), ("", {"x-goog-api-key": key})):
        answer = await served.http.get(f"{BATCHES}?pageSize=7{more}", headers=headers)
        assert answer.status_code == 200, answer.text
    assert [path.rpartition("/")[2] for _, path in provider.log] == ["batches?pageSize=7"] * 2
    assert "route=/gemini/{path}" in (logged := capsys.readouterr().out)
    assert key not in logged
    elsewhere = await served.http.get("/v1/batches", params={"key": key})
    assert elsewhere.status_code == 401


async def test_a_file_is_sent_without_a_key_to_the_address_that_we_gave(
    served: Served, sandbox: Sandbox, clock: Clock
) -> None:
    """As Google's SDK does it. The address proves what it is good for: one file of one account."""
    made = await make_key(served)
    key = {"x-goog-api-key": made["key"]}
    await add(served, "gemini-eu", sandbox, **key)
    address = await begun(served, **key, **{"bb-account": "gemini-eu"})
    assert address.startswith(f"{served.url}/gemini/upload/v1beta/files?upload_id=")
    assert made["key"] not in address
    answer = await sent(address, LINE)
    assert answer.status_code == 200, answer.text
    assert answer.headers["bb-account"] == "gemini-eu"
    other = await begun(served, **key)
    wrong = [
        other.partition("&bb-proof=")[0],
        other.replace("upload_id=", "upload_id=x"),
        other.replace("bb-account=gemini", "bb-account=gemini-eu"),
        other.replace("/v1beta/", "/v1/"),
        f"{other}0",
        other.replace("bb-proof=", "bb-proof=x"),
        f"{served.url}{BATCHES}?{other.partition('?')[2]}",
    ]
    for one in wrong:
        assert (await sent(one, LINE)).status_code == 401, one
    assert (await sent(other, LINE)).status_code == 200
    late = await begun(served, **key)
    clock.advance(86_401)
    assert (await sent(late, LINE)).status_code == 401, "a day has gone by"
    late = await begun(served, **key)
    await make_key(served, **key)
    assert (await served.http.delete(f"/v1/keys/{made['id']}", headers=key)).status_code == 200
    assert (await sent(late, LINE)).status_code == 401, "the key was revoked"


@pytest.fixture
async def seeker(served: Served, sandbox: Sandbox, clock: Clock, mint: Mint) -> AsyncIterator[None]:
    client = ApiClient(sandbox.gemini_url, {"x-goog-api-key": "sk-test"})
    way = Gemini(GEMINI, client, "sk-test", clock)
    async with seeking(served, way, clock=clock, mint=mint):
        yield
    await client.aclose()


@pytest.mark.parametrize("name", [None, "mine"])
@pytest.mark.parametrize("by_file", [False, True], ids=["inline", "file"])
async def test_a_batch_whose_answer_was_lost_is_found_and_answered(
    served: Served, provider: SandboxProvider, seeker: None, name: str | None, by_file: bool
) -> None:
    """Others that are just like it but for the name are left alone."""
    asked = inline(2)
    if by_file:
        asked["batch"]["inputConfig"] = {"fileName": await uploaded(served)}
    others = [await create(served, named(asked, one)) for one in (None, "other")]
    provider.faults.add("reset", route="create", carried_out=True)
    found = await create(served, named(asked, name), {"bb-webhook-url": HOOK})
    assert found.status_code == 200, found.text
    assert found.headers["idempotent-replayed"] == "true"
    assert found.json()["name"] not in [one.json()["name"] for one in others]
    shown = found.json()["metadata"]["displayName"]
    assert shown == name or (name is None and shown.startswith("batchbell_call=call_"))
    assert await urls_of(served, found.json()["name"]) == [HOOK]
    assert len(provider.page(limit=9)[0]) == 3


def named(asked: dict[str, Any], name: str | None) -> dict[str, Any]:
    return {"batch": {**asked["batch"], **({"displayName": name} if name else {})}}


async def test_many_requests_in_a_call_go_by_the_disk(
    served: Served, provider: SandboxProvider
) -> None:
    request = {"contents": [{"parts": [{"text": "x" * 2**20}]}]}
    rows = [{"request": request}] * 5
    made = await create(served, {"batch": {"inputConfig": {"requests": {"requests": rows}}}})
    assert made.json()["metadata"]["batchStats"]["requestCount"] == "5", made.text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"batch": 1}', b'{"batch": {}}'])
async def test_what_a_body_says_is_the_providers_to_judge(served: Served, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = await served.http.post(f"{MODEL}:batchGenerateContent", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.headers["bb-account"] == "gemini"
