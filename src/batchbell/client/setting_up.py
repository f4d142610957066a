"""What an operator sets up: accounts, projects, keys, the secret. Part of both clients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from batchbell.client import calls, shapes
from batchbell.client.calls import Call

T = TypeVar("T")


class SettingUp(ABC):
    """For the client that blocks."""

    @abstractmethod
    def _send(self, call: Call[T]) -> T: ...

    def accounts(self) -> list[shapes.Account]:
        """The accounts that batches are watched in, the default first."""
        return list(self._send(calls.accounts()).data)

    def account(self, name: str) -> shapes.Account:
        """One account, by name or id, as below."""
        return self._send(calls.account(name))

    def add_account(
        self,
        name: str,
        api_key: str,
        *,
        provider: str = "openai",
        base_url: str | None = None,
        discover: bool = False,
    ) -> shapes.Account:
        """Add an account, watched from now on. The API key is sealed, and never shown again.

        With `discover`, every batch that is made in it is found, whoever made it.
        """
        wanted = {
            "name": name,
            "api_key": api_key,
            "provider": provider,
            "base_url": base_url,
            "discover": discover,
        }
        return self._send(calls.add_account(wanted))

    def update_account(self, name: str, **changes: str | bool) -> shapes.Account:
        """Change its `base_url`, `api_key`, `discover` or `state` (`active`, `paused`)."""
        return self._send(calls.update_account(name, changes))

    def pause_account(self, name: str) -> shapes.Account:
        """Sweep it no more until it is resumed."""
        return self._send(calls.pause_account(name))

    def resume_account(self, name: str) -> shapes.Account:
        """Sweep it again, at once."""
        return self._send(calls.resume_account(name))

    def test_account(self, name: str) -> shapes.AccountTest:
        """List its batches at the provider once."""
        return self._send(calls.test_account(name))

    def remove_account(self, name: str, *, force: bool = False) -> shapes.AccountDeleted:
        """Remove it and forget its API key. With `force` also where batches have not ended."""
        return self._send(calls.remove_account(name, force=force))

    def create_project(self, name: str) -> shapes.Project:
        """Make a project. Only for keys of `default`, as what names a `project` below."""
        return self._send(calls.create_project(name))

    def projects(self) -> list[shapes.Project]:
        """All projects, the oldest first."""
        return list(self._send(calls.projects()).data)

    def create_key(self, name: str, *, project: str | None = None) -> shapes.Key:
        """Make an API key. Its `key` is shown this once; from now on every caller needs one."""
        return self._send(calls.create_key(name, project=project))

    def list_keys(self, *, project: str | None = None) -> list[shapes.Key]:
        """The keys, revoked ones too."""
        return list(self._send(calls.list_keys(project=project)).data)

    def revoke_key(self, key_id: str, *, project: str | None = None) -> None:
        """Put a key out of force."""
        self._send(calls.revoke_key(key_id, project=project))

    def secret(self, *, project: str | None = None) -> str:
        """The `whsec_…` secret that signs the webhooks."""
        return self._send(calls.secret(project=project)).secret


class AsyncSettingUp(ABC):
    """For the client that is awaited."""

    @abstractmethod
    async def _send(self, call: Call[T]) -> T: ...

    async def accounts(self) -> list[shapes.Account]:
        """The accounts that batches are watched in, the default first."""
        return list((await self._send(calls.accounts())).data)

    async def account(self, name: str) -> shapes.Account:
        """One account, by name or id, as below."""
        return await self._send(calls.account(name))

    async def add_account(
        self,
        name: str,
        api_key: str,
        *,
        provider: str = "openai",
        base_url: str | None = None,
        discover: bool = False,
    ) -> shapes.Account:
        """Add an account, watched from now on. The API key is sealed, and never shown again.

        With `discover`, every batch that is made in it is found, whoever made it.
        """
        wanted = {
            "name": name,
            "api_key": api_key,
            "provider": provider,
            "base_url": base_url,
            "discover": discover,
        }
        return await self._send(calls.add_account(wanted))

    async def update_account(self, name: str, **changes: str | bool) -> shapes.Account:
        """Change its `base_url`, `api_key`, `discover` or `state` (`active`, `paused`)."""
        return await self._send(calls.update_account(name, changes))

    async def pause_account(self, name: str) -> shapes.Account:
        """Sweep it no more until it is resumed."""
        return await self._send(calls.pause_account(name))

    async def resume_account(self, name: str) -> shapes.Account:
        """Sweep it again, at once."""
        return await self._send(calls.resume_account(name))

    async def test_account(self, name: str) -> shapes.AccountTest:
        """List its batches at the provider once."""
        return await self._send(calls.test_account(name))

    async def remove_account(self, name: str, *, force: bool = False) -> shapes.AccountDeleted:
        """Remove it and forget its API key. With `force` also where batches have not ended."""
        return await self._send(calls.remove_account(name, force=force))

    async def create_project(self, name: str) -> shapes.Project:
        """Make a project. Only for keys of `default`, as what names a `project` below."""
        return await self._send(calls.create_project(name))

    async def projects(self) -> list[shapes.Project]:
        """All projects, the oldest first."""
        return list((await self._send(calls.projects())).data)

    async def create_key(self, name: str, *, project: str | None = None) -> shapes.Key:
        """Make an API key. Its `key` is shown this once; from now on every caller needs one."""
        return await self._send(calls.create_key(name, project=project))

    async def list_keys(self, *, project: str | None = None) -> list[shapes.Key]:
        """The keys, revoked ones too."""
        return list((await self._send(calls.list_keys(project=project))).data)

    async def revoke_key(self, key_id: str, *, project: str | None = None) -> None:
        """Put a key out of force."""
        await self._send(calls.revoke_key(key_id, project=project))

    async def secret(self, *, project: str | None = None) -> str:
        """The `whsec_…` secret that signs the webhooks."""
        return (await self._send(calls.secret(project=project))).secret
