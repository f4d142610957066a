"""How many tokens may wait at a provider at once: learnt for each account and model.

Nobody's tokenizer is needed. What a batch will use is guessed from its size, by what earlier ones
used for theirs; how much fits is learnt from what the provider refused, and forgotten after a
day, because accounts are moved to higher tiers.
"""

from __future__ import annotations

import math
import re

from msgspec import Struct
from msgspec.structs import replace

BYTES_PER_TOKEN = 4.0
"""Of JSON text, as a first guess."""
GUESS_TOKENS = 1_000
"""How much the first guess weighs against what was really used."""
MEMORY_TOKENS = 10_000_000
"""Beyond this the older half of what was seen counts half: models and prompts change."""
CAP_SECONDS = 86_400.0
HEADROOM = 0.9
"""Of what was refused without a word on how much would have been right."""
HALF = 0.6
"""A little more, because requests are not alike and no third part should be left over."""
DOUBTFUL_TRIES = 3
GUESS_WRONG_BY = 4
"""No text has so many times the tokens that we guess."""

TOKEN_LIMIT = "token_limit_exceeded"  # noqa: S105 - a code that hosts answer
NO_ROOM = re.compile(
    r"enqueued[ _-]?(token|request|batch)|token[ _]limit[ _](is )?exceeded|quota|queue is full"
    r"|too many (enqueued |active |concurrent |pending |open )?(batch|job)"
    r"|(concurrent|active|pending|enqueued) (batch(es)?|jobs?)[^.]*(limit|max|exceed)"
    r"|(limit|max(imum)?)[^.]*(concurrent|active|pending|enqueued) (batch|job)",
    re.IGNORECASE,
)
"""How hosts say that no more batches may wait for now."""
LIMIT = re.compile(r"limit:?\s*([\d,_]+)\s*enqueued tokens", re.IGNORECASE)


class Learnt(Struct, frozen=True, kw_only=True):
    """What is known of one account and model."""

    bytes: float = 0.0
    tokens: float = 0.0
    """What so many bytes of requests used."""
    cap: int | None = None
    """Enqueued tokens, in all."""
    cap_at: float = 0.0
    """When that was learnt."""
    stated: bool = False
    """Whether the provider named it."""

    @property
    def bytes_per_token(self) -> float:
        guess = BYTES_PER_TOKEN * GUESS_TOKENS
        return (self.bytes + guess) / (self.tokens + GUESS_TOKENS)

    def cap_in_force(self, now: float) -> int | None:
        """None where nothing is known that is still worth something."""
        return self.cap if now < self.cap_at + CAP_SECONDS else None


def estimate(learnt: Learnt, size: int) -> int:
    """The prompt tokens of so many bytes of requests."""
    return math.ceil(size / learnt.bytes_per_token)


def has_room(learnt: Learnt, *, enqueued: int, tokens: int, now: float) -> bool:
    """Whether so many more tokens fit. What would be alone is always tried."""
    cap = learnt.cap_in_force(now)
    return cap is None or enqueued == 0 or enqueued + tokens <= cap


def used(learnt: Learnt, *, size: int, tokens: int) -> Learnt:
    """After a batch of `size` bytes has used `tokens`."""
    if size <= 0 or tokens <= 0:
        return learnt
    more = replace(learnt, bytes=learnt.bytes + size, tokens=learnt.tokens + tokens)
    if more.tokens <= MEMORY_TOKENS:
        return more
    return replace(more, bytes=more.bytes / 2, tokens=more.tokens / 2)


def refused(learnt: Learnt, *, enqueued: int, stated: int | None, now: float) -> Learnt:
    """After a batch was refused that would have made it `enqueued` tokens in all.

    `stated` is the provider's own word on how many are allowed.
    """
    cap = stated
    if cap is None:
        known = learnt.cap_in_force(now)
        cap = int(HEADROOM * (enqueued if known is None else min(enqueued, known)))
    return replace(learnt, cap=max(1, cap), cap_at=now, stated=stated is not None)


def split_at(learnt: Learnt, *, tokens: int, tries: int, now: float) -> int | None:
    """At how many tokens to split what was guessed to have so many; None where it may stay whole.

    Only a cap that the provider named is believed: what it refuses without a number may be full of
    the batches of others. A guess may be too low: what is refused again and again is split too.
    """
    cap = learnt.cap_in_force(now)
    if cap is None or not learnt.stated:
        return None
    if tokens > cap or (tries >= DOUBTFUL_TRIES and tokens > cap / GUESS_WRONG_BY):
        return max(1, min(cap, math.ceil(HALF * tokens)))
    return None


def passed(learnt: Learnt, *, enqueued: int) -> Learnt:
    """After so many tokens were taken: the cap is not lower than that."""
    if learnt.cap is None or enqueued <= learnt.cap:
        return learnt
    return replace(learnt, cap=enqueued)


def says_no_room(code: str | None, message: str | None) -> bool:
    """Whether a refusal means that too much is enqueued: the one thing that waiting mends."""
    return code == TOKEN_LIMIT or bool(NO_ROOM.search(f"{code or ''} {message or ''}"))


def stated_limit(message: str | None) -> int | None:
    """The number in `… Limit: 90,000 enqueued tokens …`."""
    found = LIMIT.search(message or "")
    digits = re.sub(r"\D", "", found[1]) if found else ""
    return int(digits[:15]) if digits else None
