from __future__ import annotations

from tests.sandbox.conftest import clock, sandbox
from tests.web.conftest import account, accounts, listening, provider_url, rules, served

__all__ = [
    "account",
    "accounts",
    "clock",
    "listening",
    "provider_url",
    "rules",
    "sandbox",
    "served",
]
