"""The provider's state: files, batches and what was asked of it. No HTTP here."""

from __future__ import annotations

import random
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from yarl import URL

from batchbell.core.model import Status
from batchbell.sandbox.answers import ApiError, invalid, missing, no_batch
from batchbell.sandbox.faults import Faults
from batchbell.sandbox.files import EXPIRY_SECONDS, Files, StoredFile, expiry
from batchbell.sandbox.hooks import TRIES_MAX, Announcement, Headers, Hook, announcements, by_secret
from batchbell.sandbox.inputs import read_input
from batchbell.sandbox.jobs import Job
from batchbell.sandbox.schedule import ENDS, OPEN, Progress, Schedule

KEEP_SECONDS = 30 * 86_400
LOG_LENGTH = 10_000
DEFAULT_MODEL = "gpt-5-mini"
ENDPOINTS = frozenset(
    {
        "/v1/responses",
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/completions",
        "/v1/moderations",
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/videos",
    }
)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
LENIENT_INPUT = (
    b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",'
    b' "body": {"model": "sandbox", "messages": []}}\n'
)
"""What stands in a file that only a lenient sandbox knows."""


class SandboxProvider:
    """A fake of OpenAI's Files and Batches, whose batches end by the clock or by a test's word.

    Nothing runs in the background: where a batch stands is computed when somebody looks.
    `calls` counts the calls of each route, and `log` holds the latest (method, path).
    """

    job_type: ClassVar[type[Job]] = Job
    default_model: ClassVar[str] = DEFAULT_MODEL
    endpoints: ClassVar[frozenset[str]] = ENDPOINTS
    windows: ClassVar[re.Pattern[str]] = re.compile("24h")
    expiry_seconds: ClassVar[range] = EXPIRY_SECONDS
    lists_whole: ClassVar[bool] = False
    """Whether its list is one answer without a cursor."""

    def __init__(
        self,
        *,
        api_key: str | None = None,
        schedule: Schedule | None = None,
        clock: Callable[[], float] = time.time,
        seed: int | None = None,
    ) -> None:
        """Any key is accepted when `api_key` is None; `seed` makes the ids repeatable."""
        self.api_key = api_key
        self.schedule = schedule or Schedule()
        self.clock = clock
        self.lenient = False
        """Whether any id is taken for one of ours, as suites of SDKs with made-up ids need it."""
        self.hook: Hook | None = None
        """Where it sends a webhook when a batch has ended: see `Sandbox.ring`."""
        self.faults = Faults()
        self.calls: Counter[str] = Counter()
        self.log: deque[tuple[str, str]] = deque(maxlen=LOG_LENGTH)
        self._random = random.Random(seed)  # noqa: S311 - ids of a fake
        self._files = Files()
        self._jobs: dict[str, Job] = {}
        self._order: list[str] = []
        self._place: dict[str, int] = {}

    # Files -------------------------------------------------------------------------------

    def upload(
        self, content: bytes, *, filename: str, purpose: str, expires_after: object = None
    ) -> dict[str, Any]:
        """Store a file. Raises ApiError (400)."""
        now = self.clock()
        seconds = expiry(expires_after, name="expires_after", allowed=self.expiry_seconds)
        if seconds is None and purpose == "batch":
            seconds = KEEP_SECONDS
        return self._store(
            lambda: content,
            filename=filename,
            purpose=purpose,
            created_at=int(now),
            keep_seconds=seconds,
        ).as_object(now)

    def file(self, file_id: str) -> StoredFile:
        """Raises ApiError (404)."""
        return self._files.get(file_id, self.clock())

    def delete_file(self, file_id: str) -> dict[str, Any]:
        """Raises ApiError (404)."""
        return self._files.delete(file_id, self.clock())

    def file_page(
        self, *, purpose: str | None, after: str | None, limit: int, newest_first: bool
    ) -> dict[str, Any]:
        """One page of files. Looks at every batch first: those that ended have left files."""
        for job in self._jobs.values():
            if not job.settled:
                self._look(job)
        return self._files.page(
            self.clock(), purpose=purpose, after=after, limit=limit, newest_first=newest_first
        )

    # Batches -----------------------------------------------------------------------------

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make a batch as `POST /v1/batches` does. Raises ApiError (400)."""
        for name in ("input_file_id", "endpoint", "completion_window"):
            if not isinstance(body.get(name), str):
                raise missing(name)
        if body["endpoint"] not in self.endpoints:
            raise invalid("endpoint", f"expected one of {', '.join(sorted(self.endpoints))}.")
        if not self.windows.fullmatch(body["completion_window"]) and not self.lenient:
            raise invalid("completion_window", f"expected {self.windows.pattern!r}.")
        metadata = _metadata(body.get("metadata"))
        found = read_input(self._input(body["input_file_id"]), body["endpoint"])
        return self._begin(
            schedule=self.schedule.overridden(metadata or {}),
            total=len(found.requests),
            model=found.model,
            endpoint=body["endpoint"],
            completion_window=body["completion_window"],
            input_file_id=body["input_file_id"],
            metadata=metadata,
            requests=found.requests,
            problems=found.problems,
            keep_output_seconds=expiry(
                body.get("output_expires_after"),
                name="output_expires_after",
                allowed=self.expiry_seconds,
            ),
        )

    def retrieve(self, batch_id: str) -> dict[str, Any]:
        """A batch as it now stands. Raises ApiError (404)."""
        return self._look(self._job(batch_id))

    def page(
        self, *, after: str | None = None, limit: int = 20, skip: int = 0
    ) -> tuple[list[dict[str, Any]], bool]:
        """Newest first, and whether there are more; `skip` drops rows after the cursor.

        Costs as much as the page is long, however many batches there are.
        """
        place = len(self._order)
        if after is not None:
            if after not in self._place and not self.lenient:
                raise ApiError(400, f"No batch found with id '{after}'.", param="after")
            place = self._place.get(after, place)
        place -= skip
        jobs: list[Job] = []
        while place > 0 and len(jobs) <= limit:
            place -= 1
            job = self._jobs.get(self._order[place])
            if job is not None:
                jobs.append(job)
        return [self._look(job) for job in jobs[:limit]], len(jobs) > limit

    def shown(self, row: dict[str, Any], _url: URL) -> dict[str, Any]:
        """A batch as whoever called at this URL sees it."""
        return row

    def cancel(self, batch_id: str) -> dict[str, Any]:
        """Ask for an end. Raises ApiError: 404, or 409 once it has ended."""
        job = self._job(batch_id)
        now = self.clock()
        at = job.progress(now)
        if at.status in ENDS and not self.lenient:
            raise ApiError(409, f"Cannot cancel a batch with status '{at.status}'.")
        if job.cancel_asked_at is None:
            job.cancel_asked_at = now
        return self._look(job)

    # What a test may force ---------------------------------------------------------------

    def add_batch(
        self,
        *,
        total: int = 10,
        schedule: Schedule = OPEN,
        metadata: dict[str, str] | None = None,
        model: str | None = None,
        created_at: float | None = None,
        id: str | None = None,
    ) -> str:
        """A batch without an input file, newest in the list; it stays open until it is finished.

        Returns its id.
        """
        job = self.job_type(
            id=self._new_batch_id() if id is None else id,
            created_at=self.clock() if created_at is None else created_at,
            schedule=schedule,
            total=total,
            model=model or self.default_model,
            input_file_id=self._new_file_id(),
            metadata=metadata,
        )
        self._keep(job)
        return job.id

    def add_batches(self, number: int, **same: Any) -> list[str]:
        """Many batches as `add_batch` makes them; the ids, oldest first."""
        return [self.add_batch(**same) for _ in range(number)]

    def finish(
        self,
        batch_id: str,
        status: Status | str = Status.COMPLETED,
        *,
        completed: int | None = None,
        failed: int = 0,
        problems: Sequence[dict[str, Any]] = (),
    ) -> None:
        """End a batch now. All requests are executed unless `completed` says how many worked.

        `problems` are the `errors.data` of a `failed` one; over quota when none are given.
        """
        job, status = self._job(batch_id), Status(status)
        if status not in ENDS:
            raise ValueError(f"{status} is no end; see set_status")
        now = self.clock()
        stamps = {**job.progress(now).stamps, f"{status}_at": int(now)}
        if status is Status.FAILED:
            completed = failed = 0
            job.problems = tuple(problems)
        else:
            stamps.setdefault("in_progress_at", int(job.created_at))
        if status in (Status.COMPLETED, Status.EXPIRED):
            stamps.setdefault("finalizing_at", int(now))
        done = job.total - failed if completed is None else completed
        job.forced, job.word, job.counts = Progress(status, done, failed, stamps), None, None
        job.settled, job.output_file_id, job.error_file_id = False, None, None

    def set_status(
        self, batch_id: str, word: str | None, *, completed: int | None = None, failed: int = 0
    ) -> None:
        """Show this word, and these counts, until the next call; None shows the truth again."""
        job = self._job(batch_id)
        job.word = word
        job.counts = None if completed is None else (completed, failed)

    def forget(self, batch_id: str) -> None:
        """Lose a batch: 404 from now on, and absent from the list."""
        del self._jobs[self._job(batch_id).id]

    # Its webhooks ------------------------------------------------------------------------

    def to_announce(self) -> list[Announcement]:
        """Webhooks about batches that have ended since, and whose last try has failed."""
        now = self.clock()
        return [
            one
            for job in self._jobs.values()
            if job.announced < TRIES_MAX and (targets := self._targets(job))
            if (at := job.progress(now)).status in ENDS
            for one in announcements(job.id, self._event(job, at), targets, now)
        ]

    def note_announced(self, batch_id: str, *, arrived: bool) -> None:
        """One that has arrived is not sent again."""
        if job := self._jobs.get(batch_id):
            job.announced = TRIES_MAX if arrived else job.announced + 1

    def _targets(self, job: Job) -> Mapping[str, Headers]:
        """Whom to call, and how each call is signed."""
        hook = self.hook
        return {} if hook is None else {hook.url: by_secret(f"evt_{job.id}", hook.secret)}

    def _event(self, job: Job, at: Progress) -> Mapping[str, Any]:
        return {
            "id": f"evt_{job.id}",
            "object": "event",
            "type": f"batch.{at.status}",
            "created_at": at.stamps[f"{at.status}_at"],
            "data": {"id": job.id},
        }

    # Inside ------------------------------------------------------------------------------

    def _job(self, batch_id: str) -> Job:
        if batch_id not in self._jobs and self.lenient:
            self.add_batch(id=batch_id)
        job = self._jobs.get(batch_id)
        if job is None:
            raise self._no_batch(batch_id)
        return job

    def _no_batch(self, batch_id: str) -> ApiError:
        return no_batch(batch_id)

    def _begin(self, *, schedule: Schedule | None = None, **asked: Any) -> dict[str, Any]:
        """A batch that somebody asked for, as it is shown at once."""
        job = self.job_type(
            id=self._new_batch_id(),
            created_at=self.clock(),
            schedule=schedule or self.schedule,
            **asked,
        )
        self._keep(job)
        return self._look(job)

    def _new_batch_id(self) -> str:
        return self._new_id("batch_", 32, "0123456789abcdef")

    def _new_file_id(self) -> str:
        return self._new_id("file-", 22, ALPHABET)

    def _keep(self, job: Job) -> None:
        self._place[job.id] = len(self._order)
        self._order.append(job.id)
        self._jobs[job.id] = job

    def _look(self, job: Job) -> dict[str, Any]:
        at = job.progress(self.clock())
        if at.status in ENDS and not job.settled:
            self._settle(job, at)
        return job.as_object(at)

    def _settle(self, job: Job, at: Progress) -> None:
        job.settled = True
        if at.status is Status.FAILED:
            return
        skipped = job.total - at.done if at.status is not Status.COMPLETED else 0
        if at.completed:
            make = job.writer(at).output
            job.output_file_id = self._left_behind(job, at, "output", make)
        if at.failed or skipped:
            make = job.writer(at).errors
            job.error_file_id = self._left_behind(job, at, "error", make)

    def _left_behind(self, job: Job, at: Progress, kind: str, make: Callable[[], bytes]) -> str:
        return self._store(
            make,
            filename=f"{job.id}_{kind}.jsonl",
            purpose="batch_output",
            created_at=at.stamps[f"{at.status}_at"],
            keep_seconds=job.keep_output_seconds or KEEP_SECONDS,
        ).id

    def _store(
        self,
        make: Callable[[], bytes],
        *,
        filename: str,
        purpose: str,
        created_at: int,
        keep_seconds: int | None,
    ) -> StoredFile:
        file = StoredFile(
            id=self._new_file_id(),
            filename=filename,
            purpose=purpose,
            created_at=created_at,
            expires_at=None if keep_seconds is None else created_at + keep_seconds,
            make=make,
        )
        self._files.put(file)
        return file

    def _input(self, file_id: str) -> bytes:
        try:
            file = self.file(file_id)
        except ApiError:
            if self.lenient:
                return LENIENT_INPUT
            text = f"Cannot find file with id '{file_id}'."
            raise ApiError(400, text, param="input_file_id") from None
        if file.purpose != "batch":
            text = "The purpose of the input file must be 'batch'."
            raise ApiError(400, text, param="input_file_id")
        return file.content

    def _new_id(self, prefix: str, length: int, alphabet: str) -> str:
        return prefix + "".join(self._random.choices(alphabet, k=length))


def _metadata(pairs: object) -> dict[str, str] | None:
    if pairs is None:
        return None
    if not isinstance(pairs, dict) or len(pairs) > 16:
        raise invalid("metadata", "expected at most 16 pairs.")
    for key, value in pairs.items():
        if not isinstance(value, str) or len(key) > 64 or len(value) > 512:
            raise invalid(f"metadata.{key}", "expected a string of at most 512 characters.")
    return pairs
