"""Submissions over HTTP: every kind of body, everything that is wrong with one, and reading."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from batchbell.core.errors import ResultsUnavailable
from batchbell.core.governor import Learnt
from batchbell.core.limits import Limits
from batchbell.core.model import DEFAULT_PROJECT
from batchbell.core.submission import new_name
from batchbell.files import scratch
from batchbell.files.results_store import Folder, scratch_of
from batchbell.web import submissions

from .making import HOOK, Served

URL = "/v1/responses"


def line(number: int, **changes: Any) -> dict[str, Any]:
    body = {"model": "gpt-5-mini", "input": f"question {number}"}
    return {"custom_id": f"r{number}", "method": "POST", "url": URL, "body": body} | changes


def jsonl(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


async def submit(served: Served, body: bytes, **query: str) -> Any:
    headers = {"content-type": "application/jsonl"}
    return await served.http.post("/v1/submissions", params=query, content=body, headers=headers)


async def shelved(served: Served, part: dict[str, Any]) -> list[dict[str, Any]]:
    """The requests of a part, as they will be handed in."""
    name = new_name(DEFAULT_PROJECT, part["id"])
    whole = b"".join([chunk async for chunk in served.context.results_store.read(name)])
    return [json.loads(text) for text in whole.splitlines()]


async def test_a_model_that_no_database_stores_is_no_bug_of_ours(served: Served) -> None:
    for model in ("\0", "half \ud83d"):
        text = json.dumps({**line(1), "body": {"model": model}}).encode()
        answer = await submit(served, text + b"\n")
        assert answer.status_code in (201, 422), answer.text


async def test_json_lines_become_a_submission(served: Served) -> None:
    wishes = {"retry_missing": "2", "retry_max_tokens": "5000"}
    answer = await submit(served, jsonl(line(1), line(2)), webhook_url=HOOK, **wishes)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["id"].startswith("sub_")
    assert (made["status"], made["model"], made["endpoint"]) == ("validating", "gpt-5-mini", URL)
    assert made["request_counts"] == {"total": 2, "completed": 0, "failed": 0}
    assert (made["retry_missing"], made["retry_max_tokens"]) == (2, 5000)
    [part] = made["parts"]
    assert (part["state"], part["lines"], part["batch_id"]) == ("waiting", 2, None)
    assert await shelved(served, part) == [line(1), line(2)]
    again = await served.http.get(f"/v1/submissions/{made['id']}")
    assert again.json() == made
    [watch] = (await served.http.get("/v1/watches")).json()["data"]
    assert (watch["batch_id"], watch["url"]) == (made["id"], HOOK)


async def test_a_form_becomes_a_submission(served: Served) -> None:
    answer = await served.http.post(
        "/v1/submissions",
        data={"webhook_url": HOOK, "metadata": '{"night": "yes"}', "events": "batch.failed"},
        files={"file": ("in.jsonl", jsonl(line(1)), "application/jsonl")},
    )
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["metadata"] == {"night": "yes"}
    assert await shelved(served, made["parts"][0]) == [line(1)]
    [watch] = (await served.http.get("/v1/watches")).json()["data"]
    assert watch["events"] == ["batch.failed"]


async def test_a_form_without_a_file_is_refused(served: Served) -> None:
    answer = await served.http.post("/v1/submissions", files={"other": ("x", b"{}")})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, "file", "missing_field")


def form(*files: bytes, end: bytes = b"--b--\r\n") -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
    return b"".join(head + file + b"\r\n" for file in files) + end


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("body", "why"),
    [
        (form(jsonl(line(1), line(2)))[:-60], "no end"),
        (form(jsonl(line(1)), end=b""), "no end"),
        (form(jsonl(line(1)), jsonl(line(2))), "two fields"),
        (
            b"".join(
                b'--b\r\nContent-Disposition: form-data; name="x%d"\r\n\r\n1\r\n' % n
                for n in range(50)
            ),
            "more than 32 fields",
        ),
    ],
)
async def test_a_form_that_is_not_whole_or_too_much_is_refused(
    served: Served, body: bytes, why: str
) -> None:
    """A part of a file may be whole lines: nobody would miss the rest until the results come."""
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = await served.http.post("/v1/submissions", content=body, headers=headers)
    assert answer.status_code == 400
    assert why in answer.json()["error"]["message"]
    ended = form(jsonl(line(1)), end=b"--b--")
    answer = await served.http.post("/v1/submissions", content=ended, headers=headers)
    assert answer.status_code == 201, answer.text


async def test_a_boundary_that_is_too_long_is_refused(served: Served) -> None:
    headers = {"content-type": f"multipart/form-data; boundary={'b' * 300}"}
    answer = await served.http.post("/v1/submissions", content=b"", headers=headers)
    assert answer.status_code == 400, answer.text
    assert "Boundary length" in answer.json()["error"]["message"]


async def test_json_becomes_a_submission_and_what_is_missing_is_filled_in(served: Served) -> None:
    requests = [{"body": {"model": "m", "input": n}} for n in range(3)]
    wanted = {"endpoint": URL, "requests": requests, "webhook_url": HOOK}
    answer = await served.http.post("/v1/submissions", json=wanted)
    assert answer.status_code == 201, answer.text
    lines = await shelved(served, answer.json()["parts"][0])
    assert [one["custom_id"] for one in lines] == [f"request-00000{n}" for n in (1, 2, 3)]
    assert {(one["method"], one["url"]) for one in lines} == {("POST", URL)}


async def test_requests_are_split_at_the_limits_of_the_account(served: Served) -> None:
    served.declare(limits=Limits(lines=2))
    made = (await submit(served, jsonl(*map(line, range(5))))).json()
    assert [(part["position"], part["lines"]) for part in made["parts"]] == [(1, 2), (2, 2), (3, 1)]


@pytest.mark.parametrize(
    ("own", "cap", "tokens"),
    [(None, None, None), (10, None, 10), (10, 5, 5), (10, 50, 10), (None, 5, 5)],
)
def test_the_smaller_of_a_set_and_a_learnt_limit_counts(
    own: int | None, cap: int | None, tokens: int | None
) -> None:
    known = Learnt(cap=cap, cap_at=100.0)
    limits = submissions._limits(Limits(tokens=own), known, line_bytes=1, now=101.0)
    assert limits.tokens == tokens


async def test_everything_that_is_wrong_is_told_with_its_line(served: Served) -> None:
    bad = [line(1), line(1), {"custom_id": "x"}, line(4, body={"model": "other"})]
    answer = await submit(served, jsonl(*bad) + b"no json\n")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "invalid_requests")
    assert [(one["line"], one["code"]) for one in error["problems"]] == [
        (2, "duplicate_custom_id"),
        (3, "missing_body"),
        (4, "mismatched_model"),
        (5, "invalid_json_line"),
    ]
    assert "4 problems" in error["message"]


async def test_the_first_hundred_problems_are_listed_and_all_are_counted(served: Served) -> None:
    answer = await submit(served, b"[]\n" * 1234)
    error = answer.json()["error"]
    assert len(error["problems"]) == 100
    assert "1,234 problems" in error["message"]


@pytest.mark.parametrize("body", [b"", b"\n\n"])
async def test_an_empty_file_is_refused(served: Served, body: bytes) -> None:
    answer = await submit(served, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "invalid_requests")


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"webhook_url": "no url"}, "webhook_url"),
        ({"retry_missing": "many"}, "retry_missing"),
        ({"retry_missing": "1.5"}, "retry_missing"),
        ({"retry_missing": "11"}, "retry_missing"),
        ({"retry_max_tokens": "-1"}, "retry_max_tokens"),
        ({"metadata": "{"}, "metadata"),
        ({"events": "batch.done"}, "events[0]"),
        ({"results": "maybe"}, "results"),
        ({"account": "none"}, "account"),
        ({"endpoint": "v1"}, "endpoint"),
        ({"endpoint_id": "we_none"}, "endpoint_id"),
    ],
)
async def test_wrong_options_are_named(served: Served, query: dict[str, str], param: str) -> None:
    answer = await submit(served, jsonl(line(1)), **query)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert not (await served.http.get("/v1/submissions")).json()["data"]


async def test_more_than_may_come_is_refused(served: Served) -> None:
    object.__setattr__(served.context.settings, "submission_max_bytes", 10)
    answer = await submit(served, jsonl(line(1)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert not any(scratch_of(served.context.results_store).iterdir()), "nothing is left behind"
    long = await served.http.post("/v1/submissions", json={"requests": ["x" * 2**23]})
    assert (long.status_code, "application/jsonl" in long.json()["error"]["message"]) == (413, True)


async def test_a_models_name_keeps_its_slash_and_chooses_no_account(served: Served) -> None:
    body = {"model": "openai/gpt-5-mini", "input": "?"}
    made = (await submit(served, jsonl(line(1, body=body)))).json()
    assert (made["account"], made["model"]) == ("openai", "openai/gpt-5-mini")
    [sent] = await shelved(served, made["parts"][0])
    assert sent["body"] == body
    mixed = await submit(served, jsonl(line(1, body=body), line(2)))
    assert mixed.json()["error"]["problems"][0]["code"] == "mismatched_model"


async def test_submissions_are_listed_newest_first(served: Served) -> None:
    made = [(await submit(served, jsonl(line(1)))).json()["id"] for _ in range(3)]
    page = (await served.http.get("/v1/submissions", params={"limit": 2})).json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == ([made[2], made[1]], True)
    rest = await served.http.get("/v1/submissions", params={"after": made[1]})
    assert [one["id"] for one in rest.json()["data"]] == [made[0]]


async def test_a_submission_is_a_batch_too(served: Served) -> None:
    made = (await submit(served, jsonl(line(1)))).json()
    batch = (await served.http.get(f"/v1/batches/{made['id']}")).json()
    assert (batch["object"], batch["status"]) == ("batch", "validating")
    again = (await served.http.post(f"/v1/batches/{made['id']}/cancel")).json()
    assert again["id"] == made["id"]
    found = (await served.http.get(f"/v1/submissions/{made['id']}")).json()
    assert found["cancelled_at"] is not None
    early = await served.http.get(f"/v1/submissions/{made['id']}/results")
    assert (early.status_code, early.json()["error"]["code"]) == (409, "not_ended")


async def test_a_cancelled_submission_says_so(served: Served) -> None:
    made = (await submit(served, jsonl(line(1)))).json()
    answer = await served.http.post(f"/v1/submissions/{made['id']}/cancel")
    assert answer.json()["cancelled_at"] is not None
    missing = await served.http.post("/v1/submissions/sub_none/cancel")
    assert missing.status_code == 404


def files_of(served: Served) -> list[Path]:
    """All that lies on the shelf and in its scratch folder."""
    results_store = served.context.results_store
    assert isinstance(results_store, Folder)
    return [path for path in results_store.root.rglob("*") if not path.is_dir()]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("name", ["requests", "part-0001.jsonl"])
@pytest.mark.parametrize("way", ["lines", "form", "json"])
async def test_a_full_disk_is_said_and_nothing_is_left(
    served: Served, monkeypatch: pytest.MonkeyPatch, name: str, way: str
) -> None:
    """What is written to `/dev/full` fails as on a disk that is full."""
    make = scratch._make

    def full(root: Path) -> Path:
        folder = make(root)
        (folder / name).symlink_to("/dev/full")
        return folder

    monkeypatch.setattr(scratch, "_make", full)
    lines = [line(1), line(2)]
    post = served.http.post
    match way:
        case "lines":
            answer = await submit(served, jsonl(*lines))
        case "form":
            answer = await post("/v1/submissions", files={"file": ("a", jsonl(*lines))})
        case _:
            answer = await post("/v1/submissions", json={"requests": lines})
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "storage_full")
    assert files_of(served) == []
    assert (await served.http.get("/v1/submissions")).json()["data"] == []


async def test_parts_that_were_kept_before_the_disk_was_full_are_deleted(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.declare(limits=Limits(lines=1))
    put, kept = Folder.put, []

    async def full(self: Folder, name: str, file: Path) -> None:
        if kept:
            no_room = OSError(errno.ENOSPC, "No space left on device")
            raise ResultsUnavailable("The folder cannot be used.") from no_room
        kept.append(name)
        await put(self, name, file)

    monkeypatch.setattr(Folder, "put", full)
    answer = await submit(served, jsonl(line(1), line(2)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "storage_full")
    assert len(kept) == 1
    assert files_of(served) == []


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("kind", [None, "application/json", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("number", [1, 2])
async def test_json_lines_of_another_content_type_are_told_how_to_come(
    served: Served, kind: str | None, number: int
) -> None:
    """`curl --data-binary` calls every file a form."""
    content = jsonl(*map(line, range(number)))
    headers = {} if kind is None else {"content-type": kind}
    answer = await served.http.post("/v1/submissions", content=content, headers=headers)
    assert answer.status_code == 400
    assert "content-type: application/jsonl" in answer.json()["error"]["message"]
