"""Replays as they are asked for and answered: shapes, and the reading of a request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import Response

from batchbell.core import replay as core
from batchbell.core.model import EventType
from batchbell.core.replay import PACE, PACE_MAX, ReplayFilter, ReplayStatus
from batchbell.storage import replays
from batchbell.storage.replays import Counted
from batchbell.web import shapes
from batchbell.web.bodies import Fields, read_json
from batchbell.web.call import Call, Caller, answer, call_of, page_answer
from batchbell.web.openapi import answers, json_content, takes
from batchbell.web.parameters import LIMIT_DEFAULT, After, Limit, strict_router
from batchbell.web.shapes import ID_MAX, LAST_SECOND, Replay, ReplayCounts, ReplayRequest

Word = TypeVar("Word", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request that was read."""

    filter: ReplayFilter
    as_new: bool
    enable: bool
    pace: float
    dry_run: bool


def read_request(body: Any) -> Wanted:
    """Raises InvalidBody with all that is wrong."""
    fields = Fields(body, ReplayRequest)
    filter = ReplayFilter(
        status=_word(fields, "status", ReplayStatus) or ReplayStatus.FAILED,
        endpoint_id=fields.optional_text("endpoint_id", most=ID_MAX),
        event_id=fields.optional_text("event_id", most=ID_MAX),
        since=_number(fields, "since", most=LAST_SECOND),
        until=_number(fields, "until", most=LAST_SECOND),
        types=_types(fields),
    )
    pace = _number(fields, "pace", most=PACE_MAX)
    if pace == 0:
        fields.wrong("pace", "pace must be more than 0.")
    switches = [_switch(fields, name) for name in ("as_new", "enable", "dry_run")]
    fields.raise_problems()
    as_new, enable, dry_run = switches
    return Wanted(filter, as_new, enable, PACE if pace is None else pace, dry_run)


def _word(fields: Fields, name: str, words: type[Word]) -> Word | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, str) and value in set(words):
        return words(value)
    fields.wrong(name, f"{name} must be one of {', '.join(words)}.")
    return None


def _number(fields: Fields, name: str, *, most: float) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and 0 <= value <= most:
        return float(value)
    fields.wrong(name, f"{name} must be a number from 0 to {most:,.0f}.")
    return None


def _switch(fields: Fields, name: str) -> bool:
    value = fields.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    fields.wrong(name, f"{name} must be true or false.")
    return False


def _types(fields: Fields) -> tuple[EventType, ...]:
    value = fields.get("types")
    if value is None:
        return ()
    known = set(EventType)
    if isinstance(value, list) and value and all(isinstance(v, str) and v in known for v in value):
        return tuple(EventType(word) for word in dict.fromkeys(value))
    fields.wrong("types", f"types must be a list of some of {', '.join(EventType)}.")
    return ()


def describe(found: core.Replay) -> Replay:
    filter = found.filter
    return Replay(
        id=found.id,
        state=found.state,
        status=filter.status,
        endpoint_id=filter.endpoint_id,
        event_id=filter.event_id,
        since=filter.since,
        until=filter.until,
        types=list(filter.types),
        as_new=found.as_new,
        pace=found.pace,
        total=found.total,
        done=found.done,
        skipped=found.skipped,
        created_at=int(found.created_at),
        updated_at=int(found.updated_at),
        finished_at=None if found.finished_at is None else int(found.finished_at),
    )


def describe_counts(counted: Counted) -> ReplayCounts:
    return ReplayCounts(total=counted.total, skipped=counted.skipped)


router = strict_router("replays")

CREATE = answers(shapes.Replay, 404, 413, status=201, says="Begun.")
CREATE["responses"][200] = {
    "description": "A dry run: what it would do.",
    "content": json_content(shapes.ReplayCounts),
}


@router.post(
    "/v1/replays",
    summary="Send many deliveries again, or count them",
    openapi_extra=takes(shapes.ReplayRequest),
    **CREATE,
)
async def create_replay(request: Request) -> Response:
    call = await call_of(request)
    wanted = read_request(await read_json(request))
    counted = await _count(call, wanted)
    if wanted.dry_run:
        return answer(describe_counts(counted))
    made = await call.context.store.write(
        replays.create,
        call.project_id,
        wanted.filter,
        counted,
        as_new=wanted.as_new,
        enable=wanted.enable,
        pace=wanted.pace,
        mint=call.context.mint,
        now=call.context.clock(),
    )
    return answer(describe(made), 201)


async def _count(call: Call, wanted: Wanted) -> replays.Counted:
    return await call.context.store.read(
        replays.count,
        call.project_id,
        wanted.filter,
        enable=wanted.enable,
        now=call.context.clock(),
    )


@router.get(
    "/v1/replays",
    summary="List replays, newest first",
    **answers(shapes.Page[shapes.Replay], 404),
)
async def list_replays(call: Caller, limit: Limit = LIMIT_DEFAULT, after: After = None) -> Response:
    page = await call.page(replays.list_replays, limit=limit, after=after)
    return page_answer(page, [describe(r) for r in page.items], [r.id for r in page.items])


@router.get("/v1/replays/{replay_id}", summary="One replay", **answers(shapes.Replay, 404))
async def get_replay(call: Caller, replay_id: str) -> Response:
    found = await call.context.store.read(replays.get_replay, call.project_id, replay_id)
    return answer(describe(found))


@router.post(
    "/v1/replays/{replay_id}/cancel",
    summary="Walk no further; what was made due stays so",
    **answers(shapes.Replay, 404),
)
async def cancel_replay(call: Caller, replay_id: str) -> Response:
    ended = await call.context.store.write(
        replays.cancel, call.project_id, replay_id, now=call.context.clock()
    )
    return answer(describe(ended))
