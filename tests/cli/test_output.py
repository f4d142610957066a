"""No table breaks an id, however narrow the terminal is."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest

from batchbell.checks import Finding
from batchbell.cli import attempts, doctor, lists
from batchbell.cli.output import print_facts, print_table
from batchbell.cli.timeline import after

BATCH = "batch_283c2a7b46ddadf236f06181a20ee1e3"
EVENT = "evt_01m9q2vq6h3z8f5d0c1b2a0d4e"
WATCH = "wat_01m9q2vq6h3z8f5d1c1b2a1d4e"
DELIVERY = "dlv_01m9q2vq6h3z8f5d2c1b2a2d4e"
ENDPOINT = "whe_01m9q2vq6h3z8f5d3c1b2a3d4e"
KEY = "key_01m9q2vq6h3z8f5d4c1b2a4d4e"
PROJECT = "prj_01m9q2vq6h3z8f5d5c1b2a5d4e"
IDS = (BATCH, EVENT, WATCH, DELIVERY, ENDPOINT, KEY, PROJECT)
URL = "https://receivers.example.com/a/rather/long/path/of/a/hook?and=a&longer=query"
WHY = f"The receiver answered 503 to {EVENT}, and asked to be called again in an hour."
TIME = "2026-11-28 16:00:00"

TABLES: dict[str, tuple[list[str], tuple[object, ...]]] = {
    "batches": (
        list(lists.TABLES["batches"][0]),
        (BATCH, "in_progress", None, "280/300, 6 failed", "openai", TIME, None, WHY),
    ),
    "watches": (list(lists.TABLES["watches"][0]), (WATCH, BATCH, URL, "completed", TIME)),
    "events": (list(lists.TABLES["events"][0]), (EVENT, "batch.completed", BATCH, TIME)),
    "deliveries": (
        list(lists.TABLES["deliveries"][0]),
        (DELIVERY, "pending", "batch.completed", BATCH, 3, 503, TIME, EVENT, WHY),
    ),
    "endpoints": (
        list(lists.ENDPOINTS[0]),
        (ENDPOINT, "nightly", URL, "completed failed", "parked", TIME, WHY),
    ),
    "keys": (["id", "name", "key", "made", "revoked"], (KEY, "ci", "bb_…1234", TIME, None)),
    "projects": (["id", "name", "made"], (PROJECT, "team", TIME)),
    "accounts": (
        ["name", "provider", "base url", "state", "source", "swept", "reason"],
        ("nightly", "openai", URL, "watched", "api", TIME, WHY),
    ),
    "watched": (["batch", "watch", "url"], (BATCH, WATCH, URL)),
    "attempts": (
        list(attempts.HEADS),
        (1, "failed", 503, "connect 3 · total 9 ms", TIME, WHY, "<html>" + "x" * 200),
    ),
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """What is printed to a terminal of this width; to a pipe where it is None."""

    def run(width: int | None, show: Callable[[], None]) -> list[str]:
        out = io.StringIO() if width is None else Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setenv("COLUMNS", str(width or 80))
            patch.setenv("TERM", "dumb")
            show()
        return out.getvalue().splitlines()

    return run


@pytest.mark.parametrize("name", TABLES)
def test_no_id_is_broken_at_any_width(name: str, shown: Callable[..., list[str]]) -> None:
    heads, row = TABLES[name]
    for width in (20, 40, 60, 80, 120, 200, None):
        told = shown(width, lambda: print_table(heads, [row, row], empty=""))
        text = "\n".join(told)
        assert told[0].startswith(heads[0])
        for cell in row:
            if str(cell) in IDS and heads[row.index(cell)] in told[0]:
                assert str(cell) in text, f"{cell} is broken at {width}"
        for id in IDS:
            assert id in text or (id[:12] not in text and id[-12:] not in text), f"{id} at {width}"
        if width is not None:
            whole = len(told[0].split()) == 1 and len(heads[0].split()) == 1
            assert whole or max(map(len, told)) <= width


def test_the_least_important_columns_go_first(shown: Callable[..., list[str]]) -> None:
    heads, row = TABLES["deliveries"]
    told = {
        width: shown(width, lambda: print_table(heads, [row], empty=""))[0].split()
        for width in (60, 80, 120, 200)
    }
    assert told[60] == ["delivery", "state", "event"]
    assert told[80] == ["delivery", "state", "event", "tries", "HTTP"]
    assert "batch" in told[120]
    assert told[200][-1] == "because"


def test_what_is_left_out_is_said_apart_from_the_table(
    shown: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    heads, row = TABLES["batches"]
    shown(60, lambda: print_table(heads, [row], empty=""))
    assert "Not shown" in capsys.readouterr().err
    shown(None, lambda: print_table(heads, [row], empty=""))
    assert capsys.readouterr().err == ""


def test_a_pipe_gets_every_column_and_a_line_for_each_row(
    shown: Callable[..., list[str]],
) -> None:
    for heads, row in TABLES.values():
        told = shown(None, lambda heads=heads, row=row: print_table(heads, [row] * 3, empty=""))
        assert len(told) == 4
        assert told[0].split() == " ".join(heads).split()
        assert all(str(cell) in told[1] for cell in row if cell is not None)


def test_an_id_of_512_characters_stays_whole(shown: Callable[..., list[str]]) -> None:
    id = "batch/" + "x" * 506
    for width in (40, 200, None):
        told = shown(width, lambda: print_table(["batch", "status"], [(id, "lost")], empty=""))
        assert any(id in line for line in told)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200, None])
def test_facts_and_findings_break_between_words_only(
    width: int | None, shown: Callable[..., list[str]]
) -> None:
    facts = [("id", BATCH), ("reason", WHY), ("url", URL), ("last_error", None)]
    told = "\n".join(shown(width, lambda: print_facts(facts)))
    assert all(word in told for word in (BATCH, URL, *WHY.split()))
    assert "last_error" not in told
    finding = Finding(check="database", state="failed", says=WHY, advice=f"See {URL}.")
    told = "\n".join(shown(width, lambda: doctor._print([finding])))
    assert all(word in told for word in (EVENT, URL, "FAILED"))


def test_text_moves_no_cursor_and_aligns_by_cells(shown: Callable[..., list[str]]) -> None:
    rows = [("a\x1b[2Jb", "x"), ("日本", "y")]
    told = shown(80, lambda: print_table(["name", "z"], rows, empty=""))
    assert "\x1b" not in "".join(told)
    assert told[2] == "日本    y"


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (0, "+0 s"),
        (0.2504, "+0.25 s"),
        (-3.5, "-3.5 s"),
        (59.6, "+1 min"),
        (200, "+3 min 20 s"),
        (3600 * 26, "+1 d 2 h"),
        (-3600 * 2 - 5, "-2 h"),
    ],
)
def test_how_long_after_is_said_in_two_units_at_most(seconds: float, says: str) -> None:
    assert after(seconds) == says
