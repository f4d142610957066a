"""Whatever is typed, a command that fails says why in one line, and never by a traceback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import structlog
import typer.main
import typer.testing
from typer.testing import CliRunner

from batchbell.cli.app import app

AWAY = "http://127.0.0.1:9"
HELP = "See `batchbell"
USAGE: list[tuple[str, str]] = [
    ("--hlep", "No such option --hlep. Did you mean --help?"),
    ("lst", "No such command 'lst'. Did you mean 'list', 'listen'?"),
    ("serv", "Did you mean 'serve'"),
    ("rekey", "Did you mean `batchbell keys rekey`?"),
    ("xyzzy", "No such command 'xyzzy'."),
    ("keys crate", "Did you mean 'create'? See `batchbell keys --help`."),
    ("list batchs", "Did you mean 'batches'?"),
    ("list --limt 3", "Did you mean --id, --limit? See `batchbell list --help`."),
    ("list --limit 0", "--limit"),
    ("list --limit many", "--limit"),
    ("list events --status completed", "Events are delivered or undelivered."),
    ("list watches --type x", "cannot be chosen by type, but by --batch"),
    ("show", "Missing argument 'ID'."),
    ("show a b", "unexpected extra argument"),
    ("list submissions --batch b", "cannot be chosen by batch"),
    ("cancel batch_1", "Cancel a batch at its provider. See"),
    ("expunge batch_1", "Pass --yes"),
    ("unwatch", "Missing argument 'ID'."),
    ("watch b", "Missing option '--url'."),
    ("watch b --url", "'--url' requires an argument."),
    ("watch --url http://a", "Name at least one batch"),
    ("watch b --url http://a --url http://a", "--url and --url mean the same."),
    ("watch b --webhookUrl=http://a --url http://b", "--webhookUrl and --url mean the same."),
    ("submit f --webhook http://a --webhook-url http://b", "--webhook and --webhook-url mean"),
    ("watch --webhook_url http://a", "Name at least one batch"),
    ("watch b --url http://a --metadata x", "'x' is not KEY=VALUE"),
    ("watch --file nowhere.txt --url http://a", "nowhere.txt cannot be read"),
    ("wait b --timeout soon", "--timeout"),
    ("results b --format csv", "A table needs a file"),
    ("replay --since never", "'never' is no time"),
    ("replay --status faild", "Did you mean 'failed'?"),
    ("serve --port abc", "--port"),
    ("sandbox --port 99999", "65535"),
    ("accounts add x --api-key-env NOT_SET", "NOT_SET is not set."),
    ("accounts update x --hook-secret-env NOT_SET", "NOT_SET is not set."),
    ("accounts update x", "--new-hook-secret"),
    ("endpoints create --url http://a", "Missing option '--name'."),
    ("endpoints update whe_1 --schedule soon", "--schedule"),
]
SETTINGS: list[tuple[str, str]] = [
    ("list --server nonsense", "BATCHBELL_URL"),
    ("list --server ftp://host", "BATCHBELL_URL"),
    ("serve --port 99999999", "PORT"),
    ("serve --database-url mysql://x/y", "DATABASE_URL"),
    ("migrate --database-url nonsense", "DATABASE_URL"),
    ("secret", "There is no database at"),
    ("keys rekey", "There is no database at"),
    ("verify body.json", "--secret"),
]
WITH_A_SERVER: list[str] = [
    "list",
    "list events --json",
    "show batch_1",
    "show evt_1",
    "resend evt_1",
    "results batch_1",
    "results batch_1 -o results.jsonl",
    "submit requests.jsonl",
    "watch batch_1 --url http://a",
    "wait batch_1",
    "expunge batch_1 --yes",
    "replay --dry-run",
    "accounts list",
    "accounts test openai",
    "endpoints list",
    "endpoints delete whe_1",
    "endpoints delete whe_1 --yes",
    "cancel sub_1",
    "cancel rpl_1",
    "unwatch wat_1 batch_1",
    "list submissions",
    "projects list",
    "keys list",
    "secret",
    "listen",
    "trigger",
]

Run = Callable[..., tuple[int, str]]


built = cache(typer.main.get_command)
"""The command tree, which takes 50 ms to build."""


@pytest.fixture(autouse=True)
def built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typer.testing, "_get_command", built)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """The exit code, and what was said on standard error; nothing else may be said."""
    monkeypatch.chdir(tmp_path)
    for name in ("BATCHBELL_URL", "BATCHBELL_API_KEY", "DATABASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PORT", "9")  # at the default one somebody may serve
    (tmp_path / "requests.jsonl").write_text("{}\n")
    (tmp_path / "body.json").write_text("{}")

    def run(command: str) -> tuple[int, str]:
        ended = CliRunner().invoke(app, command.split(), prog_name="batchbell")
        assert "Traceback" not in ended.stderr
        assert ended.exception is None or isinstance(ended.exception, SystemExit)
        assert ended.stdout == "", command
        return ended.exit_code, ended.stderr

    yield run
    structlog.reset_defaults()  # the log of a command goes to a stream of its test


def one_line(said: str, command: str) -> str:
    lines = said.splitlines()
    assert len(lines) == 1, f"{command}: {said}"
    assert lines[0].startswith("batchbell: error: ")
    assert lines[0].endswith((".", "?"))
    assert "bug in Batchbell" not in lines[0]
    return lines[0]


def test_a_wrong_command_names_the_nearest_word_and_the_help(run: Run) -> None:
    for command, part in USAGE:
        code, said = run(command)
        line = one_line(said, command)
        assert (code, part in line, HELP in line) == (2, True, True), line


def test_a_wrong_setting_is_named(run: Run) -> None:
    for command, part in SETTINGS:
        code, said = run(command)
        assert (code, part in one_line(said, command)) == (2, True), said


def test_a_server_that_is_away_is_named_at_once(run: Run) -> None:
    for command in WITH_A_SERVER:
        code, said = run(f"{command} --server {AWAY}")
        line = one_line(said, command)
        assert code == 1
        assert (
            line.endswith(
                f"No answer from {AWAY}: Connection refused. Is `batchbell serve` running there?"
            )
            or "All connection attempts failed" in line
        ), line


@pytest.fixture
def answering() -> Iterator[Callable[[int, bytes], str]]:
    """Serves one answer to everything; its URL."""
    now: list[tuple[int, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            status, body = now[-1]
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = do_PATCH = answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def answer(status: int, body: bytes) -> str:
        now.append((status, body))
        return f"http://127.0.0.1:{server.server_port}"

    yield answer
    server.shutdown()
    thread.join()
    server.server_close()


ODD = [
    (401, b'{"error": {"message": "No such key.", "code": "invalid_api_key"}}', "--api-key"),
    (
        404,
        b'{"error": {"message": "There is no batch of that id.", "code": "not_found"}}',
        "no batch",
    ),
    (403, b"<html>a proxy</html>", "403"),
    (500, b"", "500"),
    (200, b"<html>another program</html>", ""),
    (200, b"{}", ""),
    (200, b"[]", ""),
]


@pytest.mark.parametrize(("status", "body", "part"), ODD)
def test_whatever_a_server_answers_is_one_line(
    run: Run, answering: Callable[[int, bytes], str], status: int, body: bytes, part: str
) -> None:
    url = answering(status, body)
    for command in WITH_A_SERVER:
        if status == 200 and command in ("results batch_1", "results batch_1 -o results.jsonl"):
            continue  # bytes of a file, whatever they are
        code, said = run(f"{command} --server {url}")
        line = one_line(said, command)
        assert (code, part in line) == (1, True), f"{command}: {line}"


def test_a_file_that_cannot_be_written_is_named(
    run: Run, answering: Callable[[int, bytes], str]
) -> None:
    url = answering(200, b"{}\n")
    code, said = run(f"results batch_1 -o nowhere/results.jsonl --server {url}")
    assert code == 1
    assert "nowhere/results.jsonl" in one_line(said, "results")
    assert "No such file or directory" in said


def test_completion_names_commands_and_can_be_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "--install-completion" in CliRunner().invoke(app, ["--help"]).stdout
    monkeypatch.setenv("_BATCHBELL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "batchbell unw")
    monkeypatch.setenv("COMP_CWORD", "1")
    ended = CliRunner().invoke(app, [], prog_name="batchbell")
    assert (ended.exit_code, ended.stdout.split()) == (0, ["unwatch"])
