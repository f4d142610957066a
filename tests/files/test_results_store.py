"""What every shelf promises: a folder, and a bucket behind a real S3 server."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
from pathlib import Path

import anyio
import pytest

from batchbell.core.errors import ResultsGone, SettingsError
from batchbell.files.results_store import MARKER, Folder, ResultsStore, open_results_store
from batchbell.threads import STORED_AT_ONCE

CONTENT = os.urandom(700_000)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "merged"
    path.write_bytes(CONTENT)
    return path


async def read(
    results_store: ResultsStore, name: str, start: int = 0, end: int | None = None
) -> bytes:
    return b"".join([chunk async for chunk in results_store.read(name, start=start, end=end)])


async def test_what_is_put_can_be_read_whole_and_in_part(
    results_store: ResultsStore, file: Path
) -> None:
    await results_store.put("a/b.jsonl", file)
    assert await results_store.size("a/b.jsonl") == len(CONTENT)
    assert await read(results_store, "a/b.jsonl") == CONTENT
    assert await read(results_store, "a/b.jsonl", 10, 300_010) == CONTENT[10:300_010]
    assert await read(results_store, "a/b.jsonl", 600_000) == CONTENT[600_000:]


async def test_to_put_again_replaces(
    results_store: ResultsStore, file: Path, tmp_path: Path
) -> None:
    await results_store.put("a", file)
    other = tmp_path / "other"
    other.write_bytes(b"new")
    await results_store.put("a", other)
    assert await read(results_store, "a") == b"new"


async def test_what_is_not_there_is_gone(results_store: ResultsStore, file: Path) -> None:
    for asked in (results_store.size("never"), read(results_store, "never")):
        with pytest.raises(ResultsGone):
            await asked
    await results_store.put("once", file)
    await results_store.delete("once")
    await results_store.delete("once")
    with pytest.raises(ResultsGone):
        await results_store.size("once")


async def test_a_folder_shows_nothing_that_is_not_whole(file: Path, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "results")
    await folder.put("project/a.jsonl", file)
    assert [path.name for path in (tmp_path / "results" / "project").iterdir()] == ["a.jsonl"]


async def test_two_who_put_the_same_at_once_do_not_harm_each_other(
    results_store: ResultsStore, tmp_path: Path
) -> None:
    contents = [bytes([n]) * 300_000 for n in range(8)]
    files = [tmp_path / f"file-{n}" for n in range(8)]
    for path, content in zip(files, contents, strict=True):
        path.write_bytes(content)
    await asyncio.gather(*(results_store.put("same", path) for path in files))
    assert await read(results_store, "same") in contents


async def test_a_marker_stays_until_it_is_lost(results_store: ResultsStore, tmp_path: Path) -> None:
    await results_store.delete(MARKER)
    found = set(await asyncio.gather(*(results_store.mark(f"plc_{n}") for n in range(4))))
    assert len(found) == 1, "of all who mark it at once, the first wins"
    assert {await results_store.mark("plc_late")} == found
    empty = tmp_path / "empty"
    empty.touch()
    await results_store.put(MARKER, empty)
    assert await results_store.mark("plc_new") == await results_store.mark("plc_other") == "plc_new"


async def test_a_folder_without_hard_links_is_marked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    folder = Folder(tmp_path / "results")
    assert await folder.mark("plc_1") == await folder.mark("plc_2") == "plc_1"
    assert [path.name for path in folder.root.iterdir()] == [MARKER]


async def test_what_comes_from_another_disk_is_copied(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second disk is not there in every place where tests run, so it is said that there is."""
    replace, folder = Path.replace, Folder(tmp_path / "results")

    def only_within_the_folder(path: Path, target: Path) -> Path:
        if folder.root not in path.parents:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", only_within_the_folder)
    await folder.put("a.jsonl", file)
    assert await read(folder, "a.jsonl") == CONTENT
    assert [path.name for path in folder.root.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize("url", ["ftp://host/x", "file://elsewhere/x", ""])
def test_an_address_that_cannot_be_used_is_explained(url: str) -> None:
    with pytest.raises(SettingsError, match="BATCHBELL_RESULTS_URL"):
        open_results_store(url)


@pytest.mark.parametrize("pieces", [0, 1])
async def test_a_reader_who_leaves_leaves_no_file_open(
    tmp_path: Path, file: Path, pieces: int
) -> None:
    """As the server cancels one: again at everything that is awaited. A file that is left open
    warns when it is forgotten, and warnings are errors."""
    results_store = Folder(tmp_path / "results")
    await results_store.put("a", file)
    reading = results_store.read("a")
    for _ in range(pieces):
        await anext(reading)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anext(reading)
    assert scope.cancelled_caught
    del reading
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
    gc.collect()


def slow_file(folder: Folder, name: str) -> Path:
    """A pipe: whoever opens or reads it waits for whoever writes it, as for a disk that hangs."""
    path = folder.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


async def test_slow_files_of_one_project_delay_no_other_project(tmp_path: Path, file: Path) -> None:
    folder = Folder(tmp_path / "results")
    await folder.put("quick/a", file)
    pipes = [slow_file(folder, f"slow/{n}") for n in range(STORED_AT_ONCE + 4)]
    slow = [asyncio.create_task(read(folder, f"slow/{n}")) for n in range(len(pipes))]
    first = await asyncio.to_thread(pipes[0].open, "wb", 0)  # waits until its reader has come
    try:
        async with asyncio.timeout(30):
            assert await read(folder, "quick/a") == CONTENT
            assert await folder.size("quick/a") == len(CONTENT)
            await folder.delete("quick/a")
            assert await asyncio.to_thread(lambda: "shared") == "shared"
            assert not any(one.done() for one in slow)
            slow[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow[0]  # at once, though its thread still reads
    finally:
        first.close()
        await end_of(pipes[1:], slow)
    assert [one.result() for one in slow[1:]] == [b""] * (len(pipes) - 1)


async def end_of(pipes: list[Path], readers: list[asyncio.Task[bytes]]) -> None:
    """Let each reader find the end of its pipe."""
    while not all(one.done() for one in readers):
        for pipe in pipes:
            os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
        await asyncio.sleep(0)


async def test_a_file_is_fetched_and_stays_when_it_is_deleted(
    results_store: ResultsStore, file: Path, tmp_path: Path
) -> None:
    target = tmp_path / "fetched"
    target.write_bytes(b"of another")
    await results_store.put("prj/fetched", file)
    await results_store.fetch("prj/fetched", target)
    await results_store.delete("prj/fetched")
    assert target.read_bytes() == CONTENT
    with pytest.raises(ResultsGone):
        await results_store.fetch("prj/fetched", target)


async def test_a_file_of_a_folder_is_copied_where_no_link_can_be(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    folder, target = Folder(tmp_path / "results"), tmp_path / "fetched"
    await folder.put("prj/file", file)
    await folder.fetch("prj/file", target)
    assert target.samefile(folder.root / "prj" / "file"), "no byte is copied"
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    await folder.fetch("prj/file", target)
    assert not target.samefile(folder.root / "prj" / "file")
    assert target.read_bytes() == CONTENT
