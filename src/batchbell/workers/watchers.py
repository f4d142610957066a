"""One watcher for each account that there is, in this process as in every other.

Accounts come and go by API, in any process. This looks at the table when it is notified, and
every few seconds; an account whose address or credentials changed gets a new watcher.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from batchbell.core.errors import SettingsError
from batchbell.core.model import Account
from batchbell.net.guard import AddressRules
from batchbell.storage import accounts
from batchbell.storage.engine import ACCOUNTS_CHANGED, Store
from batchbell.workers.loop import Loop, Loops

log = structlog.get_logger("batchbell.accounts")

LOOK_SECONDS = 2.0
"""How long a change by another process may go unseen where its signal was lost."""


@dataclass(frozen=True, slots=True)
class Post:
    """All that a watcher is made of. `rules` judge the base URL; None is a setting's freedom."""

    account_id: str
    name: str
    provider: str
    base_url: str
    rules: AddressRules | None
    key: str

    def __repr__(self) -> str:
        return f"Post({self.account_id!r}, {self.name!r})"


MakeLoop = Callable[[Account, Post], Loop]


class Watchers:
    """See the module. `make_loop` makes the loop of a watcher.

    `key_of` gives the API key of an account whose key is not in the database; None where this
    process has none.
    """

    def __init__(
        self,
        store: Store,
        loops: Loops,
        make_loop: MakeLoop,
        *,
        key_of: Callable[[Account], str | None],
        rules: Callable[[], AddressRules],
    ) -> None:
        self.name = "accounts"
        self.signal = store.signal(ACCOUNTS_CHANGED)
        self._store = store
        self._loops = loops
        self._make_loop = make_loop
        self._key_of = key_of
        self._rules = rules
        self._posts: dict[str, tuple[Post, Loop | None]] = {}

    async def step(self) -> bool:
        """Bring the loops in line with the accounts."""
        found = await self._store.read(accounts.every_account)
        wanted = {
            account.id: (account, post)
            for account, credentials in found
            if (post := self._post(account, credentials)) is not None
        }
        for id in [id for id, (post, _) in self._posts.items() if _changed(post, wanted.get(id))]:
            self._dismiss(id)
        for id, (account, post) in wanted.items():
            if id not in self._posts:
                self._posts[id] = (post, self._engage(account, post))
        return False

    async def idle_seconds(self) -> float:
        return LOOK_SECONDS

    async def close(self) -> None:
        """The loops stop by themselves."""

    def _post(self, account: Account, credentials: str | None) -> Post | None:
        key = self._key_of(account) if account.from_environment else credentials
        if key is None:
            return None
        rules = None if account.from_environment else self._rules()
        return Post(account.id, account.label, account.provider, account.base_url, rules, key)

    def _engage(self, account: Account, post: Post) -> Loop | None:
        """None where an account that was added cannot be watched at all.

        Raises SettingsError for one that is declared.
        """
        try:
            loop = self._make_loop(account, post)
        except SettingsError as error:
            if account.from_environment:
                raise
            log.warning("account cannot be watched", account=post.name, error=str(error))
            return None
        self._loops.add(loop)
        log.info("account is watched", account=post.name)
        return loop

    def _dismiss(self, id: str) -> None:
        post, loop = self._posts.pop(id)
        if loop is not None:
            self._loops.dismiss(loop)
            log.info("account is watched no more, or anew", account=post.name)


def _changed(post: Post, wanted: tuple[Account, Post] | None) -> bool:
    return wanted is None or wanted[1] != post
