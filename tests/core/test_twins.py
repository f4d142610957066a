"""Which batch a lost call has made, and when the call may be made again."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from batchbell.core import twins
from batchbell.core.model import Counts, Status
from batchbell.core.twins import Doubt, Marks

from .making import a_snapshot

NOW = 1_000_000.0
OURS = Marks(asked_at=NOW, input_file_id="file-1", endpoint="/v1/x", tag=("t", "prt_1.2"))
BARE = Marks(asked_at=NOW, endpoint="/v1/x", tag=("t", "prt_1.2"), lines=3)
FILED = replace(BARE, own_input=True)
THREE, FOUR = (Counts(total=total, completed=0, failed=0) for total in (3, 4))
CALLERS = Marks(asked_at=NOW, input_file_id="file-1", endpoint="/v1/x", metadata={"a": "b"})


def seen(**more: Any) -> Any:
    made = {"created_at": int(more.pop("at", NOW))}
    fields = {"input_file_id": "file-1", "endpoint": "/v1/x", "timestamps": made}
    return a_snapshot(Status.VALIDATING, **fields | more)


@pytest.mark.parametrize(
    ("marks", "fields", "is_twin"),
    [
        (OURS, {"metadata": {"t": "prt_1.2"}}, True),
        (OURS, {"metadata": {"t": "prt_1.2"}, "input_file_id": None, "at": 5}, True),
        (OURS, {"metadata": {"t": "prt_1.1"}}, False),
        (OURS, {"metadata": None}, True),
        (OURS, {"metadata": {}, "endpoint": None}, True),
        (OURS, {"metadata": None, "input_file_id": "file-2"}, False),
        (OURS, {"metadata": None, "input_file_id": None}, False),
        (OURS, {"metadata": None, "endpoint": "/v1/y"}, False),
        (OURS, {"metadata": None, "at": NOW - 700}, False),
        (OURS, {"metadata": None, "at": NOW - 500}, True),
        (OURS, {"metadata": None, "timestamps": {}}, True),
        (CALLERS, {"metadata": {"a": "b"}}, True),
        (CALLERS, {"metadata": None}, True),
        (CALLERS, {"metadata": {"a": "c"}}, False),
        (BARE, {"input_file_id": None, "counts": THREE}, True),
        (BARE, {"input_file_id": None, "counts": THREE, "at": NOW - 59}, True),
        (BARE, {"input_file_id": None, "counts": THREE, "at": NOW - 61}, False),
        (BARE, {"input_file_id": None, "counts": FOUR}, False),
        (BARE, {"input_file_id": None, "counts": None}, False),
        (BARE, {"input_file_id": None, "counts": THREE, "timestamps": {}}, False),
        (BARE, {"input_file_id": "file-1", "counts": THREE}, False),
        (FILED, {"input_file_id": "file-1", "counts": THREE}, True),
        (FILED, {"input_file_id": "file-1", "counts": FOUR}, False),
        (BARE, {"input_file_id": None, "counts": THREE, "metadata": {"t": "prt_2.1"}}, False),
        (BARE, {"input_file_id": None, "counts": FOUR, "metadata": {"t": "prt_1.2"}}, True),
    ],
)
def test_a_twin_agrees_in_every_mark_that_the_host_shows(
    marks: Marks, fields: dict[str, Any], is_twin: bool
) -> None:
    batch = seen(**fields)
    assert twins.twins(marks, [batch]) == ([batch] if is_twin else [])


def test_a_batch_with_our_tag_comes_before_one_that_only_fits() -> None:
    fits, tagged = seen(id="a", metadata=None), seen(id="b", metadata={"t": "prt_1.2"})
    assert twins.twins(OURS, [fits, tagged]) == [tagged, fits]


def test_of_two_that_are_alike_the_one_made_nearest_to_the_call_comes_first() -> None:
    alike = {"input_file_id": None, "counts": THREE, "metadata": None}
    later, sooner = seen(id="a", at=NOW + 50, **alike), seen(id="b", at=NOW + 2, **alike)
    assert twins.twins(BARE, [later, sooner]) == [sooner, later]


@pytest.mark.parametrize(
    ("status", "reached", "doubt"),
    [
        (None, True, Doubt.GRAVE),
        (None, False, Doubt.NONE),
        (200, True, Doubt.GRAVE),
        (302, True, Doubt.NONE),
        (400, True, Doubt.NONE),
        (404, True, Doubt.NONE),
        (408, True, Doubt.GRAVE),
        (409, True, Doubt.GRAVE),
        (429, True, Doubt.NONE),
        (499, True, Doubt.GRAVE),
        (500, True, Doubt.SLIGHT),
        (502, True, Doubt.GRAVE),
        (503, True, Doubt.SLIGHT),
        (504, True, Doubt.GRAVE),
        (520, True, Doubt.GRAVE),
        (524, True, Doubt.GRAVE),
    ],
)
def test_what_a_failed_call_leaves_open(status: int | None, reached: bool, doubt: Doubt) -> None:
    assert twins.doubt(status, reached=reached) is doubt


@pytest.mark.parametrize(
    ("made", "past"),
    [
        ([NOW - 700, NOW - 800], True),
        ([NOW, NOW - 800], False),
        ([NOW - 800, NOW - 700], False),
        ([NOW - 800], False),
        ([NOW - 800, NOW - 800], False),
        ([], False),
    ],
)
def test_only_a_page_from_new_to_old_proves_that_the_rest_is_too_old(
    made: list[float], past: bool
) -> None:
    page = [seen(id=f"b{n}", at=at) for n, at in enumerate(made)]
    assert twins.is_past(OURS, page) is past


@pytest.mark.parametrize(
    ("looks", "now", "may"), [(2, 99.0, False), (3, 9.0, False), (3, 10.0, True)]
)
def test_a_call_is_made_again_after_several_looks_over_a_time(
    looks: int, now: float, may: bool
) -> None:
    assert twins.may_ask_again(looks=looks, not_before=10.0, now=now) is may


def test_a_host_without_a_list_is_asked_again_after_a_slight_doubt_only() -> None:
    slight, grave = 15.0, twins.LOST_LOOK_FOR_SECONDS
    may = twins.may_ask_unseen
    assert may(asked_at=0.0, not_before=slight, now=14.0) is None
    assert may(asked_at=0.0, not_before=slight, now=15.0) is True
    assert may(asked_at=0.0, not_before=grave, now=grave) is None
    assert may(asked_at=0.0, not_before=grave, now=twins.UNLISTED_SECONDS) is False
