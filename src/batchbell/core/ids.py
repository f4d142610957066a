"""Ids: those we make, and what may be a provider's."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from struct import Struct

MAX_ID_LENGTH = 512
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@=+-]*$"
"""The name of an account or project: one plain token."""
ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@=+~-]*(?:/[A-Za-z0-9_:@=+~-][A-Za-z0-9._:@=+~-]*)*$"
"""A provider's batch id: plain tokens with slashes between them, as in `batches/abc123`.

None of them begins with a dot, so an id never climbs out of a URL's path, even where a proxy has
decoded its slashes.
"""

ENCODED_TIME_CHARACTERS = 9
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
PAIRS = tuple(one + two for one in ALPHABET for two in ALPHABET)
EVENT_ID = rf"evt_[{ALPHABET}]{{25}}"
"""The pattern of an event's id."""


def new_id(prefix: str, *, now: float, rand: bytes) -> str:
    """`evt_…`: sorts by time, is not to be guessed (80 random bits), and holds no dot.

    `rand` is 10 random bytes.
    """
    return f"{prefix}_{_base32(int(now * 1000), ENCODED_TIME_CHARACTERS)}" + _base32(
        int.from_bytes(rand[:10], "big"), 16
    )


RANDOM_BITS = 80
STEP_BITS = RANDOM_BITS - 16
"""What the step to the next id of a moment is made of: as hard to guess as an id."""
STEPS = Struct(">64Q")
"""So many steps are drawn at once: the system takes as long for one."""


class Minter:
    """Makes ids that sort in the order in which they are made, whatever the clock does.

    Within a millisecond, and while the clock is behind the last id, the next id is a random step
    beyond the last one. Whoever calls from several threads keeps them apart.
    """

    def __init__(self, *, clock: Callable[[], float], randomness: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._randomness = randomness
        self._last = 0
        self._steps: list[int] = []

    def __call__(self, prefix: str) -> str:
        fresh = int(self._clock() * 1000) << RANDOM_BITS
        if fresh > self._last:
            # The first of a moment leaves room for others behind it.
            self._last = fresh | int.from_bytes(self._randomness(RANDOM_BITS // 8), "big") >> 1
        else:
            if not self._steps:
                self._steps += STEPS.unpack(self._randomness(STEPS.size))
            self._last += 1 + self._steps.pop()
        return _encoded(prefix, self._last)


def id_after(id: str, fresh: str) -> str:
    """An id that sorts behind another of the same prefix, by a step that a `fresh` one chooses."""
    prefix = id.partition("_")[0]
    return _encoded(prefix, _number(id) + 1 + _number(fresh) % (1 << STEP_BITS))


def _number(id: str) -> int:
    number = 0
    for digit in id.partition("_")[2]:
        number = number * 32 + ALPHABET.index(digit)
    return number


def _encoded(prefix: str, number: int) -> str:
    """Written out, as this is a third of what an id costs, and each webhook takes four of them."""
    p, a, b = PAIRS, number >> 40 & FORTY_BITS, number & FORTY_BITS
    return (
        f"{_begin(prefix, number >> RANDOM_BITS)}"
        f"{p[a >> 30]}{p[a >> 20 & 1023]}{p[a >> 10 & 1023]}{p[a & 1023]}"
        f"{p[b >> 30]}{p[b >> 20 & 1023]}{p[b >> 10 & 1023]}{p[b & 1023]}"
    )


FORTY_BITS = (1 << 40) - 1


@lru_cache(16)
def _begin(prefix: str, moment: int) -> str:
    """What ids of the same millisecond begin with."""
    return f"{prefix}_{_base32(moment, ENCODED_TIME_CHARACTERS)}"


def first_id(prefix: str, *, at: float) -> str:
    """What sorts before every id that is made from this time on, and after all made before it."""
    return new_id(prefix, now=max(0.0, at), rand=bytes(10))


def time_of(id: str) -> float:
    """When an id of ours was made: seconds since the epoch, to the millisecond."""
    digits = id.partition("_")[2][:ENCODED_TIME_CHARACTERS]
    number = 0
    for digit in digits:
        number = number * 32 + ALPHABET.index(digit)
    return number / 1000


def _base32(number: int, width: int) -> str:
    pairs = [PAIRS[number >> bits & 1023] for bits in range(10 * ((width - 1) // 2), -1, -10)]
    return "".join(pairs)[-width:]
