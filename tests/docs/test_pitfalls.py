"""What broke for others has a test here that says so.

A test claims a pitfall by naming it in its docstring: `Pitfall 7`, or `Pitfall 7 and pitfall 27`.
The numbers are those of the list below, and stay as they are.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parents[1]
CLAIM = re.compile(r"\bpitfall (\d+)\b", re.IGNORECASE)

PITFALLS = {
    1: "serial sweeps: one slow receiver delays every webhook and is called twice",
    2: "a late status reply writes a delivered batch back: a second webhook",
    3: "the process dies on a locked database",
    4: "no retry limit and no backoff",
    5: "an unknown batch is polled for ever, and nobody is told",
    6: "the same id registered twice: two webhooks",
    7: "a redirect is followed and the body re-sent to another host",
    8: "no authentication, signature, event id or timestamp; webhook URLs in the log",
    9: "no counts, errors or file ids: an all-failed batch looks completed",
    10: "missing fields answer 500; what is no URL is accepted",
    11: "one retrieve per batch per cycle; an unknown status; a second instance doubles all",
    12: "completed with an error file only: no success, and not polled again",
    13: "expired and cancelled batches have finished lines: hand them over",
    16: 'results in any order; an error file id of ""; empty error files; null errors',
    17: "lists without order, shifting cursors, unknown statuses, missing ids",
    18: "expiry inferred from the clock",
    21: "provider storage fills: expiry, and deletion after a verified download",
    24: "a fixed pace burns the rate limit; 429 must pause the account",
    25: "duplicates after a 200, retries that stop, events that vanish",
    26: "a dedupe id only in a header",
    27: "redirects and blocked addresses without an explanation",
    28: "one slow customer backs up everyone; a purge that locks the table",
    29: "every retry rejected as a replay: the timestamp must be fresh",
}
"""Those of the main job. The others belong to features that are not here yet."""

LAST_PITFALL = 30


def claims() -> dict[int, set[str]]:
    """Which tests name which pitfall."""
    claimed: dict[int, set[str]] = defaultdict(set)
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if not node.name.startswith("test_"):
                continue
            for number in CLAIM.findall(ast.get_docstring(node) or ""):
                claimed[int(number)].add(f"{path.relative_to(TESTS)}::{node.name}")
    return claimed


def test_each_pitfall_of_the_main_job_is_named_by_a_test() -> None:
    claimed = claims()
    missing = {number: what for number, what in PITFALLS.items() if number not in claimed}
    assert missing == {}


def test_no_test_names_a_pitfall_that_is_not_on_the_list() -> None:
    unknown = {n: tests for n, tests in claims().items() if not 1 <= n <= LAST_PITFALL}
    assert unknown == {}
