"""A fake of Groq's batches: OpenAI's, with a whole list, longer windows and fewer fields."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from batchbell.sandbox.jobs import Job
from batchbell.sandbox.provider import SandboxProvider
from batchbell.sandbox.schedule import Progress

PREFIX = "/groq"
PATH = "/openai/v1"
ROUTE = "groq."
MISSING = ("model", "usage")


class GroqJob(Job):
    """A batch of Groq's."""

    def as_object(self, at: Progress) -> dict[str, Any]:
        shown = Job.as_object(self, at)
        return {name: value for name, value in shown.items() if name not in MISSING}


class GroqProvider(SandboxProvider):
    """The state behind it, with all that a test may force."""

    job_type = GroqJob
    default_model = "openai/gpt-oss-120b"
    endpoints: ClassVar[frozenset[str]] = frozenset({"/v1/chat/completions"})
    windows = re.compile("24h|[1-7]d")
    lists_whole = True
