"""Ids: those we make, and what may be a provider's."""

from __future__ import annotations

MAX_ID_LENGTH = 256
ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@=+-]*$"
"""A provider's batch id: one plain token. No slash, so an id can never walk a URL's path."""

ENCODED_TIME_CHARACTERS = 9
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str, *, now: float, rand: bytes) -> str:
    """`evt_…`: sorts by time, is not to be guessed (80 random bits), and holds no dot.

    `rand` is 10 random bytes.
    """
    return f"{prefix}_{_base32(int(now * 1000), ENCODED_TIME_CHARACTERS)}" + _base32(
        int.from_bytes(rand[:10], "big"), 16
    )


def first_id(prefix: str, *, at: float) -> str:
    """What sorts before every id that is made from this time on, and after all made before it."""
    return f"{prefix}_{_base32(max(0, int(at * 1000)), ENCODED_TIME_CHARACTERS)}"


def _base32(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 32)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
