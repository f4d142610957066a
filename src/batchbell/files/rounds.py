"""Parts of a submission: what of one is to be tried again, and all of them joined in the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from batchbell.core.line_numbers import LineNumbers, Runs, number_at
from batchbell.core.results import Tally, Tokens
from batchbell.files.custom_ids import Numbers
from batchbell.files.lines import answer, custom_id, open_lines, read_lines
from batchbell.files.merge import merge

FLUSH_BYTES = 4 * 2**20


@dataclass(slots=True)
class Gathered:
    """What was written."""

    lines: int = 0
    size: int = 0
    """In bytes."""
    numbering: LineNumbers = field(default_factory=LineNumbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """The requests at one position, and the merged answers of its rounds, the first one first.

    Where the file of requests is not kept any more, the answers of the first round name them.
    """

    requests: Path | None
    answers: Sequence[Path]
    missing_code: str
    missing_message: str


def gather_passing(requests: Path, answers: Path, target: Path, *, runs: Runs = ()) -> Gathered:
    """Write those requests to `target` whose answers may be better another time.

    `runs` say which line of the user's file each request is. Call it in a child.
    """
    with open_lines(answers) as file:
        wanted = _passing(file)
    gathered = Gathered()
    with open_lines(requests) as source, target.open("wb") as output:
        for line in read_lines(source):
            name = custom_id(line.text)
            if name is not None and wanted.get(name):
                output.write(line.text + b"\n")
                gathered.lines += 1
                gathered.numbering.add(number_at(runs, line.number))
                gathered.size += len(line.text) + 1
    return gathered


def _passing(file: IO[bytes]) -> Numbers:
    wanted = Numbers()
    for line in read_lines(file):
        found = answer(line.text)
        if found is not None and found.passing and found.custom_id is not None:
            wanted.add(found.custom_id, 1)
    return wanted


def join_files(positions: Iterable[Rounds], target: Path) -> Tally:
    """As `join`, to a file that is made; call it in a child."""
    with target.open("wb", FLUSH_BYTES) as file:
        return join(positions, file)


def join(positions: Iterable[Rounds], target: IO[bytes]) -> Tally:
    """Write the answers of all parts to `target`, in the order of the requests.

    The last round that answered a request speaks for it.
    """
    whole = Tally(lines=0, succeeded=0, failed=0, not_run=0, size=0, in_input_order=True)
    for rounds in positions:
        newest_first = list(reversed(rounds.answers))
        tally = merge(
            rounds.requests,
            newest_first,
            target,
            missing_code=rounds.missing_code,
            missing_message=rounds.missing_message,
            rounds=True,
        )
        whole = _sum(whole, tally)
    return whole


def _sum(one: Tally, other: Tally) -> Tally:
    usage = dict(one.usage)
    for model, tokens in other.usage.items():
        usage[model] = _sum_tokens(usage.get(model, Tokens()), tokens)
    return Tally(
        lines=one.lines + other.lines,
        succeeded=one.succeeded + other.succeeded,
        failed=one.failed + other.failed,
        not_run=one.not_run + other.not_run,
        missing=one.missing + other.missing,
        surplus=one.surplus + other.surplus,
        surplus_succeeded=one.surplus_succeeded + other.surplus_succeeded,
        unreadable=one.unreadable + other.unreadable,
        size=one.size + other.size,
        in_input_order=one.in_input_order and other.in_input_order,
        usage=usage,
        notes=tuple(dict.fromkeys((*one.notes, *other.notes))),
    )


def _sum_tokens(one: Tokens, other: Tokens) -> Tokens:
    names = Tokens.__struct_fields__
    return Tokens(**{name: getattr(one, name) + getattr(other, name) for name in names})
