"""Ids: those we make, and what may be a provider's."""

from __future__ import annotations

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
EVENT_ID = rf"evt_[{ALPHABET}]{{25}}"
"""The pattern of an event's id."""


def new_id(prefix: str, *, now: float, rand: bytes) -> str:
    """`evt_…`: sorts by time, is not to be guessed (80 random bits), and holds no dot.

    `rand` is 10 random bytes.
    """
    return f"{prefix}_{_base32(int(now * 1000), ENCODED_TIME_CHARACTERS)}" + _base32(
        int.from_bytes(rand[:10], "big"), 16
    )


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
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 32)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
