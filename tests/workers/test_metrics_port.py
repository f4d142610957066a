"""A worker without HTTP can be scraped all the same."""

from __future__ import annotations

import socket

import httpx2
import pytest

from batchbell.core.errors import SettingsError
from batchbell.observability import Metrics


@pytest.fixture
def port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_what_was_counted_is_served(port: int) -> None:
    metrics = Metrics()
    metrics.changes.labels("completed").inc(3)
    metrics.serve("127.0.0.1", port)
    text = httpx2.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'batchbell_batch_changes_total{status="completed"} 3.0' in text
    metrics.stop_serving()


def test_a_port_that_is_taken_is_said_so(port: int) -> None:
    metrics = Metrics()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(SettingsError, match="METRICS"):
        metrics.serve("127.0.0.1", port)
