"""What an HTTP answer of a provider is worth.

An answer is final only where it comes in the API's own error shape, and repeating cannot help.
Anything else may be the page or the JSON of a proxy in front of the API (Kong, Envoy, FastAPI,
APISIX, Spring, nginx), which knows nothing of batches: it is doubtful, and asked again.

What the own error shape looks like, each adapter says (`Shape`); all else is the same for all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from batchbell.core import backoff
from batchbell.core.errors import (
    ProviderAuthError,
    ProviderBillingError,
    ProviderError,
    ProviderNotFound,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
)

MESSAGE_MAX_CHARACTERS = 300
READ_MAX_BYTES = 65_536
"""No error is longer; what is, is read no further."""
SECRET_LEAST_CHARACTERS = 7
"""A shorter key is a placeholder, such as `EMPTY`, and may stand in a text for other reasons."""
KEY_LIKE = re.compile(
    r"\b(sk|bb|whsec|gsk|xai)[-_][A-Za-z0-9*_.-]{3,}|\bAIza[A-Za-z0-9*_-]{3,}|(?i:bearer)\s+\S+"
)

BILLING_CODE = re.compile(
    r"billing|insufficient_(quota|balance|funds?|credits?)|payment_required|credit_balance"
    r"|arrear|exceeded_current_quota|out_of_credits?|balance_(not_enough|insufficient)",
    re.IGNORECASE,
)
BILLING_WORDS = re.compile(
    r"exceeded your current quota|insufficient (quota|balance|funds?|credits?)"
    r"|billing (hard )?limit|check your (plan and )?billing|credit balance is too low"
    r"|payment required|in arrears|out of credits|(recharge|top up) your",
    re.IGNORECASE,
)
RATE_CODE = re.compile(
    r"rate_?limit|too_?many_?requests|throttl|token_limit_exceeded|resource_exhausted",
    re.IGNORECASE,
)
KEY_CODE = re.compile(r"api_?key_(invalid|expired)|invalid_api_?key|unauthenticated", re.IGNORECASE)
"""Google refuses a key with 400."""
PASSING_STATUSES = frozenset({407, 408, 409, 421, 423, 425, 429, 449, 499})
PASSING_WORDS = re.compile(
    r"(try|retry) (this |the request |your request )?(again|later)(?! (with|using)\b)"
    r"|please retry|temporar(y|ily)|overloaded|not (yet )?ready|not yet (available|processed)"
    r"|still (being )?process|timed? ?out|unavailable",
    re.IGNORECASE,
)
UNKNOWN_URL = re.compile(
    r"(unknown|invalid|unrecognized|unrecognised)[ _](request[ _])?(url|path|route|endpoint)"
    r"|no (such )?route|route not found|deployment",
    re.IGNORECASE,
)
ABSENT = re.compile(
    r"no such|\bno \w+ (was )?(found|with)|not (be )?found|not_found|(not|n't) exist|unknown"
    r"|(can ?not|can't|could ?n[o']t|unable to) (find|locate)|deleted|expired|no longer",
    re.IGNORECASE,
)
UNSEEN = re.compile(r"may not exist", re.IGNORECASE)
"""Google refuses what is not there with 403, lest strangers learn what is."""
PATH = re.compile(r"\S*/\S*")
REQUESTED = re.compile(r"requested (entity|resource|object)", re.IGNORECASE)
"""How Google names what was asked for, whatever it is."""


class Verdict(StrEnum):
    """What an answer is worth; each but the first is raised as an error of `core.errors`."""

    ACCEPTED = "accepted"
    NOT_FOUND = "not_found"
    """The API itself says that it has nothing of this very id."""
    AUTH = "auth"
    BILLING = "billing"
    RATE_LIMITED = "rate_limited"
    REJECTED = "rejected"
    """The API itself refuses this request, and will again."""
    DOUBTFUL = "doubtful"
    """It proves nothing. Ask again."""


ERROR_OF: Mapping[Verdict, type[ProviderError]] = {
    Verdict.NOT_FOUND: ProviderNotFound,
    Verdict.AUTH: ProviderAuthError,
    Verdict.BILLING: ProviderBillingError,
    Verdict.RATE_LIMITED: ProviderRateLimited,
    Verdict.REJECTED: ProviderRejected,
    Verdict.DOUBTFUL: ProviderUnavailable,
}


@dataclass(frozen=True, slots=True)
class Complaint:
    """An error in the API's own shape. `codes` are its stable words, the most specific first."""

    message: str | None
    codes: tuple[str, ...] = ()
    wait_seconds: float | None = None
    """What it asks to wait, where no header does."""

    def matches(self, codes: re.Pattern[str], words: re.Pattern[str] | None = None) -> bool:
        """Whether a code, or the message, is one of these."""
        named = words is not None and words.search(self.message or "") is not None
        return named or any(codes.search(code) for code in self.codes)


Shape = Callable[[Any], Complaint | None]
"""Reads the API's own error shape from parsed JSON; None for everything else."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What was asked for: a `batch` or a `file`, by its id."""

    noun: str
    id: str


def judge(status: int, complaint: Complaint | None, *, about: Subject | None = None) -> Verdict:
    """What an answer of this status is worth; `complaint` is None where it is not the API's own.

    A 2xx with a complaint is no success. `about` is what was asked for by its id, if anything.
    """
    if 200 <= status < 300:
        return Verdict.ACCEPTED if complaint is None else _by_words(complaint) or Verdict.DOUBTFUL
    if status in (401, 402):
        return Verdict.AUTH if status == 401 else Verdict.BILLING
    if not 400 <= status < 500:
        return Verdict.DOUBTFUL
    if complaint is None:
        return Verdict.RATE_LIMITED if status == 429 else Verdict.DOUBTFUL
    return _by_words(complaint) or _by_status(status, complaint, about)


def _by_words(complaint: Complaint) -> Verdict | None:
    if complaint.wait_seconds is None and complaint.matches(BILLING_CODE, BILLING_WORDS):
        return Verdict.BILLING
    return Verdict.RATE_LIMITED if complaint.matches(RATE_CODE) else None


def _by_status(status: int, complaint: Complaint, about: Subject | None) -> Verdict:
    if status == 429:
        return Verdict.RATE_LIMITED
    if status in (404, 410):
        return _absence(complaint, about)
    unseen = status == 403 and complaint.matches(UNSEEN, UNSEEN)
    if unseen and about is not None and _names(complaint, about):
        return Verdict.NOT_FOUND
    if status in PASSING_STATUSES or complaint.matches(PASSING_WORDS, PASSING_WORDS):
        return Verdict.DOUBTFUL
    refused = status == 403 or complaint.matches(KEY_CODE)
    return Verdict.AUTH if refused else Verdict.REJECTED


def _absence(complaint: Complaint, about: Subject | None) -> Verdict:
    """A 404 is about what was asked for only where it says so; most are about the address."""
    if complaint.matches(UNKNOWN_URL, UNKNOWN_URL):
        return Verdict.DOUBTFUL
    if about is None:
        return Verdict.REJECTED
    return Verdict.NOT_FOUND if _names(complaint, about) else Verdict.DOUBTFUL


def _names(complaint: Complaint, about: Subject) -> bool:
    """Whether it names the id, outside a path, or says that there is no such batch or file."""
    message = complaint.message or ""
    if re.search(rf"(?<![\w/]){re.escape(about.id)}(?!\w)", message):
        return True
    words = " ".join([PATH.sub(" ", message), *complaint.codes])
    named = about.noun in words.lower() or REQUESTED.search(words) is not None
    return named and ABSENT.search(words) is not None


def refusal(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    shape: Shape,
    now: float,
    about: Subject | None = None,
    secret: str = "",
) -> ProviderError:
    """The error that an answer stands for: any but 2xx, or a 2xx that holds a complaint.

    Its message is the provider's own, shortened, and without `secret` or what looks like a key.
    """
    answer = _parsed(body)
    complaint = shape(answer)
    verdict = judge(status, complaint, about=about)
    type_ = ERROR_OF.get(verdict, ProviderUnavailable)
    message = (complaint and complaint.message) or _said(answer)
    wait = wait_seconds(headers, now=now)
    if wait is None and complaint is not None:
        wait = complaint.wait_seconds
    if verdict is Verdict.RATE_LIMITED and wait is None:
        wait = backoff.duration_seconds(headers.get("x-ratelimit-reset-requests"))
    return type_(
        clean(message or _plain(status, headers, body), secret),
        status=status,
        code=next(iter(complaint.codes), None) if complaint else None,
        retry_after_seconds=wait,
        from_api=complaint is not None,
    )


def check_whole(status: int, body: bytes) -> None:
    """Raise ProviderUnavailable for a 2xx without the JSON that was asked for."""
    start = body[:100].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start:
        raise ProviderUnavailable(f"The answer is empty ({status}).", status=status)
    if start.startswith(b"<"):
        raise ProviderUnavailable(
            f"The answer is a web page, not the API's ({status}): is the base URL right?",
            status=status,
        )


def _parsed(body: bytes) -> Any:
    if len(body) > READ_MAX_BYTES:
        return None
    try:
        return json.loads(body.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return None


def _said(answer: Any) -> str | None:
    """What JSON of whoever it is says, for people to read."""
    if not isinstance(answer, dict):
        return None
    inner = answer.get("error")
    places = (inner, answer) if isinstance(inner, dict) else (answer,)
    names = ("message", "error", "detail", "error_msg", "msg", "title")
    texts = (place.get(name) for place in places for name in names)
    return next((text for text in texts if isinstance(text, str) and text.strip()), None)


def _plain(status: int, headers: Mapping[str, str], body: bytes) -> str:
    if 300 <= status < 400:
        where = headers.get("location", "another address")
        return f"The provider redirects to {where}: is the base URL right?"
    if status in (404, 410):
        return f"Something that is not the provider's API answered {status}: is the base URL right?"
    if body.lstrip()[:1] == b"<":
        return f"The answer is a web page, not the API's ({status})."
    return f"The provider answered {status}."


def clean(text: str, secret: str) -> str:
    """Short, printable, and without keys: providers like to quote the key that they refuse."""
    if len(secret) >= SECRET_LEAST_CHARACTERS:
        text = text.replace(secret, "[key]")
    text = KEY_LIKE.sub("[key]", text[: 4 * MESSAGE_MAX_CHARACTERS])
    text = "".join(c if c.isprintable() else " " for c in text).strip()
    return text if len(text) <= MESSAGE_MAX_CHARACTERS else text[:MESSAGE_MAX_CHARACTERS] + "…"


def wait_seconds(headers: Mapping[str, str], *, now: float) -> float | None:
    """`retry-after-ms`, else `retry-after`, as seconds from now; None without a sensible one."""
    milliseconds = headers.get("retry-after-ms", "").strip()
    if re.fullmatch(r"\d{1,12}(\.\d{1,12})?", milliseconds, re.ASCII):
        return min(float(milliseconds) / 1000, backoff.RETRY_AFTER_MAX_SECONDS)
    return backoff.retry_after(headers.get("retry-after"), now=now)
