"""Joining what a provider leaves behind: output and error files, in the order of the input.

Nothing that the provider wrote is dropped, but for the same line twice. A request gets the answer
of its custom_id; where several requests or answers have the same one, the n-th request gets the
n-th answer, good ones first. What is left over, and lines that are no answers, come last.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec

from batchbell.core.results import Tally, Tokens
from batchbell.files.custom_ids import Numbers
from batchbell.files.lines import (
    UNREADABLE,
    Answer,
    Fate,
    Read,
    Spent,
    answer,
    custom_id,
    has_text_id,
    not_run,
    open_lines,
    read_lines,
    renamed,
    unreadable,
)

FLUSH_BYTES = 2**20
FATES = (Fate.SUCCEEDED, Fate.FAILED, Fate.NOT_RUN)
"""A good answer before a failed one, and any answer before none."""
BROKEN = 3
"""In place of a fate: a line that is no answer."""
NO_ROW = 2**32 - 1
GIVEN, REPEATED, NUMBERED = 1, 2, 4
"""Marks of a row: it has its request; another row has its custom_id before; and that is no text."""
BRACKETS = frozenset({b"[", b"]", b"],", b"[]"})
"""What stands alone in a file that is written as one array."""

_elements = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(slots=True)
class _Output:
    """Counts as the lines are written."""

    file: IO[bytes]
    fates: Counter[Fate] = field(default_factory=Counter)
    size: int = 0
    missing: int = 0
    """Lines of ours, for requests without an answer."""

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
    rounds: bool = False,
) -> Tally:
    """Write one line for every request to `target`, then what is left over.

    `input` is None where it cannot be had: the lines then stand as the files have them. A request
    that has no answer in any file of `answers` gets a line with the error `missing_code`. With
    `rounds` the files are rounds of the same requests, the newest first: an answer replaces those
    in later files.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(open_lines(path)) for path in answers]
        index = _Index(files, rounds=rounds)
        index.read()
        output = _Output(target)
        if input is not None:
            requests = stack.enter_context(open_lines(input))
            _write_in_order(requests, index, output, (missing_code, missing_message))
        matched = Counter(output.fates)
        if input is None:
            index.write_firsts(output)
            matched = Counter(output.fates)
        index.write_rest(output)
    return Tally(
        lines=output.fates.total(),
        succeeded=output.fates[Fate.SUCCEEDED],
        failed=output.fates[Fate.FAILED],
        not_run=output.fates[Fate.NOT_RUN],
        missing=output.missing,
        surplus=output.fates.total() - matched.total(),
        surplus_succeeded=output.fates[Fate.SUCCEEDED] - matched[Fate.SUCCEEDED],
        unreadable=index.broken,
        size=output.size,
        in_input_order=input is not None,
        usage=index.usage(),
        notes=tuple(index.notes),
    )


def merge_files(
    input: Path | None,
    answers: Sequence[Path],
    target: Path,
    *,
    missing_code: str,
    missing_message: str,
) -> Tally:
    """As `merge`, to a file that is made; call it in a child."""
    with target.open("wb", FLUSH_BYTES) as file:
        return merge(
            input, answers, file, missing_code=missing_code, missing_message=missing_message
        )


class _Index:
    """Where each answer stands: some 75 bytes a line, however long the lines are."""

    def __init__(self, files: Sequence[IO[bytes]], *, rounds: bool) -> None:
        self._files = files
        self._rounds = rounds
        self._firsts = Numbers()
        self._file = array("B")
        self._fate = array("B")
        self._offset = array("Q")
        self._length = array("I")
        self._marks = bytearray()
        self._next: array[int] | None = None
        """The next row of the same custom_id, from the first such row on."""
        self._last: dict[int, int] = {}
        """By the first row of a custom_id: the last one, where there are several."""
        self._queues: dict[int, deque[int]] = {}
        """By the first row of a custom_id: what was not given, the best first."""
        self._nameless = array("I")
        self._nameless_given = 0
        self._used: dict[str, Counter[str]] = {}
        self.notes: list[str] = []

    def read(self) -> None:
        """Go through the files once."""
        broken = twice = 0
        for number, file in enumerate(self._files):
            for line in read_lines(file):
                for piece in _pieces(line):
                    found = answer(piece.text) if piece.text else None
                    if found is None:
                        broken += 1
                        self._add(number, piece, BROKEN)
                    elif found.custom_id is None:
                        self._nameless.append(self._add(number, piece, FATES.index(found.fate)))
                        self._spend(found.spent)
                    else:
                        twice += not self._add_named(number, piece, found, found.custom_id)
        if broken:
            self.notes.append(f"{broken} lines could not be understood; they come last.")
        if twice:
            self.notes.append(f"{twice} lines were there twice, letter by letter; one is kept.")

    def _add(self, file: int, line: Read, fate: int, marks: int = 0) -> int:
        self._file.append(file)
        self._fate.append(fate)
        self._offset.append(line.offset)
        self._length.append(len(line.text))
        self._marks.append(marks)
        if self._next is not None:
            self._next.append(NO_ROW)
        return len(self._marks) - 1

    def _add_named(self, file: int, line: Read, found: Answer, name: str) -> bool:
        """False where the same line is there already."""
        row = len(self._marks)
        marks = 0 if found.is_text else NUMBERED
        first = self._firsts.add(name, row)
        if first != row:
            if self._rounds and self._file[first] != file:
                return True  # the newer answer counts
            last = self._last.get(first, first)
            if line.text in (self._text(first), self._text(last)):
                return False
            self._append(first, last, row)
            marks |= REPEATED
        self._add(file, line, FATES.index(found.fate), marks)
        self._spend(found.spent)
        return True

    def _append(self, first: int, last: int, row: int) -> None:
        if self._next is None:
            self._next = array("I", [NO_ROW]) * row
        self._next[last] = row
        self._last[first] = row

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

    @property
    def all_nameless(self) -> int:
        """How many answers there are, where none says whose it is; else 0."""
        return 0 if len(self._firsts) else len(self._nameless)

    def take(self, name: str) -> int | None:
        """The best answer to a request that none of its name was given; None without one."""
        first = self._firsts.get(name)
        if first is None:
            return None
        if first not in self._last:
            return None if self._marks[first] & GIVEN else self._give(first)
        queue = self._queues.get(first)
        if queue is None:
            rows = sorted(self._same(first), key=self._fate.__getitem__)
            queue = self._queues[first] = deque(rows)
        return self._give(queue.popleft()) if queue else None

    def _same(self, row: int) -> Iterator[int]:
        """The rows of one custom_id, from its first one on."""
        while row != NO_ROW:
            yield row
            row = NO_ROW if self._next is None else self._next[row]

    def take_nameless(self) -> int | None:
        """The next answer that does not say whose it is; None without one."""
        if self._nameless_given >= len(self._nameless):
            return None
        self._nameless_given += 1
        return self._give(self._nameless[self._nameless_given - 1])

    def _give(self, row: int) -> int:
        self._marks[row] |= GIVEN
        return row

    def write_firsts(self, output: _Output) -> None:
        """Write the best answer of each custom_id, where its first one stands."""
        for row, fate in enumerate(self._fate):
            if fate != BROKEN and not self._marks[row] & REPEATED:
                best = min(self._same(row), key=self._fate.__getitem__)
                self.write(self._give(best), output)

    @property
    def broken(self) -> int:
        """How many lines are no answers."""
        return self._fate.count(BROKEN)

    def write_rest(self, output: _Output) -> None:
        """Write what was not given, in the order of the files, and say so."""
        left = 0
        for row, marks in enumerate(self._marks):
            if not marks & GIVEN:
                left += self._fate[row] != BROKEN
                self.write(row, output)
        if left:
            self.notes.append(
                f"{left} answers are to no request, or to one that has an answer already; they"
                " come last."
            )

    def write(self, row: int, output: _Output, *, named: str | None = None) -> None:
        """Write the line of a row, under another custom_id where one is `named`."""
        text = self._text(row)
        if self._fate[row] == BROKEN:
            output.write(unreadable(text), Fate.FAILED)
        else:
            output.write(text if named is None else renamed(text, named), FATES[self._fate[row]])

    def is_numbered(self, row: int) -> bool:
        """Whether its custom_id is no text."""
        return bool(self._marks[row] & NUMBERED)

    def _text(self, row: int) -> bytes:
        file = self._files[self._file[row]].fileno()
        return os.pread(file, self._length[row], self._offset[row])


def _pieces(line: Read) -> Iterator[Read]:
    """The answers of a line: some files are written as one JSON array, in one line or in many."""
    text = line.text
    if not text.startswith(b"[") and not text.endswith((b",", b"]")):
        yield line
        return
    if text in BRACKETS:
        return
    bare = text.removesuffix(b",").rstrip()
    try:
        elements = _elements.decode(bare)
    except UNREADABLE:
        inner = bare.removeprefix(b"[").lstrip()
        if answer(inner) is None:
            inner = inner.removesuffix(b"]").rstrip().removesuffix(b",").rstrip()
        yield Read(line.number, line.offset + text.index(inner), inner) if answer(inner) else line
        return
    place = 0
    for element in elements:
        raw = bytes(element)
        place = text.index(raw, place)
        yield Read(line.number, line.offset + place, raw)
        place += len(raw)


def _write_in_order(
    requests: IO[bytes], index: _Index, output: _Output, missing: tuple[str, str]
) -> None:
    by_place = _is_by_place(requests, index)
    nameless = 0
    for line in read_lines(requests):
        name = custom_id(line.text)
        row = index.take_nameless() if by_place or name is None else index.take(name)
        if row is None and name is None:
            nameless += 1
        elif row is None:
            output.write(not_run(name, *missing), Fate.NOT_RUN)
            output.missing += 1
        else:
            other = by_place or (index.is_numbered(row) and has_text_id(line.text))
            index.write(row, output, named=name if other else None)
    if by_place:
        index.notes.append(
            f"The {index.all_nameless} answers have no custom_id. There is one for each request:"
            " they are taken to be in the same order."
        )
    if nameless:
        index.notes.append(f"{nameless} lines of the input have no custom_id and no answer.")


def _is_by_place(requests: IO[bytes], index: _Index) -> bool:
    """Whether only its place says whose an answer is: none is named, and there is one for each."""
    if not index.all_nameless:
        return False
    count = sum(1 for _ in read_lines(requests))
    requests.seek(0)
    return count == index.all_nameless
