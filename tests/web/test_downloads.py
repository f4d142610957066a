"""Results as tables over HTTP: made once, kept beside the lines, and gone with them."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from pyarrow import parquet

from batchbell.client import ApiError, AsyncBatchbell, Batchbell
from batchbell.core import links
from batchbell.core.errors import ResultsGone
from batchbell.core.model import DEFAULT_PROJECT
from batchbell.core.results import Results, ResultsState
from batchbell.files import tables
from batchbell.files.lines import Fate
from batchbell.storage import retention
from batchbell.web import downloads
from batchbell.web import results as routes
from tests.failing_work import die, find_disk_full

from .making import Served
from .test_results import LINES, merged, raw, wanted

pytestmark = pytest.mark.databases("sqlite")

PATH = "/v1/batches/batch_1/results"
ALL = [f"r{n}" for n in range(2000)]


def ids_of(format: str, content: bytes) -> list[str]:
    if format == "parquet":
        found: list[str] = parquet.read_table(io.BytesIO(content))["custom_id"].to_pylist()
        return found
    rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
    return [row["custom_id"] for row in rows]


def on_shelf(served: Served) -> list[str]:
    root: Path = served.context.results_store.root  # type: ignore[attr-defined]
    return sorted(path.name for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("format", "media_type"),
    [("parquet", "application/vnd.apache.parquet"), ("csv", "text/csv; charset=utf-8")],
)
async def test_results_are_a_table_for_those_who_ask(
    served: Served, tmp_path: Path, format: str, media_type: str
) -> None:
    found = await merged(served, tmp_path)
    answer = await raw(served, f"{PATH}?format={format}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert answer.headers["content-length"] == str(len(answer.content))
    assert f'filename="{found.id}.{format}"' in answer.headers["content-disposition"]
    assert ids_of(format, answer.content) == ALL
    assert (await raw(served, f"{PATH}?format=jsonl")).content == LINES


@pytest.mark.parametrize("format", ["parquet", "csv"])
async def test_a_table_is_served_as_lines_are(served: Served, tmp_path: Path, format: str) -> None:
    await merged(served, tmp_path)
    path = f"{PATH}?format={format}"
    head = await served.http.head(path)
    whole = await raw(served, path)
    size, etag = len(whole.content), whole.headers["etag"]
    assert (head.headers["content-length"], head.headers["etag"]) == (str(size), etag)
    rest = await raw(served, path, range="bytes=100-", **{"if-range": etag})
    assert (rest.status_code, rest.content) == (206, whole.content[100:])
    assert (await raw(served, path, **{"if-none-match": etag})).status_code == 304
    assert (await raw(served, path, range=f"bytes={size}-")).status_code == 416
    lines = (await raw(served, PATH)).headers["etag"]
    other = await raw(served, path, range="bytes=100-", **{"if-range": lines})
    assert other.content == whole.content, "a table does not go on where lines were broken off"


async def test_csv_is_compressed_and_parquet_is_already(served: Served, tmp_path: Path) -> None:
    await merged(served, tmp_path)
    for format, encoding in (("csv", "gzip"), ("parquet", None)):
        async with served.http.stream(
            "GET", f"{PATH}?format={format}", headers={"accept-encoding": "gzip"}
        ) as answer:
            content = b"".join([chunk async for chunk in answer.aiter_raw()])
        assert answer.headers.get("content-encoding") == encoding
        assert ids_of(format, gzip.decompress(content) if encoding else content) == ALL


async def test_a_table_may_have_the_lines_of_one_fate(served: Served, tmp_path: Path) -> None:
    await merged(served, tmp_path)
    failed = await raw(served, f"{PATH}?format=parquet&status=failed")
    assert ids_of("parquet", failed.content) == ALL[::2]
    whole = await raw(served, f"{PATH}?format=parquet")
    assert failed.headers["etag"] != whole.headers["etag"]
    none = await raw(served, f"{PATH}?format=csv&status=not_run")
    assert (none.status_code, ids_of("csv", none.content)) == (200, [])


async def test_a_link_leads_to_tables_too(served: Served, tmp_path: Path) -> None:
    found = await merged(served, tmp_path)
    url = links.link(served.url, found.id, secret=found.secret, now=served.context.clock())
    answer = await raw(served, f"{url}&format=csv&status=failed")
    assert ids_of("csv", answer.content) == ALL[::2]
    head = await served.http.head(f"{url}&format=csv&status=failed")
    assert head.headers["content-length"] == str(len(answer.content))
    forged = await raw(served, f"{url}0&format=csv")
    assert forged.status_code == 404


async def test_another_format_is_refused(served: Served, tmp_path: Path) -> None:
    await merged(served, tmp_path)
    answer = await raw(served, f"{PATH}?format=xlsx")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "format"


async def test_a_server_without_the_library_says_what_to_install(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await merged(served, tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    answer = await raw(served, f"{PATH}?format=parquet")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (
        400,
        "tables_not_installed",
        "format",
    )
    assert "pip install 'batchbell[tables]'" in error["message"]
    assert (await raw(served, PATH)).content == LINES


async def test_however_many_ask_at_once_a_table_is_made_once(
    served: Served, tmp_path: Path
) -> None:
    found = await merged(served, tmp_path)
    with structlog.testing.capture_logs() as logged:
        answers = await asyncio.gather(*(raw(served, f"{PATH}?format=parquet") for _ in range(8)))
        answers.append(await raw(served, f"{PATH}?format=parquet"))
    assert len({answer.content for answer in answers}) == 1
    assert [line["event"] for line in logged].count("table made") == 1
    assert on_shelf(served) == [f"{found.id}.jsonl", f"{found.id}.parquet"]


async def test_who_does_not_wait_for_a_table_finds_it_later(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await merged(served, tmp_path)
    tables = served.app.state.surface.tables
    with monkeypatch.context() as patch:
        patch.setattr(routes, "WAIT_SECONDS", 0.0)
        answer = await raw(served, f"{PATH}?format=csv")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "results_not_ready")
        assert int(answer.headers["retry-after"]) > 0
        making = list(tables._under_way.values())
        await raw(served, f"{PATH}?format=csv")
        assert list(tables._under_way.values()) in (making, []), "no second one was begun"
    await asyncio.gather(*making)
    assert ids_of("csv", (await raw(served, f"{PATH}?format=csv")).content) == ALL


async def test_a_table_of_results_that_are_gone_is_not_kept(served: Served, tmp_path: Path) -> None:
    """Whoever deletes the lines of what was expunged may have looked before the table was there."""
    found = await merged(served, tmp_path)
    context = served.context
    watch = (await raw(served, "/v1/watches")).json()["data"][0]["id"]
    await served.http.delete(f"/v1/watches/{watch}")
    await context.store.write(retention.expunge, DEFAULT_PROJECT, "batch_1", now=context.clock())
    answer = await raw(served, f"{PATH}?format=parquet")
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "results_expunged")
    assert on_shelf(served) == [f"{found.id}.jsonl"]


@pytest.mark.parametrize(
    ("fault", "status", "code", "words"),
    [
        (find_disk_full, 507, "storage_full", "is full"),
        (die, 503, "work_interrupted", "died of signal 9"),
    ],
)
async def test_a_table_that_cannot_be_made_is_tried_again(
    served: Served,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[..., None],
    status: int,
    code: str,
    words: str,
) -> None:
    await merged(served, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(tables, "tabulate", fault)
        answer = await raw(served, f"{PATH}?format=parquet")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert words in answer.json()["error"]["message"]
    assert ids_of("parquet", (await raw(served, f"{PATH}?format=parquet")).content) == ALL


async def test_results_that_are_not_merged_yet_are_no_table_yet(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: Results = await wanted(served)
    monkeypatch.setattr(routes, "WAIT_SECONDS", 0.0)
    answer = await raw(served, f"{PATH}?format=parquet")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "results_not_ready")
    with pytest.raises(ResultsGone):
        await served.context.results_store.size(found.name)


async def test_the_client_downloads_tables(served: Served, tmp_path: Path) -> None:
    await merged(served, tmp_path)
    with Batchbell(served.url) as client:
        named = await asyncio.to_thread(client.download_results, "batch_1", tmp_path / "a.parquet")
        said = await asyncio.to_thread(
            lambda: client.download_results(
                "batch_1", tmp_path / "b.table", format="csv", status="failed"
            )
        )
        with pytest.raises(ApiError, match="format"):
            await asyncio.to_thread(
                lambda: client.download_results("batch_1", tmp_path / "c", format="xlsx")
            )
    assert ids_of("parquet", named.read_bytes()) == ALL
    assert ids_of("csv", said.read_bytes()) == ALL[::2]
    async with AsyncBatchbell(served.url) as bell:
        again = await bell.download_results("batch_1", tmp_path / "d.CSV")
        lines = await bell.download_results("batch_1", tmp_path / "e.csv", format="jsonl")
    assert ids_of("csv", again.read_bytes()) == ALL
    assert lines.read_bytes() == LINES


async def test_lines_of_one_fate_can_be_downloaded(served: Served, tmp_path: Path) -> None:
    await merged(served, tmp_path)
    target = tmp_path / "failed.jsonl"
    (tmp_path / "failed.jsonl.part").write_bytes(b"other")
    async with AsyncBatchbell(served.url) as bell:
        await bell.download_results("batch_1", target, status="failed")
    lines = target.read_text("utf-8").splitlines()
    assert [json.loads(line)["custom_id"] for line in lines] == ALL[::2]
    assert not (tmp_path / "failed.jsonl.part.etag").exists()


async def test_lines_are_chosen_beside_the_loop(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await merged(served, tmp_path)
    threads: set[str] = set()
    is_of = downloads._is

    def seen(line: bytes, fate: Fate) -> bool:
        threads.add(threading.current_thread().name)
        return is_of(line, fate)

    monkeypatch.setattr(downloads, "_is", seen)
    assert (await raw(served, f"{PATH}?status=failed")).status_code == 200
    assert threads
    assert all(name.startswith("batchbell-stored") for name in threads)


async def test_many_tables_of_one_project_leave_room_for_anothers(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    other = asyncio.Event()
    tables_of = downloads.Tables(served.context)

    async def never(found: Results, *_: Any) -> None:
        begun.append(found.id)
        if found.id == "res_other":
            other.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(tables_of, "_make", never)
    for number in range(5):
        await ask(tables_of, f"res_{number}", "one")
    await ask(tables_of, "res_other", "another")
    await other.wait()
    assert len(begun) == 3, "two of the one project, and the other's"
    for making in tables_of._under_way.values():
        making.cancel()


async def ask(tables_of: downloads.Tables, id: str, project_id: str) -> None:
    found = Results(
        id=id,
        project_id=project_id,
        batch_key=1,
        state=ResultsState.READY,
        secret="s",
        tries=0,
        reason=None,
        tally=None,
        created_at=0.0,
        ended_at=0.0,
    )
    assert await tables_of.size(found, tables.Format.CSV, None, within_seconds=0.0) is None
