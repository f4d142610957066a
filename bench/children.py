"""Processes of their own for what must not share ours: orders go in, answers come out, as JSON.

`Child` is our end, `Talk` the child's. A child ends when its input does, so that none is left
behind, however we end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import uvloop

ROOT = Path(__file__).parents[1]
LINE_MAX_BYTES = 2**26
ANSWER_SECONDS = 300.0
END_SECONDS = 30.0


class Child:
    """Runs `main` of a module of this package; use it as an async context manager.

    In another `tree` it is the module of that one, which knows its code; ours where it has none.
    """

    def __init__(self, module: str, folder: Path, *, tree: Path = ROOT, **how: Any) -> None:
        self._module = module
        self._tree = tree
        self._how = how
        self._said = folder / f"{module}-{id(self)}.err"
        self._process: asyncio.subprocess.Process | None = None
        self.ready: dict[str, Any] = {}
        """What the child said first."""

    async def __aenter__(self) -> Self:
        with self._said.open("wb") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", __file__, self._module, json.dumps(self._how)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=self._tree,
                env={**os.environ, "PYTHONPATH": f"{self._tree}{os.pathsep}{self._tree / 'src'}"},
                limit=LINE_MAX_BYTES,
            )
        self.ready = await self._answer()
        return self

    async def __aexit__(self, *_: object) -> None:
        process = self._running()
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()

    async def ask(self, **order: Any) -> dict[str, Any]:
        """Give one order and wait for its answer."""
        stdin = self._running().stdin
        assert stdin is not None
        stdin.write(json.dumps(order).encode() + b"\n")
        await stdin.drain()
        async with asyncio.timeout(ANSWER_SECONDS):
            return await self._answer()

    async def _answer(self) -> dict[str, Any]:
        stdout = self._running().stdout
        assert stdout is not None
        line = await stdout.readline()
        if not line:
            raise RuntimeError(f"{self._module} died: {self._said.read_text()[-4000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process


class Talk:
    """Answers go to the real standard output; what anybody else prints goes to standard error."""

    def __init__(self) -> None:
        self._out = sys.stdout
        sys.stdout = sys.stderr

    def say(self, **answer: Any) -> None:
        """Answer the latest order, or say that we are ready."""
        self._out.write(json.dumps(answer) + "\n")
        self._out.flush()

    async def hear(self) -> dict[str, Any] | None:
        """The next order; None when there will be no more."""
        line = await asyncio.to_thread(sys.stdin.readline)
        order: dict[str, Any] | None = json.loads(line) if line else None
        return order


def _module(name: str) -> ModuleType:
    """Of the tree that is measured, or ours."""
    with contextlib.suppress(ModuleNotFoundError):
        return import_module(f"bench.{name}")
    spec = spec_from_file_location(f"bench.{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    module, how = _module(sys.argv[1]), json.loads(sys.argv[2])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(module.main(Talk(), **how))


if __name__ == "__main__":
    main()
