"""Who may call, and what is never shown."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx2
import pytest
from starlette.requests import Request

from batchbell.core.errors import AccessDenied
from batchbell.core.model import DEFAULT_PROJECT
from batchbell.storage import keys
from batchbell.web import auth
from batchbell.web.auth import check_local

from ..conftest import SECRET, Clock
from .conftest import Logged
from .making import HOOK, Served

pytestmark = pytest.mark.databases("sqlite")

OPEN = ("/", "/healthz", "/readyz", "/docs", "/openapi.json")
GUARDED = ("/v1/watches", "/v1/batches", "/v1/events", "/v1/keys", "/v1/secret", "/metrics")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def make_key(served: Served, **headers: str) -> dict[str, Any]:
    answer = await served.http.post("/v1/keys", json={"name": "ci"}, headers=headers)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def error_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


class TestLocalMode:
    @pytest.mark.parametrize("path", GUARDED)
    async def test_this_machine_needs_no_key(self, served: Served, path: str) -> None:
        assert (await served.http.get(path)).status_code == 200

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1:3000", "[::1]:3000", "LocalHost:1"])
    async def test_its_own_names_are_taken(self, served: Served, host: str) -> None:
        answer = await served.http.get("/v1/batches", headers={"Host": host})
        assert answer.status_code == 200

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:3000",
            "x@localhost",
            "",
        ],
    )
    async def test_a_rebound_name_is_refused(self, served: Served, host: str) -> None:
        """Pitfall 8: no authentication. A page whose name was rebound to us is not local."""
        answer = await served.http.get("/v1/secret", headers={"Host": host})
        assert error_of(answer) == (403, "host_not_allowed")
        assert SECRET not in answer.text

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil"])
    async def test_a_page_of_another_site_is_refused(self, served: Served, origin: str) -> None:
        body = {"id": "b", "webhookUrl": HOOK}
        answer = await served.http.post("/batch-awaiter", json=body, headers={"Origin": origin})
        assert error_of(answer) == (403, "origin_not_allowed")

    async def test_a_page_of_our_own_may_call(self, served: Served) -> None:
        for headers in (
            {"Origin": served.url},
            {"Sec-Fetch-Site": "none"},
            {"Sec-Fetch-Site": "same-origin"},
        ):
            answer = await served.http.get("/v1/batches", headers=headers)
            assert answer.status_code == 200

    async def test_a_link_from_another_site_leads_nowhere_but_to_the_documents(
        self, served: Served
    ) -> None:
        """A navigation has no `Origin`; its answer would run in our own."""
        led = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        for path in GUARDED:
            answer = await served.http.get(path, headers=led)
            assert error_of(answer) == (403, "origin_not_allowed"), path
        for path in OPEN:
            assert (await served.http.get(path, headers=led)).status_code == 200, path

    async def test_who_comes_through_a_proxy_of_this_machine_is_not_of_this_machine(
        self, served: Served
    ) -> None:
        """nginx in front names 127.0.0.1 as `Host` by default."""
        for name in ("X-Forwarded-For", "X-Real-IP"):
            for value, allowed in [
                ("127.0.0.1", True),
                ("203.0.113.9", False),
                ("127.0.0.1, 203.0.113.9", False),
                ("unknown", False),
            ]:
                answer = await served.http.get("/v1/secret", headers={name: value})
                assert (answer.status_code == 200) is allowed, (name, value)
        answer = await served.http.get("/v1/secret", headers={"Forwarded": "for=203.0.113.9"})
        assert error_of(answer) == (403, "remote_not_allowed")

    @pytest.mark.parametrize(
        ("peer", "allowed"),
        [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("10.0.0.7", False)],
    )
    def test_only_this_machine_is_served(self, peer: str, allowed: bool) -> None:
        request = Request(
            {"type": "http", "client": (peer, 1), "headers": [(b"host", b"localhost")]}
        )
        if allowed:
            check_local(request.scope)
        else:
            with pytest.raises(AccessDenied, match="only this machine") as denied:
                check_local(request.scope)
            assert (denied.value.status, denied.value.code) == (403, "remote_not_allowed")


class TestWithAKey:
    async def test_a_key_is_shown_once_and_kept_as_a_hash(self, served: Served) -> None:
        """Pitfall 8: no authentication."""
        made = await make_key(served)
        assert re.fullmatch(r"bb_[0-9a-f]{48}", made["key"])
        [listed] = (await served.http.get("/v1/keys", headers=bearer(made["key"]))).json()["data"]
        assert "key" not in listed
        assert listed["hint"] == f"bb_…{made['key'][-4:]}"
        assert served.key_changes == [None]

    @pytest.mark.parametrize("path", GUARDED)
    async def test_from_then_on_everybody_needs_one(self, served: Served, path: str) -> None:
        made = await make_key(served)
        without = await served.http.get(path)
        assert error_of(without) == (401, "missing_api_key")
        assert without.headers["WWW-Authenticate"] == "Bearer"
        wrong = await served.http.get(path, headers=bearer("bb_" + "0" * 48))
        assert error_of(wrong) == (401, "invalid_api_key")
        right = await served.http.get(path, headers=bearer(made["key"]))
        assert right.status_code == 200

    @pytest.mark.parametrize("path", OPEN)
    async def test_probes_and_docs_need_none(self, served: Served, path: str) -> None:
        await make_key(served)
        assert (await served.http.get(path)).status_code == 200

    async def test_any_host_may_be_named(self, served: Served) -> None:
        made = await make_key(served)
        headers = bearer(made["key"]) | {"Host": "bell.example.com", "Origin": "https://a.example"}
        assert (await served.http.get("/v1/batches", headers=headers)).status_code == 200

    async def test_a_revoked_key_stops_working_at_once(self, served: Served) -> None:
        first, second = await make_key(served), None
        second = await make_key(served, **bearer(first["key"]))
        gone = await served.http.delete(f"/v1/keys/{second['id']}", headers=bearer(first["key"]))
        assert gone.json() == {"id": second["id"], "object": "key.deleted", "deleted": True}
        answer = await served.http.get("/v1/keys", headers=bearer(second["key"]))
        assert error_of(answer) == (401, "invalid_api_key")

    async def test_a_key_revoked_by_another_process_stops_within_a_second(
        self, served: Served, clock: Clock
    ) -> None:
        first = await make_key(served)
        second = await make_key(served, **bearer(first["key"]))
        used = await served.http.get("/v1/keys", headers=bearer(second["key"]))
        assert used.status_code == 200
        store = served.context.store
        await store.write(keys.revoke_key, DEFAULT_PROJECT, second["id"], now=clock())
        clock.advance(0.999)
        answer = await served.http.get("/v1/keys", headers=bearer(second["key"]))
        assert error_of(answer) == (401, "invalid_api_key")

    async def test_without_its_last_key_the_server_lets_nobody_in(self, served: Served) -> None:
        """Not local mode: who could reach a public server by a proxy would have had it all."""
        made = await make_key(served)
        await served.http.delete(f"/v1/keys/{made['id']}", headers=bearer(made["key"]))
        without = await served.http.get("/v1/keys")
        assert error_of(without) == (401, "missing_api_key")
        assert "batchbell keys create" in without.json()["error"]["message"]
        revoked = await served.http.get("/v1/keys", headers=bearer(made["key"]))
        assert error_of(revoked) == (401, "invalid_api_key")
        assert len(served.key_changes) == 2

    async def test_a_key_needs_a_name(self, served: Served) -> None:
        answer = await served.http.post("/v1/keys", json={"name": "a\x00b"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "name")


async def test_no_key_query_or_webhook_url_is_logged(served: Served, logged: Logged) -> None:
    """Pitfall 8: webhook URLs in the log."""
    key = (await make_key(served))["key"]
    served.http.headers.update(bearer(key))
    await served.http.post("/batch-awaiter", json={"id": "b", "webhookUrl": HOOK + "?t=hush"})
    await served.http.post("/batch-awaiter", json={"id": "b", "webhookUrl": "https://hush:1@x/"})
    await served.http.get("/v1/watches?batch_id=hush")
    await served.http.get("/v1/watches/hush")
    await served.http.get("/hush")
    await served.http.get("/v1/secret")
    lines = logged()
    text = json.dumps(lines)
    assert not [word for word in (key, "hush", HOOK, SECRET, "Bearer") if word in text]
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("POST", "/v1/keys", 201),
        ("POST", "/batch-awaiter", 201),
        ("POST", "/batch-awaiter", 400),
        ("GET", "/v1/watches", 200),
        ("GET", "/v1/watches/{watch_id}", 404),
        ("GET", None, 404),
        ("GET", "/v1/secret", 200),
    ]


async def test_the_secret_is_shown_to_whoever_may_call(served: Served) -> None:
    assert (await served.http.get("/v1/secret")).json() == {
        "object": "webhook_secret",
        "secret": SECRET,
    }


class TestWrongKeys:
    async def guess(self, served: Served, number: int) -> httpx2.Response:
        return await served.http.get("/v1/batches", headers=bearer(f"bb_{number:048}"))

    async def test_they_are_slowed_down_and_right_ones_are_not(
        self, served: Served, clock: Clock, logged: Logged
    ) -> None:
        """Also one that was never used before, from the attacker's own address."""
        used, fresh = await make_key(served), None
        fresh = await make_key(served, **bearer(used["key"]))
        for number in range(auth.WRONG_KEYS_MAX):
            assert error_of(await self.guess(served, number)) == (401, "invalid_api_key")
        for number in range(3):
            refused = await self.guess(served, number)
            assert error_of(refused) == (429, "too_many_wrong_keys")
            assert refused.headers["retry-after"] == "60"
        for key in (used, fresh):
            right = await served.http.get("/v1/batches", headers=bearer(key["key"]))
            assert right.status_code == 200
        clock.advance(auth.WRONG_KEYS_SECONDS)
        assert error_of(await self.guess(served, 1)) == (401, "invalid_api_key")
        warned = [line for line in logged() if line["event"] == "auth.wrong_keys"]
        assert [line["address"] for line in warned] == ["127.0.0.1"]

    def test_memory_is_bounded_and_addresses_are_counted_apart(self) -> None:
        wrong = auth.WrongKeys(lambda: 0.0)
        for number in range(auth.ADDRESSES_MAX + 100):
            assert wrong.note(str(number)) is None
        assert len(wrong._seen) == auth.ADDRESSES_MAX

    def test_a_network_of_ipv6_counts_as_one(self) -> None:
        def network(host: str) -> str:
            return auth._network({"client": (host, 1)})

        assert network("2001:db8::1") == network("2001:db8::ffff:2") != network("2001:db8:0:1::1")
        assert network("::ffff:10.0.0.1") == network("10.0.0.1")

    async def test_they_do_not_push_right_keys_out_of_memory(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(auth, "KEYS_KEPT_MAX", 2)
        made = await make_key(served)
        await served.http.get("/v1/batches", headers=bearer(made["key"]))
        for number in range(5):
            await self.guess(served, number)
        assert list(served.app.state.surface.keyring._known) == [keys.hashed(made["key"])]
