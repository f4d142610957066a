"""The short ways to a route leave nothing out: by the long way it answers the same, to the byte."""

from __future__ import annotations

import httpx2
import pytest

from batchbell.web import watches

from .conftest import Logged
from .making import HOOK, Served

pytestmark = pytest.mark.databases("sqlite")

AWAITER, WATCHES = "/batch-awaiter", "/v1/watches"
GOOD = f'{{"id": "batch_1", "webhookUrl": "{HOOK}"}}'
WATCH = f'{{"batch_id": "batch_1", "url": "{HOOK}"}}'

REQUESTS: dict[str, tuple[str, str, dict[str, str]]] = {
    "good": (AWAITER, GOOD, {}),
    "a watch": (WATCHES, WATCH, {}),
    "watches": (WATCHES, f"[{WATCH}, {WATCH}]", {}),
    "listed watches": (WATCHES, f'{{"watches": [{WATCH}]}}', {}),
    "several problems": (AWAITER, '{"id": "..", "webhookUrl": "ftp://x", "more": 1}', {}),
    "problems of several": (WATCHES, '[{"batch_id": 1}, {"url": ""}, 3]', {}),
    "other options": (WATCHES, WATCH[:-1] + ', "events": ["batch.failed"]}', {}),
    "no JSON": (AWAITER, "{", {}),
    "too large": (AWAITER, '{"id": "' + "a" * 2**20 + '"}', {}),
    "packed": (WATCHES, WATCH, {"content-encoding": "gzip"}),
    "a query": (AWAITER + "?more=1", GOOD, {}),
    "NUL": (WATCHES + "?more=%00", WATCH, {}),
    "an id": (AWAITER, GOOD, {"x-request-id": "mine"}),
    "another site": (AWAITER, GOOD, {"origin": "https://example.com"}),
    "an encoded path": ("/batch%2Dawaiter", GOOD, {}),
    "a slash more": (AWAITER + "/", GOOD, {}),
}


def _answered(answer: httpx2.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    by_chance = ("date",) if "x-request-id" in answer.request.headers else ("date", "x-request-id")
    headers = [(k, v) for k, v in answer.headers.multi_items() if k not in by_chance]
    return answer.status_code, answer.content, headers


async def test_all_ways_answer_the_same(served: Served, logged: Logged) -> None:
    for body in (f"[{WATCH}]", GOOD):  # so that nothing is new, on any way
        path = WATCHES if body[0] == "[" else AWAITER
        assert (await served.http.post(path, content=body)).status_code == 201
    short, direct = served.app.short, served.app.direct
    assert short.keys() == {AWAITER, WATCHES}
    ways = []
    before = len(logged())
    for served.app.short, served.app.direct in (({}, {}), (short, {}), (short, direct)):
        answers = {}
        async with httpx2.AsyncClient(base_url=served.url) as http:  # on a new connection
            for name, (path, body, headers) in REQUESTS.items():
                answers[name] = _answered(await http.post(path, content=body, headers=headers))
        ways.append(answers)
    assert ways[0] == ways[1] == ways[2]
    lines = [(one["event"], one["route"], one["status"]) for one in logged()[before:]]
    assert lines == lines[: len(REQUESTS)] * 3
    assert {answer[0] for answer in ways[0].values()} == {201, 400, 403, 404, 409, 413, 415}


def test_each_short_way_is_to_a_handler_that_takes_the_request_alone() -> None:
    for handler in watches.SHORT:
        assert list(handler.__annotations__) == ["request", "return"]
