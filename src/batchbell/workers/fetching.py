"""A provider's files of one batch, fetched and merged, for the collector.

Answers that are early or odd are asked for again: this try then fails, with the reason. Which of
them are taken in the end, and when, is decided in `core.results`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from batchbell.core import results as rules
from batchbell.core.errors import ProviderError, ProviderUnavailable
from batchbell.core.model import Batch, Snapshot
from batchbell.core.results import Tally
from batchbell.files.merging import merge
from batchbell.files.unpacking import unpack
from batchbell.providers.protocol import Provider
from batchbell.threads import heavy

FLUSH_BYTES = 2**20


class Fetching:
    """One try to merge the results of one batch."""

    def __init__(
        self, provider: Provider, batch: Batch, folder: Path, *, tries: int, most: int
    ) -> None:
        """`most` is how many bytes a file may have; `tries` counts this one too."""
        self._provider = provider
        self._batch = batch
        self._folder = folder
        self._tries = tries
        self._most = most
        self._notes: list[str] = []

    async def merge(self, target: Path) -> tuple[Tally, Snapshot | None]:
        """Write the lines to `target`. Returns also the batch as it is now, where it was asked for.

        Raises ProviderError.
        """
        known = self._batch.snapshot or Snapshot(id=self._batch.id, provider_status="", status=None)
        seen = await self._looked_at_again(known)
        input = await self._dispensable("input", seen.input_file_id, is_input=True)
        answers = []
        if seen.output_file_id is not None:
            answers.append(await self._fetch("output", seen.output_file_id))
        errors = await self._dispensable("error", seen.error_file_id)
        answers += [] if errors is None else [errors]
        if input is None and seen.input_file_id is not None:
            input = await self._dispensable("input", seen.input_file_id, is_input=True)
        tally = await heavy(self._batch.project_id, self._merge, input, answers, target)
        short = rules.shortfall(replace(self._batch, snapshot=seen), tally, tries=self._tries)
        if short is not None:
            raise ProviderUnavailable(short)
        noted = replace(tally, notes=(*tally.notes, *self._notes))
        return reconciled(replace(self._batch, snapshot=seen), noted), (
            None if seen is known else seen
        )

    async def _looked_at_again(self, known: Snapshot) -> Snapshot:
        """The batch, with the files that the provider has named since it ended."""
        waits = rules.awaits_files(self._batch, tries=self._tries)
        if not waits and not rules.asks_again(known, tries=self._tries):
            return known
        seen = await self._provider.retrieve(self._batch.id)
        if seen.status is not self._batch.status:
            raise ProviderUnavailable(
                f"The provider has not named the files of the results yet, and says"
                f" {seen.provider_status!r} of the batch."
            )
        if rules.awaits_files(replace(self._batch, snapshot=seen), tries=self._tries):
            raise ProviderUnavailable("The provider has not named the file of the results yet.")
        return seen

    async def _dispensable(
        self, name: str, file_id: str | None, *, is_input: bool = False
    ) -> Path | None:
        """A file that the results are merged without, where it cannot be had for long."""
        if file_id is None:
            return None
        try:
            return await self._fetch(name, file_id)
        except ProviderError as error:
            if not rules.may_do_without(error, tries=self._tries, is_input=is_input):
                raise
            if not is_input:
                self._notes.append(f"The {name} file could not be had: {error.message}")
            return None

    async def _fetch(self, name: str, file_id: str) -> Path:
        packed, path = self._folder / f"{name}.sent", self._folder / name
        arrived = await self._provider.results(
            file_id, packed, most_bytes=self._most, plain=self._tries > 1
        )
        owner = self._batch.project_id
        await heavy(owner, unpack, packed, path, arrived, most_bytes=self._most)
        packed.unlink(missing_ok=True)
        return path

    def _merge(self, input: Path | None, answers: list[Path], target: Path) -> Tally:
        code, message = rules.missing_answer(self._batch)
        with target.open("wb", FLUSH_BYTES) as file:
            return merge(input, answers, file, missing_code=code, missing_message=message)


def reconciled(batch: Batch, tally: Tally) -> Tally:
    """With a note where the provider counts something else than its files hold."""
    wrong = rules.mismatch(batch, tally)
    return replace(tally, notes=(*tally.notes, wrong)) if wrong else tally
