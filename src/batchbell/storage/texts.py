"""Text from outside, made fit to be kept."""

from __future__ import annotations

REPLACEMENT = "\ufffd"


def storable(text: str) -> str:
    """The text as both databases can keep it: one bad character must not spoil a whole write.

    NUL, which PostgreSQL refuses, and half a surrogate pair, which is no character, become
    U+FFFD.
    """
    if text.isascii():
        return text.replace("\0", REPLACEMENT) if "\0" in text else text
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\0", REPLACEMENT)
