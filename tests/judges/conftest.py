from __future__ import annotations

from tests.sandbox.conftest import clock, sandbox

__all__ = ["clock", "sandbox"]
