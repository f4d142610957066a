"""The secret that signs webhooks; API keys made, listed, revoked; and the master key changed."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from batchbell.cli.connection import with_store_or_server
from batchbell.cli.options import ApiKey, DatabasePath, DatabaseUrl, Json, Project, Server
from batchbell.cli.output import moment, print_json, print_json_lines, print_table, say

if TYPE_CHECKING:
    from batchbell.client import Batchbell, Key
    from batchbell.settings import Settings
    from batchbell.storage import keys as stored
    from batchbell.storage.engine import Store
    from batchbell.storage.rekey import Rekeyed

KEY_BYTES = 24


def secret(
    project: Project = None, json: Json = False, server: Server = None, api_key: ApiKey = None
) -> None:
    """Print the secret that signs the webhooks: your receiver checks signatures with it."""
    settings = _settings(server, api_key)

    async def direct(store: Store) -> str:
        from batchbell.storage import projects

        secret = await store.read(projects.webhook_secret, await _project(store, settings, project))
        assert secret is not None
        return secret

    found = with_store_or_server(settings, direct, lambda client: client.secret(project=project))
    if json:
        print_json({"secret": found})
    else:
        print(found)


def create_key(
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="What the key is for, for your own list.")
    ],
    project: Project = None,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Make an API key and print it, this once. From then on every caller needs one."""
    settings = _settings(server, api_key)
    if not 1 <= len(name) <= 100:
        raise typer.BadParameter("A name has 1 to 100 characters.", param_hint="--name")

    async def direct(store: Store) -> Key:
        return await _create(store, settings, name, project)

    made = with_store_or_server(
        settings,
        direct,
        lambda client: client.create_key(name, project=project),
        may_create=project is None,
    )
    if json:
        print_json(made)
        return
    print(made.key)
    say(
        f"This is key {made.id}, shown this once. Every caller needs a key now: send it as"
        " `Authorization: Bearer bb_…`, or set BATCHBELL_API_KEY for this command line."
    )


def list_keys(
    project: Project = None, json: Json = False, server: Server = None, api_key: ApiKey = None
) -> None:
    """List the API keys, revoked ones too. The keys themselves are not kept."""
    settings = _settings(server, api_key)

    async def direct(store: Store) -> list[Key]:
        from batchbell.storage import keys

        project_id = await _project(store, settings, project)
        return [_shown(key) for key in await store.read(keys.list_keys, project_id)]

    found = with_store_or_server(settings, direct, lambda client: client.list_keys(project=project))
    if json:
        print_json_lines(found)
        return
    print_table(
        ["id", "name", "key", "made", "revoked"],
        [(k.id, k.name, k.hint, moment(k.created_at), moment(k.revoked_at)) for k in found],
        empty="No key was made yet: local mode.",
    )


def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="As `batchbell keys list` says.")],
    project: Project = None,
    *,
    yes: Annotated[
        bool,
        typer.Option("--yes", help="Do not ask before the last key of project `default` goes."),
    ] = False,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Revoke an API key. Asks before the last key of project `default` goes."""
    settings = _settings(server, api_key)

    async def direct(store: Store) -> None:
        from batchbell.storage import keys

        project_id = await _project(store, settings, project)
        _confirm(await store.read(keys.list_keys, project_id), key_id, yes=yes)
        await store.write(keys.revoke_key, project_id, key_id, now=time.time())

    def over_http(client: Batchbell) -> None:
        _confirm(client.list_keys(project=project), key_id, yes=yes)
        client.revoke_key(key_id, project=project)

    with_store_or_server(settings, direct, over_http)
    if json:
        print_json({"id": key_id, "revoked": True})
    else:
        print(f"Key {key_id} is revoked.")


def _confirm(found: Sequence[Key | stored.Key], key_id: str, *, yes: bool) -> None:
    """Ask before the last key goes that can look after the server."""
    from batchbell.core.model import DEFAULT_PROJECT

    in_force = [one for one in found if one.revoked_at is None]
    if [(one.id, one.project_id) for one in in_force] != [(key_id, DEFAULT_PROJECT)]:
        return
    say(
        f"{key_id} is the last key of the project `default`. Without it the server refuses whoever"
        " looks after it, until you make another one on its machine (with SQLite, while the server"
        " is stopped): batchbell keys create --name NAME"
    )
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("Pass --yes to revoke the last key of `default`.")
    typer.confirm("Revoke it?", abort=True, err=True)


def _settings(server: str | None, api_key: str | None) -> Settings:
    """Settings for a command that may open the database itself, and should not chat about it."""
    from batchbell.observability import configure_logging
    from batchbell.settings import load_settings

    configure_logging(level="error", format="text")
    return load_settings(url=server, api_key=api_key)


async def _project(store: Store, settings: Settings, word: str | None) -> str:
    """The id of the project that is named, `default` if none is. Raises NotFound."""
    from batchbell.core.model import DEFAULT_PROJECT
    from batchbell.runtime import ensure_secret
    from batchbell.storage import projects

    await ensure_secret(store, settings)  # makes `default` in a new database
    return (await store.read(projects.find_project, word or DEFAULT_PROJECT)).id


async def _create(store: Store, settings: Settings, name: str, project: str | None) -> Key:
    from batchbell.runtime import mint
    from batchbell.storage import keys

    project_id = await _project(store, settings, project)
    key = keys.PREFIX + secrets.token_hex(KEY_BYTES)
    made = await store.write(
        keys.create_key, project_id, name=name, key=key, mint=mint, now=time.time()
    )
    return _shown(made, key_itself=key)


def _shown(key: stored.Key, *, key_itself: str | None = None) -> Key:
    """A stored key in the shape that the server would answer."""
    from batchbell.client import Key

    return Key(
        id=key.id,
        project_id=key.project_id,
        name=key.name,
        hint=key.hint,
        created_at=int(key.created_at),
        revoked_at=None if key.revoked_at is None else int(key.revoked_at),
        key=key_itself,
    )


def rekey(
    database_path: DatabasePath = None, database_url: DatabaseUrl = None, json: Json = False
) -> None:
    """Encrypt the secrets in the database under a new master key. Stop the server on SQLite first.

    A key file gets a new key, and loses the old one at the end. With BATCHBELL_MASTER_KEY=new,old
    the first one takes over. A kill leaves everything readable: run it again.
    """
    from batchbell.cli.server import settings_of
    from batchbell.storage.masterkeys import SETTING

    settings = settings_of(database_path=database_path, database_url=database_url)
    done = asyncio.run(_rekeyed(settings))
    if json:
        print_json(done)
        return
    print(f"{done.texts} secrets were sealed anew; key {done.key} of {done.source} seals all.")
    if done.source != SETTING:
        say("Back the key file up anew: the old key is not in it any more.")
    elif done.idle:
        say(f"Nothing needs {', '.join(done.idle)} any more: drop it from {SETTING}.")


async def _rekeyed(settings: Settings) -> Rekeyed:
    from batchbell.cli.connection import opened
    from batchbell.core.errors import SettingsError, StoreInUse
    from batchbell.storage.rekey import rekey

    if settings.database_url is None and not settings.database_path.exists():
        raise SettingsError(f"There is no database at {settings.database_path}: set DATABASE_PATH.")
    try:
        async with opened(settings) as store:
            return await rekey(store)
    except StoreInUse as error:
        raise StoreInUse(
            "A running process has the SQLite file: stop it, run this again, and start it."
        ) from error
