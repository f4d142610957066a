"""The tests for batches that SDKs bring along, against the sandbox.

They name ids that nobody has made, so the sandbox is lenient. `make judges` downloads the source
distributions, which alone hold the tests.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tarfile
from pathlib import Path

import pytest

from batchbell.sandbox import Sandbox

SUITES = Path(sys.prefix) / "suites"
BATCHES = {
    "anthropic": [
        "tests/api_resources/messages/test_batches.py",
        "tests/api_resources/beta/messages/test_batches.py",
    ],
    "groq": ["tests/api_resources/test_batches.py"],
}


@pytest.fixture
async def lenient() -> Sandbox:
    sandbox = Sandbox()
    sandbox.anthropic.lenient = sandbox.groq.lenient = True
    return sandbox


@pytest.mark.parametrize("sdk", BATCHES)
async def test_an_sdks_own_tests_pass(sdk: str, lenient: Sandbox, tmp_path: Path) -> None:
    found = sorted(SUITES.glob(f"{sdk}-*.tar.gz"))
    if not found and "CI" not in os.environ:
        pytest.skip(f"no source distribution of {sdk} in {SUITES}: run make judges")
    with tarfile.open(found[-1]) as source:
        source.extractall(tmp_path, filter="data")
    [folder] = tmp_path.iterdir()  # noqa: ASYNC240 - a test's own folder
    async with lenient as sandbox:
        url = {"anthropic": sandbox.url, "groq": sandbox.groq_url}[sdk]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pytest", "-q", "-n", "0", *BATCHES[sdk]),
            cwd=folder,
            env={**os.environ, "TEST_API_BASE_URL": url, "PYTHONPATH": str(folder)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()[-4000:]
    assert b" passed" in out
