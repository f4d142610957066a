"""One webhook of a whole Batchbell, and judges of two languages."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from tests.conftest import SECRET
from tests.verification.judges import Hook, Node, accepting_in_python, install_node
from tests.workers.conftest import House, house, receiver, sandbox

__all__ = ["house", "receiver", "sandbox"]

Accepting = Callable[[Hook], frozenset[str]]
Sending = Callable[..., Awaitable[Hook]]


@pytest.fixture
def database_url(ready_sqlite_url: str) -> str:
    """What is signed does not depend on the database."""
    return ready_sqlite_url


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = install_node(tmp_path_factory.mktemp("node"))
    yield node
    node.close()


@pytest.fixture(params=["python", "node"])
def accepting(request: pytest.FixtureRequest) -> Accepting:
    """Which libraries of one language accept a webhook."""
    if request.param == "python":
        return accepting_in_python
    node: Node = request.getfixturevalue("node")
    return node.accepting


@pytest.fixture
def sent(house: House) -> Sending:
    """Have a batch end, and return its webhook as the receiver got it.

    `skew_seconds` is how wrong our clock goes; `calls` is how many calls to wait for.
    """

    async def send(*, skew_seconds: float = 0.0, calls: int = 1) -> Hook:
        house.clock.now = time.time() + skew_seconds
        id = house.provider.add_batch(total=3)
        await house.register(id, metadata={"who": "café"})
        house.provider.finish(id, "completed", failed=1)
        await house.sweep()
        await house.deliver()
        while len(house.receiver.received) < calls:
            house.clock.advance(10)
            await house.deliver()
        hook = house.receiver.received[-1]
        return Hook(hook.headers, hook.body, SECRET)

    return send
