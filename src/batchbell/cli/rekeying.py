"""`keys rekey`: the secrets in the database under another master key."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from batchbell.cli.options import DatabasePath, DatabaseUrl, Json
from batchbell.cli.printing import print_json, tell

if TYPE_CHECKING:
    from batchbell.settings import Settings
    from batchbell.storage.unlocking import Rekeyed


def rekey(
    database_path: DatabasePath = None, database_url: DatabaseUrl = None, json: Json = False
) -> None:
    """Encrypt the secrets in the database under a new master key. Stop the server on SQLite first.

    A key file gets a new key, and loses the old one at the end. With BATCHBELL_MASTER_KEY=new,old
    the first one takes over. A kill leaves everything readable: run it again.
    """
    from batchbell.cli.serving import settings_of
    from batchbell.storage.masterkeys import SETTING

    settings = settings_of(database_path=database_path, database_url=database_url)
    done = asyncio.run(_rekeyed(settings))
    if json:
        print_json(done)
        return
    print(f"{done.texts} secrets were sealed anew; key {done.key} of {done.source} seals all.")
    if done.source != SETTING:
        tell("Back the key file up anew: the old key is not in it any more.")
    elif done.idle:
        tell(f"Nothing needs {', '.join(done.idle)} any more: drop it from {SETTING}.")


async def _rekeyed(settings: Settings) -> Rekeyed:
    from batchbell.cli.reach import opened
    from batchbell.core.errors import SettingsError, StoreInUse
    from batchbell.storage.unlocking import rekey

    if settings.database_url is None and not settings.database_path.exists():
        raise SettingsError(f"There is no database at {settings.database_path}: set DATABASE_PATH.")
    try:
        async with opened(settings) as store:
            return await rekey(store)
    except StoreInUse as error:
        raise StoreInUse(
            "A running process has the SQLite file: stop it, run this again, and start it."
        ) from error
