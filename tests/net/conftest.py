"""Fixtures of the net room."""

from tests.net.raw_receivers import receive

__all__ = ["receive"]
