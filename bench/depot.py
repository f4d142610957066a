"""A provider of great files in a process of its own: they stay on disk, and cost it nearly nothing.

The sandbox makes its files in memory, and ten of a gigabyte are more than a machine has.
"""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench.children import Talk


class Depot(ThreadingHTTPServer):
    """Batches by id, the newest first, and files under as many ids as there are batches."""

    daemon_threads = True

    def __init__(self, kinds: dict[str, dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kinds = kinds
        self.batches: dict[str, dict[str, Any]] = {}

    def add(self, kind: str, number: int) -> list[str]:
        """Open batches of a kind."""
        ids = [f"batch_{kind}_{len(self.batches) + n:06d}" for n in range(number)]
        for id in ids:
            self.batches[id] = _row(id, self.kinds[kind]["lines"])
        return ids

    def finish(self, ids: list[str]) -> float:
        """Let these end at once; returns when that was."""
        for id in ids:
            lines = self.batches[id]["request_counts"]["total"]
            counts = {"total": lines, "completed": lines, "failed": 0}
            ended = {"status": "completed", "completed_at": int(time.time())}
            files = {"output_file_id": f"{id}-output", "request_counts": counts}
            self.batches[id] = {**self.batches[id], **ended, **files}
        return time.time()

    def file(self, file_id: str) -> Path:
        """Where a file is kept."""
        _, kind, which = file_id.split("_")
        return Path(self.kinds[kind][which.partition("-")[2]])


def _row(id: str, lines: int) -> dict[str, Any]:
    return {
        "id": id,
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "status": "in_progress",
        "created_at": int(time.time()),
        "completion_window": "24h",
        "input_file_id": f"{id}-input",
        "output_file_id": None,
        "error_file_id": None,
        "request_counts": {"total": lines, "completed": 0, "failed": 0},
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Depot

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        match path.split("/")[2:]:
            case ["batches"]:
                self._json(self._page(query))
            case ["batches", id]:
                self._json(self.server.batches[id])
            case ["files", id, "content"]:
                self._file(self.server.file(id))
            case _:
                self.send_error(404)

    def _page(self, query: str) -> dict[str, Any]:
        rows = list(reversed(self.server.batches.values()))
        after = dict(part.split("=") for part in query.split("&")).get("after")
        start = 0 if after is None else [row["id"] for row in rows].index(after) + 1
        return {
            "object": "list",
            "data": rows[start : start + 100],
            "has_more": len(rows) > start + 100,
        }

    def _json(self, answer: object) -> None:
        body = json.dumps(answer).encode()
        self._head("application/json", len(body))
        self.wfile.write(body)

    def _file(self, path: Path) -> None:
        self._head("application/octet-stream", path.stat().st_size)
        with path.open("rb") as file:
            self.connection.sendfile(file)

    def _head(self, kind: str, size: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


async def main(talk: Talk, *, kinds: dict[str, dict[str, Any]]) -> None:
    """`kinds` are batches by a word: how many `lines`, and the paths of `input` and `output`.

    `add` makes so many of a `kind`, and `finish` lets some end.
    """
    with Depot(kinds) as depot:
        threading.Thread(target=depot.serve_forever, daemon=True).start()
        talk.say(base_url=f"http://127.0.0.1:{depot.server_port}/v1")
        while (order := await talk.hear()) is not None:
            match order:
                case {"add": int(number), "kind": str(kind)}:
                    talk.say(ids=depot.add(kind, number))
                case {"finish": list(ids)}:
                    talk.say(at=depot.finish(ids))
        depot.shutdown()
