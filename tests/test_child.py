"""Child processes for long work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batchbell import threads
from batchbell.child import Children
from batchbell.core.errors import ChildDied, NotFound, ProviderUnavailable
from batchbell.core.form import Form
from batchbell.core.limits import Limits
from batchbell.core.results import Arrived
from batchbell.files.merge import merge_files
from batchbell.files.preflight import prepare_file
from batchbell.files.provider_files import unpack
from batchbell.threads import APART_BYTES, apart
from tests.failing_work import die

HEAVY_IMPORTS = {"aiohttp", "asyncpg", "fastapi", "obstore", "pydantic", "sqlalchemy", "uvicorn"}
REQUEST = b'{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"model":"m"}}\n'
ANSWER = b'{"custom_id":"a","response":{"status_code":200,"body":{}}}\n'
LIVES_ON = """
import os, time
from batchbell.child import Children
children = Children()
print(children.run(os.getpid), flush=True)
children.run(time.sleep, 600)
"""


@pytest.fixture
def children() -> Iterator[Children]:
    made = Children()
    yield made
    made.end()


def test_work_is_done_in_another_process_which_is_kept(children: Children) -> None:
    pid = children.run(os.getpid)
    assert pid != os.getpid()
    assert [children.run(os.getpid) for _ in range(3)] == [pid] * 3
    assert children.pids == [pid]


def test_an_error_comes_as_itself_and_says_where_it_was_raised(
    children: Children, tmp_path: Path
) -> None:
    packed = tmp_path / "packed"
    packed.write_bytes(b"\x1f\x8bdamaged")
    with pytest.raises(ProviderUnavailable, match="damaged") as found:
        children.run(unpack, packed, tmp_path / "target", Arrived(), most_bytes=100)
    assert found.value.message == str(found.value)
    [note] = found.value.__notes__
    assert note.startswith("In a child process:\n")
    assert "_inflate" in note


def test_an_error_that_cannot_come_as_itself_comes_in_words(children: Children) -> None:
    pid = children.run(os.getpid)
    with pytest.raises(RuntimeError, match="NotFound: No batch found with id 'b'"):
        children.run(_raise_not_found)
    assert children.run(os.getpid) == pid


def _raise_not_found() -> None:
    raise NotFound("batch", "b")


def test_what_is_printed_there_is_no_answer(children: Children) -> None:
    assert children.run(print, "words") is None
    assert children.run(len, "words") == 5


def test_a_child_that_dies_fails_what_it_did_and_nothing_else(children: Children) -> None:
    with pytest.raises(ChildDied, match="signal 9, perhaps for want of memory"):
        children.run(die)
    with pytest.raises(ChildDied, match="exit code 3"):
        children.run(os._exit, 3)
    assert children.pids == []
    idle = children.run(os.getpid)
    os.kill(idle, signal.SIGKILL)
    os.waitid(os.P_PID, idle, os.WEXITED | os.WNOWAIT)
    assert children.run(os.getpid) != idle


def test_what_is_under_way_fails_when_all_are_ended(children: Children, tmp_path: Path) -> None:
    pid, pipe = children.run(os.getpid), tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(children.run, Path.read_bytes, pipe)
        with pipe.open("wb"):  # once it reads there
            children.end()
            assert isinstance(reading.exception(30), ChildDied)
    assert children.pids == []
    assert children.run(os.getpid) != pid


def test_a_child_without_work_is_given_back() -> None:
    children = Children(idle_seconds=0.01)
    pid = children.run(os.getpid)
    assert children.run(os.getpid) in {pid, *children.pids}
    while children.pids:  # a timer ends it
        time.sleep(0.01)
    assert children.run(os.getpid) != pid
    children.end()


def test_what_signals_the_process_group_does_not_end_a_child(children: Children) -> None:
    pid = children.run(os.getpid)
    assert os.getpgid(pid) != os.getpgid(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert children.run(os.getpid) == pid


def test_a_child_is_behind_the_server_and_knows_no_secret(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    pid = children.run(os.getpid)
    assert os.getpriority(os.PRIO_PROCESS, pid) >= min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    assert b"sk-secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "500\n"
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2", "3"], "pipes, and errors"


def test_a_child_that_works_dies_with_a_server_that_is_killed() -> None:
    """It has our standard error, which is closed once both are gone."""
    command = [sys.executable, "-c", LIVES_ON]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert int(server.stdout.readline()) != server.pid
        server.kill()
        _, said = server.communicate(timeout=30)
    assert said == b""


def test_a_child_imports_little(children: Children, tmp_path: Path) -> None:
    requests, answers = tmp_path / "requests", tmp_path / "answers"
    requests.write_bytes(REQUEST)
    answers.write_bytes(ANSWER)
    tally = children.run(
        merge_files,
        requests,
        [answers],
        tmp_path / "merged",
        missing_code="x",
        missing_message="x",
    )
    assert (tally.lines, tally.succeeded) == (1, 1)
    prepared = children.run(
        prepare_file,
        requests,
        limits=Limits(),
        form=Form(),
        url=None,
        model=None,
        bytes_per_token=4.0,
    )
    assert prepared.lines == 1
    imported = children.run(eval, "{name.partition('.')[0] for name in __import__('sys').modules}")
    assert imported & HEAVY_IMPORTS == set()


async def test_short_files_are_gone_through_here_and_long_ones_in_a_child(tmp_path: Path) -> None:
    short, long = tmp_path / "short", tmp_path / "long"
    short.write_bytes(b"short")
    with long.open("wb") as file:
        file.truncate(APART_BYTES)
    assert await apart("prj", [short, tmp_path / "gone"], os.getpid) == os.getpid()
    try:
        assert await apart("prj", [short, long], os.getpid) in threads.children.pids
    finally:
        threads.children.end()
