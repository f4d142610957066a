"""Signing and verifying by hand, as somebody does whose receiver refuses everything."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from batchbell.sandbox import Receiver
from tests.acceptance.conftest import Shell
from tests.conftest import SECRET

BODY = '{"id":"evt_1","type":"batch.completed","data":{"who":"it\'s café"}}\n'
OTHER = "whsec_" + "B" * 32


@pytest.fixture
def body(shell: Shell) -> Path:
    path = shell.folder / "body.json"
    path.write_text(BODY, encoding="utf-8")
    return path


@pytest.fixture
def signing_shell(shell: Shell) -> Shell:
    """A shell that knows the secret, so that no command shows it to `ps`."""
    shell.environment["BATCHBELL_WEBHOOK_SECRET"] = SECRET
    return shell


async def test_what_sign_prints_verifies_here_and_elsewhere(
    signing_shell: Shell, body: Path
) -> None:
    signed = await signing_shell.run("sign", str(body))
    headers = dict(line.split(": ") for line in signed.out.splitlines())
    assert headers["webhook-id"] == "evt_1"
    assert Webhook(SECRET).verify(BODY, headers) == json.loads(BODY)
    (signing_shell.folder / "headers.txt").write_text("POST /hook HTTP/1.1\n" + signed.out)
    verified = await signing_shell.run("verify", str(body), "--headers", "headers.txt")
    assert (verified.code, verified.out.startswith("The signature holds: evt_1")) == (0, True)
    each = [word for line in signed.out.splitlines() for word in ("-H", line)]
    piped = await signing_shell.run("verify", *each, "--json", input=BODY)
    assert (piped.code, piped.json) == (0, {"verified": True, "problems": []})


async def test_a_curl_command_delivers_exactly_the_body(signing_shell: Shell, body: Path) -> None:
    async with Receiver(secret=SECRET) as receiver:
        from_file = await signing_shell.run("sign", str(body), "--curl", receiver.url())
        from_pipe = await signing_shell.run("sign", "--curl", receiver.url(), input=BODY)
        for command in (from_file.out, from_pipe.out):
            curl = await asyncio.create_subprocess_shell(
                command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
            )
            if await curl.wait() == 127:
                pytest.skip("curl is not on this machine.")
        hooks = await receiver.wait_for(2)
    assert [hook.body for hook in hooks] == [BODY.encode()] * 2
    assert [hook.verified for hook in hooks] == [True, True]


async def test_a_body_without_an_id_gets_one_that_is_new(signing_shell: Shell) -> None:
    first, second = [
        (await signing_shell.run("sign", "--json", input=text)).json["headers"]["webhook-id"]
        for text in ("not json", '{"id": 7}')
    ]
    assert first.startswith("evt_")
    assert first != second
    named = await signing_shell.run("sign", "--id", "msg_1", "--at", "1700000000", "--json")
    assert named.json["headers"]["webhook-id"] == "msg_1"
    assert named.json["headers"]["webhook-timestamp"] == "1700000000"


async def test_each_thing_that_is_wrong_is_told_and_the_exit_code_is_1(
    signing_shell: Shell, body: Path
) -> None:
    then = int(time.time()) - 1000
    signed = await signing_shell.run("sign", str(body), "--at", str(then))
    headers = signing_shell.folder / "headers.txt"
    headers.write_text(signed.out)

    async def told(*words: str, text: str = BODY) -> str:
        ended = await signing_shell.run("verify", "--headers", "headers.txt", *words, input=text)
        assert ended.code == 1, ended.err
        assert SECRET not in ended.out
        return ended.out

    late = await signing_shell.run(
        "verify", str(body), "--headers", "headers.txt", "--at", str(then + 9)
    )
    assert (late.code, late.out) == (0, "The signature holds: evt_1, signed 9 s before.\n")
    assert "s old; 300 s are allowed" in await told()
    at = ("--at", str(then))
    assert "another secret" in await told(*at, "--secret", OTHER)
    assert "white space or quotes" in await told(*at, "--secret", SECRET + " ")
    assert "read as JSON" not in await told(*at, text=BODY.replace("evt_1", "evt_2"))
    headers.write_text("\n".join(signed.out.splitlines()[:2]))
    problems = json.loads(await told("--json"))
    assert [one["code"] for one in problems["problems"]] == ["header_missing"]
    assert "webhook-signature" in problems["problems"][0]["message"]


async def test_json_that_a_framework_wrote_anew_is_recognised(signing_shell: Shell) -> None:
    sent = '{"id":"evt_1","data":{"n":1}}'
    signed = await signing_shell.run("sign", input=sent)
    each = [word for line in signed.out.splitlines() for word in ("-H", line)]
    ended = await signing_shell.run("verify", *each, input=json.dumps(json.loads(sent), indent=2))
    assert ended.code == 1
    assert "read as JSON and written anew" in ended.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sign",), "Pass --secret, or set BATCHBELL_WEBHOOK_SECRET"),
        (("verify",), "Pass --secret, or set BATCHBELL_WEBHOOK_SECRET"),
        (("sign", "--secret", "hunter2"), "standard base64"),
        (("sign", "none.json", "--secret", SECRET), "Cannot read none.json"),
        (("sign", "--id", "a.b", "--secret", SECRET), "without a dot"),
        (("sign", "--curl", "http://x", "--secret", SECRET), "give it as a file"),
        (("verify", "--headers", "-", "--secret", SECRET), "not both"),
    ],
)
async def test_a_wrong_use_is_one_plain_line(
    shell: Shell, words: tuple[str, ...], message: str
) -> None:
    ended = await shell.run(*words, input="\0")
    assert ended.code == 2
    assert message in ended.err
