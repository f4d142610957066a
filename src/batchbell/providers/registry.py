"""Which adapter speaks to which provider."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from batchbell import __version__
from batchbell.core.errors import SettingsError
from batchbell.core.limits import Limits
from batchbell.core.model import Account
from batchbell.providers.api import Api
from batchbell.providers.openai import OpenAI
from batchbell.providers.protocol import Provider

Connect = Callable[[str, Mapping[str, str]], Api]
"""Makes HTTP under a base URL, with these headers on every call."""

Build = Callable[[Account, str, Connect, Callable[[], float]], Provider]


def open_provider(
    account: Account,
    api_key: str,
    *,
    connect: Connect,
    clock: Callable[[], float] = time.time,
) -> Provider:
    """The way to an account's provider. Nothing is called yet.

    Raises SettingsError for a provider that we do not know, or a key that cannot be sent.
    """
    build = ADAPTERS.get(account.provider)
    if build is None:
        known = ", ".join(sorted(ADAPTERS))
        raise SettingsError(
            f"Account {account.name!r} names the provider {account.provider!r}; known are: {known}."
        )
    key = api_key.strip()
    if not is_sendable(key):
        raise SettingsError(f"The API key of account {account.name!r} is empty or misspelt.")
    return build(account, key, connect, clock)


def is_sendable(api_key: str) -> bool:
    """Whether an API key can be a header's value."""
    return bool(api_key) and api_key.isascii() and api_key.isprintable() and " " not in api_key


def _openai(
    account: Account, api_key: str, connect: Connect, clock: Callable[[], float]
) -> Provider:
    headers = {**auth_headers(api_key), "User-Agent": f"Batchbell/{__version__}"}
    return OpenAI(connect(account.base_url, headers), secret=api_key, clock=clock)


def auth_headers(api_key: str) -> dict[str, str]:
    """How a call says whose it is, to a host that speaks OpenAI's dialect."""
    return {"Authorization": f"Bearer {api_key.strip()}"}


ADAPTERS: Mapping[str, Build] = {"openai": _openai}

LIMITS: Mapping[str, Limits] = {"openai": Limits()}
"""What each provider takes as one batch, by its own documents."""
