from __future__ import annotations

import pytest

from batchbell.core.model import Account, Mint
from batchbell.storage.engine import Store
from tests.conftest import Clock
from tests.storage.scene import Scene


@pytest.fixture
def scene(store: Store, account: Account, mint: Mint, clock: Clock) -> Scene:
    return Scene(store, account, mint, clock)
