"""What a provider's answer may not do to whoever reads it through the gateway, nor to others."""

from __future__ import annotations

import errno
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from aiohttp import web
from sqlalchemy import func, select

from batchbell import threads
from batchbell.core.errors import StoreFull
from batchbell.providers.registry import DIALECTS
from batchbell.storage import creations, uploads
from batchbell.storage.schema import files
from batchbell.web.gateway import proxy

from ..providers.canned import BATCH, Canned, batch_json
from ..providers.canned import served as serving
from .making import Served
from .test_keys import bearer, error_of

pytestmark = pytest.mark.databases("sqlite")

KEY = "sk-se/cret+0123456789"
QUOTES = [KEY, r"sk-se\/cret+0123456789", "sk-se%2Fcret%2B0123456789", "sk-se/cret%2B0123456789"]
"""A key as it is, in JSON, and in a URL."""
UPLOAD = {"purpose": (None, "batch"), "file": ("a.jsonl", b"{}\n")}
CALLS = [
    ("GET", "/v1/files"),
    ("GET", "/v1/files/file-1"),
    ("GET", "/v1/files/file-1/content"),
    ("DELETE", "/v1/files/file-1"),
    ("GET", "/v1/batches/batch_1"),
    ("POST", "/v1/batches/batch_1/cancel"),
    ("POST", "/v1/batches"),
    ("POST", "/v1/files"),
]
"""Every route that is passed on."""


@pytest.fixture
def database_url(ready_sqlite_url: str) -> str:
    """What is passed on does not touch the database."""
    return ready_sqlite_url


@pytest.fixture
async def canned() -> AsyncIterator[Canned]:
    async with serving(Canned(headers={"Content-Type": "application/json"})) as canned:
        yield canned


@pytest.fixture
def provider_url(canned: Canned) -> str:
    return canned.base_url


async def call(served: Served, method: str, path: str) -> httpx2.Response:
    how: dict[str, Any] = {}
    if (method, path) == ("POST", "/v1/files"):
        how["files"] = UPLOAD
    elif (method, path) == ("POST", "/v1/batches"):
        how["json"] = {"endpoint": "/v1/x"}
    return await served.http.request(method, path, **how)


@pytest.mark.parametrize(
    ("method", "path"), [call for call in CALLS if not call[1].endswith("/cancel")]
)
async def test_a_provider_that_takes_no_calls_of_the_sdks_gets_none(
    served: Served, canned: Canned, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    monkeypatch.setitem(DIALECTS, "openai", replace(DIALECTS["openai"], gateway=None))  # type: ignore[arg-type]
    answer = await call(served, method, path)
    assert error_of(answer) == (400, "no_gateway")
    assert "POST /v1/submissions" in answer.json()["error"]["message"]
    assert canned.asked == []


FOREIGN = {
    "Refresh": "0; url=https://evil.example",
    "Link": "<https://evil.example/a.css>; rel=stylesheet",
    "Set-Cookie": "session=1",
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Credentials": "true",
    "Clear-Site-Data": '"*"',
    "Location": "https://evil.example",
    "Content-Security-Policy": "script-src *",
    "X-Content-Type-Options": "none",
    "Cache-Control": "public, max-age=86400",
    "X-Accel-Redirect": "/etc/passwd",
}


@pytest.mark.parametrize("status", [200, 404, 502])
async def test_a_page_of_a_providers_is_no_page_of_ours(
    served: Served, canned: Canned, status: int
) -> None:
    """Whatever it calls itself, but JSON, is saved by a browser and run by none."""
    canned.body, canned.status = b"<script>steal()</script>", status
    for kind in ("text/html", "image/svg+xml", "application/xhtml+xml", "text/plain"):
        canned.headers = {**FOREIGN, "Content-Type": kind, "Content-Disposition": "inline"}
        for method, path in CALLS:
            answer = await call(served, method, path)
            said = {name: answer.headers.get_list(name) for name in answer.headers}
            where = (method, path, kind)
            assert said["x-content-type-options"] == ["nosniff"], where
            assert "sandbox" in said["content-security-policy"][0], where
            assert len(said["content-security-policy"]) == 1, where
            assert said["content-disposition"] == ["attachment"], where
            assert said["cache-control"] == ["no-store"], where
            foreign = {name.lower() for name in FOREIGN} - {
                "content-security-policy",
                "x-content-type-options",
                "cache-control",
            }
            assert not foreign & set(said), where


@pytest.mark.parametrize("path", [path for method, path in CALLS if method == "GET"])
async def test_a_page_of_another_site_leads_to_nothing_of_a_provider(
    served: Served, canned: Canned, path: str
) -> None:
    for site in ("cross-site", "Cross-Site", "cross-site, none", "same-origin, cross-site"):
        answer = await served.http.get(path, headers={"Sec-Fetch-Site": site})
        assert error_of(answer) == (403, "origin_not_allowed"), site
    assert canned.asked == []


@pytest.mark.parametrize("status", [200, 401, 500])
async def test_a_key_that_is_quoted_is_masked_wherever_it_stands(
    served: Served, canned: Canned, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """A file's own content is let be: only its owner could have written the key into it."""
    served.declare(key=KEY)
    canned.status = status
    packings: Mapping[str, Callable[[bytes], bytes]] = {
        "": bytes,
        "gzip": gzip.compress,
        "deflate": zlib.compress,
    }
    for packing, pack in packings.items():
        canned.body = pack(json.dumps({"error": " ".join(QUOTES)}).encode() + QUOTES[1].encode())
        for kind in ("application/json", "application/octet-stream", ""):
            canned.headers = {"x-request-id": f"of {KEY}", "openai-version": QUOTES[2]}
            canned.headers |= {"Content-Type": kind} if kind else {}
            canned.headers |= {"Content-Encoding": packing} if packing else {}
            for method, path in CALLS:
                answer = await call(served, method, path)
                text = str(answer.headers)
                if status >= 400 or not path.endswith("/content"):
                    text += answer.text
                    assert "[key]" in answer.text
                assert not [quote for quote in QUOTES if quote in text], (packing, kind, path)


async def test_a_key_that_is_a_placeholder_spoils_no_answer(
    served: Served, canned: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers of one's own are called with `EMPTY`, `x` or a space."""
    canned.body = b'{"object": "list", "data": [], "note": "EMPTY x"}'
    for key in ("EMPTY", "x", " "):
        served.declare(key=key)
        assert (await served.http.get("/v1/files")).content == canned.body


async def test_what_cannot_be_read_is_not_passed_on(served: Served, canned: Canned) -> None:
    """An answer that is packed in a way that nobody asked for may hold the key."""
    for packing, body in (("br", b"?"), ("gzip", b"?"), ("gzip", gzip.compress(b"{}")[:-9])):
        canned.headers, canned.body = {"Content-Encoding": packing}, body
        for status in (200, 401):
            canned.status = status
            answer = await served.http.get("/v1/files/file-1")
            assert error_of(answer) == (502, "provider_unavailable")
    canned.body = gzip.compress(bytes(17 * 2**20))
    assert error_of(await served.http.get("/v1/files")) == (502, "provider_unavailable")


async def test_only_gzip_is_asked_for_and_only_for_files(served: Served, canned: Canned) -> None:
    asked = []
    for wanted in ("gzip, br, zstd", "br", "gzip;q=0", "identity"):
        for path in ("/v1/files/file-1/content", "/v1/files"):
            await served.http.get(path, headers={"Accept-Encoding": wanted})
            asked.append(canned.asked[-1].headers.getall("accept-encoding"))
    plain = ["identity"]
    assert asked == [["gzip"], plain, plain, plain, plain, plain, plain, plain]


SIGNED = "signature=s3cret"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_the_callers(served: Served, canned: Canned, status: int) -> None:
    """Nor is the address that it names, which may be signed."""
    async with serving(Canned(body=b"content")) as storage:
        canned.status = status
        canned.headers = {"Location": f"{storage.base_url}/x?{SIGNED}", "Refresh": SIGNED}
        canned.body = SIGNED.encode()
        for method, path in CALLS:
            answer = await call(served, method, path)
            assert SIGNED not in answer.text + str(answer.headers)
            assert "location" not in answer.headers
            if path.endswith("/content"):
                assert answer.content == b"content"
                assert "authorization" not in storage.asked[-1].headers
            else:
                assert error_of(answer) == (502, "provider_unavailable")
        assert len(storage.asked) == 1

        storage.status, storage.body = 403, f"<StringToSign>{SIGNED}</StringToSign>".encode()
        refused = await served.http.get("/v1/files/file-1/content")
        assert error_of(refused) == (502, "provider_unavailable")
        assert SIGNED not in refused.text


async def test_a_long_answer_is_read_beside_the_loop_when_it_is_its_projects_turn(
    served: Served, canned: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[tuple[str, str]] = []
    heavy = threads.heavy

    async def noting(owner: str, work: Any, body: bytes) -> Any:
        turns.append((owner, work.__name__))
        return await heavy(owner, work, body)

    monkeypatch.setattr(proxy, "heavy", noting)
    zeros = b"[" + b"0," * 10**6 + b"0]"
    canned.body = b'{"data":' + zeros + b"}"
    for method, path in CALLS:
        answer = await call(served, method, path)
        assert answer.content.startswith(b'{"data":[0,0') or answer.status_code == 502
    assert {owner for owner, _ in turns} == {"default"}
    assert {name for _, name in turns} == {"plain", "snapshot"}

    canned.body = batch_json(extra="?", metadata={"a": "b"}).replace(b'"?"', zeros)
    turns.clear()
    made = await call(served, "POST", "/v1/batches")
    assert made.content.startswith(canned.body[:-1]), "to the letter"
    assert made.json()["batchbell"]["account"] == "openai"
    assert ("default", "snapshot") in turns
    assert (await served.http.get("/v1/batches/batch_1?fresh=false")).json()["metadata"] == {
        "a": "b"
    }


async def test_a_batch_in_odd_letters_is_shown_and_not_an_error_of_ours(
    served: Served, canned: Canned
) -> None:
    """An error would have OpenAI's SDK make it again."""
    for number, odd in enumerate((b'"\\ud800"', b'"\xff"', b"NaN", b'{"batchbell": 1}')):
        canned.body = batch_json(id=f"batch_{number}", odd="?").replace(b'"?"', odd)
        made = await call(served, "POST", "/v1/batches")
        assert made.status_code == 200
        assert b'"batchbell":{' in made.content
        known = await served.http.get(f"/v1/batches/batch_{number}?fresh=false")
        assert known.json()["status"] == BATCH["status"]


class TestFullDisk:
    """Nothing of a file is spooled here: only what is noted needs room."""

    async def test_nothing_is_made_where_it_could_not_be_noted(
        self, served: Served, canned: Canned, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(creations, "intend", full)
        body = {"input_file_id": "file-1", "endpoint": "/v1/x", "completion_window": "24h"}
        answer = await served.http.post("/v1/batches", json=body)
        assert error_of(answer) == (507, "storage_full")
        assert canned.asked == []

    async def test_no_file_is_uploaded_where_it_could_not_be_noted(
        self, served: Served, canned: Canned, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uploads, "expect", full)
        answer = await served.http.post("/v1/files", files=UPLOAD, headers={"bb-account": "openai"})
        assert error_of(answer) == (507, "storage_full")
        assert "make room" in answer.json()["error"]["message"]
        assert canned.asked == []

    async def test_nothing_is_written_where_there_is_nothing_to_note(
        self, served: Served, canned: Canned, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uploads, "expect", full)
        canned.body = b'{"id": "file-9"}'
        assert (await served.http.post("/v1/files", files=UPLOAD)).json() == {"id": "file-9"}


async def test_an_upload_that_fails_leaves_no_note(served: Served, canned: Canned) -> None:
    count = select(func.count()).select_from(files)
    for status, noted in ((400, 0), (200, 1)):
        canned.status, canned.body = status, b'{"id": "file-9"}'
        await served.http.post("/v1/files", files=UPLOAD, headers={"bb-account": "openai"})
        assert await served.context.store.read(lambda c: c.execute(count).scalar()) == noted


def full(*_: object, **__: object) -> None:
    raise StoreFull("The disk is full.") from OSError(errno.ENOSPC, "No space left on device")


async def test_with_keys_a_provider_is_out_of_reach_without_one(
    served: Served, canned: Canned
) -> None:
    key = (await served.http.post("/v1/keys", json={"name": "ops"})).json()["key"]
    for method, path in CALLS:
        assert error_of(await call(served, method, path))[0] == 401
    assert canned.asked == []
    canned.body = b"{}"
    await served.http.get("/v1/files", headers=bearer(key) | {"Cookie": "a=b"})
    sent = canned.asked[-1].headers
    assert sent["authorization"] == "Bearer sk-test"
    assert "cookie" not in sent
