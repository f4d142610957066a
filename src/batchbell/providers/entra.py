"""Signs in with Entra ID, for accounts of the operator's that have no API key.

`azure-identity`, of the extra `azure`, finds out who this process is: a workload or a managed
identity, variables of a service principal, or the Azure CLI. A token lasts for about an hour, and
is asked for again before it ends.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec

from batchbell.core.errors import ProviderAuthError

SCOPE = "https://cognitiveservices.azure.com/.default"
SIGN_IN = "entra:sign-in"
"""Stands where an API key would. It counts for accounts that are declared, and for no others: who
adds one by API may not call as this process."""
TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*", re.ASCII)
"""What a token looks like, and no key does."""
EARLY_SECONDS = 300.0
"""So long before its end a token is replaced: a call may take a while."""

Fetch = Callable[[], tuple[str, float]]
"""Gets a token and the time of its end. It may block."""


class Tokens:
    """One token for all calls of this process, as long as it lasts."""

    def __init__(self, fetch: Fetch, clock: Callable[[], float] = time.time) -> None:
        self._fetch = fetch
        self._clock = clock
        self._token = ""
        self._ends_at = 0.0
        self._lock = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="entra")

    async def token(self) -> str:
        """A token that lasts. Raises ProviderAuthError where none is to be had."""
        async with self._lock:
            if self._clock() >= self._ends_at - EARLY_SECONDS:
                await self._renew()
            return self._token

    async def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._token, self._ends_at = await loop.run_in_executor(self._thread, self._fetch)
        except Exception as error:
            if self._clock() < self._ends_at:
                return  # the old one still lasts
            raise ProviderAuthError(f"Entra ID gives no token: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def is_installed() -> bool:
    """Whether the extra is there."""
    return find_spec("azure") is not None and find_spec("azure.identity") is not None


def identity() -> Fetch:
    """As this process: what `azure-identity` finds."""
    from azure.identity import DefaultAzureCredential

    credential = DefaultAzureCredential()

    def fetch() -> tuple[str, float]:
        got = credential.get_token(SCOPE)
        return got.token, float(got.expires_on)

    return fetch


@cache
def tokens() -> Tokens:
    """Those of this process."""
    return Tokens(identity())
