"""The libraries that judge: three for Python, three for Node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import openai
import pytest
import standardwebhooks

NODE = Path(__file__).parent / "node"
EVERY = frozenset({"openai", "standardwebhooks", "svix"})
INSTALL_SECONDS = 90.0
RUN_SECONDS = 60.0


@dataclass(frozen=True)
class Hook:
    """A webhook as a receiver has it."""

    headers: dict[str, str]
    body: bytes
    secret: str


Verify = Callable[[Hook], object]
CLIENT = openai.OpenAI(api_key="not used to verify")


@cache
def in_python() -> dict[str, tuple[Verify, type[Exception]]]:
    """Loaded once they are asked: importing Svix takes a second."""
    import svix.webhooks

    return {
        "openai": (
            lambda hook: CLIENT.webhooks.unwrap(hook.body, hook.headers, secret=hook.secret),
            openai.InvalidWebhookSignatureError,
        ),
        "standardwebhooks": (
            lambda hook: standardwebhooks.Webhook(hook.secret).verify(hook.body, hook.headers),
            standardwebhooks.WebhookVerificationError,
        ),
        "svix": (
            lambda hook: svix.webhooks.Webhook(hook.secret).verify(hook.body, hook.headers),
            svix.webhooks.WebhookVerificationError,
        ),
    }


def accepting_in_python(hook: Hook) -> frozenset[str]:
    """Who accepts it. A crash is no verdict, and fails the test."""
    return frozenset(name for name, judge in in_python().items() if _accepts(*judge, hook))


def _accepts(verify: Verify, refusal: type[Exception], hook: Hook) -> bool:
    try:
        verify(hook)
    except refusal:
        return False
    return True


class Node:
    """Runs scripts that may import the packages in `node/package.json`."""

    def __init__(self, node: str, folder: Path) -> None:
        self._node = node
        self.folder = folder
        self._judge: subprocess.Popen[str] | None = None

    def run(self, script: Path, *, input: str) -> list[str]:
        """The lines that the script prints."""
        ended = subprocess.run(
            self._command(script),
            input=input,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=RUN_SECONDS,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.splitlines()

    def accepting(self, hook: Hook) -> frozenset[str]:
        """Which of its libraries accept the webhook. One process judges all of them."""
        if self._judge is None:
            self._judge = subprocess.Popen(
                self._command(NODE / "judge.mjs"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
            )
        told = {"headers": hook.headers, "body": hook.body.decode(), "secret": hook.secret}
        assert self._judge.stdin is not None
        assert self._judge.stdout is not None
        self._judge.stdin.write(json.dumps(told) + "\n")
        self._judge.stdin.flush()
        line = self._judge.stdout.readline()
        assert line, "the judge crashed; it says why on standard error"
        return frozenset(json.loads(line))

    def close(self) -> None:
        if self._judge is not None:
            with self._judge as judge:
                judge.kill()

    def _command(self, script: Path) -> list[str]:
        """Node looks for packages beside the script, so it runs where they were put."""
        return [self._node, shutil.copy(script, self.folder)]


def install_node(folder: Path) -> Node:
    """Put the packages into the folder; skip the test, with the reason, where that cannot be.

    In CI a Node that is there must work: a failing install is a failure.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("Node and npm are not on this machine: nothing was verified in Node.")
    shutil.copy(NODE / "package.json", folder)
    command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund"]
    try:
        subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=True
        )
    except subprocess.SubprocessError as error:
        why = f"npm could not install the packages: {getattr(error, 'stderr', None) or error}"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(f"{why} Nothing was verified in Node.")
    return Node(node, folder)
