"""The way to the server, and to the database where no server runs."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from batchbell.client import Batchbell
    from batchbell.settings import Settings
    from batchbell.storage.engine import Store


T = TypeVar("T")


@contextlib.contextmanager
def connected(server: str | None, api_key: str | None) -> Iterator[Batchbell]:
    """A client for the server that the options or the settings name."""
    from batchbell.settings import load_settings

    with client_for(load_settings(url=server, api_key=api_key)) as client:
        yield client


def client_for(settings: Settings) -> Batchbell:
    """A client for the server of these settings. Raises SettingsError for what is no URL."""
    from batchbell.client import Batchbell
    from batchbell.core.errors import SettingsError

    if not re.match(r"https?://[^/\s]", settings.server_url):
        raise SettingsError(
            f"{settings.server_url!r} is no URL of a server: it has to be like"
            " http://127.0.0.1:3000. Set BATCHBELL_URL, or pass --server."
        )
    return Batchbell(settings.server_url, key_of(settings))


def key_of(settings: Settings) -> str | None:
    """The API key to send."""
    return settings.api_key.get_secret_value() if settings.api_key else None


def with_store_or_server(
    settings: Settings,
    direct: Callable[[Store], Awaitable[T]],
    over_http: Callable[[Batchbell], T],
    *,
    may_create: bool = False,
) -> T:
    """Work on the database; ask the server where that is named, or owns the SQLite file.

    A database that is not there is made only if `may_create`, and no server answers: else the
    command would speak of a database that nobody serves. Raises SettingsError then, and
    StoreInUse where the file is in use and no server answers.
    """
    from batchbell.client import AccessRefused, ServerUnreachable
    from batchbell.core.errors import SettingsError, StoreInUse

    if settings.url is None and (settings.database_url or settings.database_path.exists()):
        try:
            return asyncio.run(_on_store(settings, direct))
        except StoreInUse as error:
            reason: Exception = StoreInUse(f"{error} Set BATCHBELL_URL, or stop that process.")
    else:
        reason = SettingsError(
            f"There is no database at {settings.database_path}, and no server answers at"
            f" {settings.server_url}: set DATABASE_PATH or BATCHBELL_URL as the server has it."
        )
    try:
        with client_for(settings) as client:
            return over_http(client)
    except AccessRefused as error:
        if not isinstance(reason, StoreInUse):
            raise
        raise StoreInUse(
            f"{error} Set BATCHBELL_API_KEY, or pass --api-key. Without a key, stop the server:"
            f" then this command works on {settings.database_path} itself."
        ) from error
    except ServerUnreachable as error:
        if settings.url is not None:
            raise
        if may_create and isinstance(reason, SettingsError):
            return asyncio.run(_on_store(settings, direct))
        raise reason from error


async def _on_store(settings: Settings, work: Callable[[Store], Awaitable[T]]) -> T:
    async with opened(settings) as store:
        return await work(store)


@contextlib.asynccontextmanager
async def opened(settings: Settings, *, migrate: bool = True) -> AsyncIterator[Store]:
    """The database, for as long as the context lasts."""
    from batchbell.storage.opening import open_store

    store = await open_store(settings.store_url, migrate=migrate, master_key=settings.master_keys)
    try:
        yield store
    finally:
        await store.close()
