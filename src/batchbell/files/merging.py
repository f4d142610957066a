"""Joining what a provider leaves behind: output and error files, in the order of the input."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from batchbell.core.results import Tally, Tokens
from batchbell.files.lines import Fate, Spent, answer, custom_id, not_run, open_lines, read_lines


@dataclass(slots=True)
class _Spot:
    """Where the line of one request stands."""

    file: int
    offset: int
    length: int
    fate: Fate
    written: bool = False


@dataclass(slots=True)
class _Output:
    """Counts as the lines are written."""

    file: IO[bytes]
    fates: Counter[Fate] = field(default_factory=Counter)
    size: int = 0

    def write(self, line: bytes, fate: Fate) -> None:
        ended = line + b"\n"
        self.fates[fate] += 1
        self.size += len(ended)
        self.file.write(ended)


def merge(
    input: Path | None,
    answers: Sequence[Path],
    target: IO[bytes],
    *,
    missing_code: str,
    missing_message: str,
) -> Tally:
    """Write one line for every request to `target`; call it in a thread.

    `input` is None where the provider has it no more. What is in no file of `answers` gets a
    line with the error `missing_code`. Of several lines for one request the first counts, so
    the output file is to be named before the error file.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(open_lines(path)) for path in answers]
        index = _Index(files)
        index.read()
        output = _Output(target)
        if input is not None:
            requests = stack.enter_context(open_lines(input))
            _write_in_order(requests, index, output, (missing_code, missing_message))
        left_over = index.write_rest(output)
    if input is not None and left_over:
        index.notes.append(f"{left_over} answers are to no request of the input; they come last.")
    return Tally(
        lines=sum(output.fates.values()),
        succeeded=output.fates[Fate.SUCCEEDED],
        failed=output.fates[Fate.FAILED],
        not_run=output.fates[Fate.NOT_RUN],
        size=output.size,
        in_input_order=input is not None,
        usage=index.usage(),
        notes=tuple(index.notes),
    )


class _Index:
    """Where each request's answer stands."""

    def __init__(self, files: Sequence[IO[bytes]]) -> None:
        self._files = files
        self._spots: dict[str, _Spot] = {}
        self._used: dict[str, Counter[str]] = {}
        self.notes: list[str] = []

    def read(self) -> None:
        unreadable = repeated = 0
        for number, file in enumerate(self._files):
            for line in read_lines(file):
                found = answer(line.text)
                if found is None:
                    unreadable += 1
                elif found.custom_id in self._spots:
                    repeated += 1
                else:
                    spot = _Spot(number, line.offset, len(line.text), found.fate)
                    self._spots[found.custom_id] = spot
                    self._spend(found.spent)
        if unreadable:
            self.notes.append(f"{unreadable} lines could not be understood and were left out.")
        if repeated:
            self.notes.append(f"{repeated} answers were there twice; the first ones count.")

    def _spend(self, spent: Spent | None) -> None:
        if spent is None:
            return
        used = self._used.setdefault(spent.model, Counter())
        used["requests"] += 1
        used["input_tokens"] += spent.input_tokens
        used["cached_tokens"] += spent.cached_tokens
        used["output_tokens"] += spent.output_tokens
        used["reasoning_tokens"] += spent.reasoning_tokens

    def usage(self) -> dict[str, Tokens]:
        return {model: Tokens(**used) for model, used in sorted(self._used.items())}

    def take(self, identity: str) -> tuple[bytes, Fate] | None:
        """The answer to a request, unless there is none."""
        spot = self._spots.get(identity)
        if spot is None:
            return None
        spot.written = True
        return self._text(spot), spot.fate

    def write_rest(self, output: _Output) -> int:
        """Write what was not taken, in the order of the files; returns how many."""
        rest = [spot for spot in self._spots.values() if not spot.written]
        for spot in rest:
            output.write(self._text(spot), spot.fate)
        return len(rest)

    def _text(self, spot: _Spot) -> bytes:
        return os.pread(self._files[spot.file].fileno(), spot.length, spot.offset)


def _write_in_order(
    requests: IO[bytes], index: _Index, output: _Output, missing: tuple[str, str]
) -> None:
    nameless = 0
    for identity in _identities(requests):
        if identity is None:
            nameless += 1
            continue
        found = index.take(identity)
        if found is None:
            output.write(not_run(identity, *missing), Fate.NOT_RUN)
        else:
            output.write(*found)
    if nameless:
        index.notes.append(f"{nameless} lines of the input have no custom_id and were left out.")


def _identities(requests: IO[bytes]) -> Iterator[str | None]:
    for line in read_lines(requests):
        yield custom_id(line.text)
