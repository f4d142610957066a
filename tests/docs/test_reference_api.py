"""The reference names every route, error, metric and event; and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.metrics_core import Metric

from batchbell.core.lifecycle import STANDS_IN
from batchbell.core.model import DEFAULT_EVENTS, EventType
from batchbell.observability import Metrics
from batchbell.web.app import ROUTERS
from batchbell.web.errors import Code

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]*) \|", re.MULTILINE)
ROUTE = re.compile(r"`(GET|HEAD|POST|PUT|PATCH|DELETE) (/[^`]*)`")
HEADING = re.compile(r"^###? .*$", re.MULTILINE)
CODE = re.compile(r"\bcode(?:: str)? ?= ?\"([a-z_]+)\"")


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def rows(name: str) -> dict[str, str]:
    """The tables' first two columns."""
    return dict(ROW.findall(page(name)))


def test_every_route_has_its_heading() -> None:
    headings = "\n".join(HEADING.findall(page("http-api.md")))
    routes = {
        (method, route.path_format)
        for router in ROUTERS
        for route in router.routes
        for method in route.methods
    }
    assert set(ROUTE.findall(headings)) == routes


def test_every_error_code_is_explained() -> None:
    assert set(rows("errors.md")) == set(Code)


def test_no_room_answers_with_a_code_that_is_not_on_the_list() -> None:
    used = {
        code
        for room in ("core/errors.py", "net", "storage", "web")
        for path in sorted((ROOT / "src" / "batchbell" / room).rglob("*.py"))
        or [ROOT / "src" / "batchbell" / room]
        for code in CODE.findall(path.read_text(encoding="utf-8"))
    }
    assert {"not_found", "nothing_to_resend"} <= used
    assert used <= set(Code)


def exposed(metric: Metric) -> str:
    """The name as Prometheus sees it."""
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def test_every_metric_is_listed_with_its_kind() -> None:
    metrics = {exposed(metric): metric.type for metric in Metrics().registry.collect()}
    listed = {name: kind.split(",")[0] for name, kind in rows("metrics.md").items()}
    assert listed == metrics


def test_every_event_type_is_listed() -> None:
    assert set(rows("events.md")) >= set(EventType)
    of_batches = {type_ for type_ in EventType if type_.of_batch}
    assert {row for row in rows("events.md") if row.startswith("batch.")} == of_batches


def test_the_defaults_are_marked() -> None:
    table = page("events.md").split("## Types")[1].split("## ")[0]
    marked = re.findall(r"^\| `([^`]+)` .*\| yes \|$", table, re.MULTILINE)
    assert marked == list(DEFAULT_EVENTS)
    assert all(f"in place of `{type_}`" in table for type_ in STANDS_IN)
