"""Uploads on their way, cut into pieces anywhere: what goes on, for whom, and what does not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from batchbell.core.account import Account
from batchbell.core.errors import InvalidRequest
from batchbell.web import addressing
from batchbell.web.addressing import HELD_MAX_BYTES, Upload

EDGE = "edge"
ACCOUNTS = {
    name: Account(id=f"acc_{name}", project_id="p", name=name, provider="openai", base_url="u")
    for name in ("openai", "nightly")
}
FORM = Headers({"content-type": f'multipart/form-data; boundary="{EDGE}"'})
Field = tuple[str, bytes]


def line(number: int, model: str = "nightly/m", **more: object) -> bytes:
    body = {"model": model, "input": f"question {number}"}
    return json.dumps({"custom_id": f"r{number}", "body": body, **more}).encode()


def bared(text: bytes) -> bytes:
    """As a line without its front is to go on."""
    made = json.loads(text)
    made["body"]["model"] = made["body"]["model"].removeprefix("nightly/")
    return json.dumps(made, separators=(",", ":")).encode().ljust(len(text))


PURPOSE = ("purpose", b"batch")
NIGHTLY = b"\n".join([line(1), b"", line(2), line(3)]) + b"\n"
BARED = b"\n".join([bared(line(1)), b"", bared(line(2)), bared(line(3))]) + b"\n"


def form(*fields: Field, name: str = '"{}"', edge: str = EDGE, lead: str = "") -> bytes:
    made = lead.encode()
    for field, value in fields:
        filename = '; filename="in.jsonl"\r\nContent-Type: application/jsonl' * (field == "file")
        head = f"Content-Disposition: form-data; name={name.format(field)}{filename}"
        made += f"--{edge}\r\n{head}\r\n\r\n".encode() + value + b"\r\n"
    return made + f"--{edge}--\r\n".encode()


async def pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def carried(
    body: bytes, *, size: int = 2**16, headers: Headers = FORM, named: str | None = None
) -> tuple[str | None, bytes]:
    upload = Upload(pieces(body, size), headers, ACCOUNTS, ACCOUNTS[named] if named else None)
    await upload.open()
    went = b"".join([chunk async for chunk in upload.chunks()])
    return upload.account and upload.account.name, went


async def refused(body: bytes, *, size: int = 2**16) -> tuple[InvalidRequest, bytes]:
    """What is said, and what had gone on by then."""
    went = bytearray()

    async def carry() -> None:
        upload = Upload(pieces(body, size), FORM, ACCOUNTS, None)
        await upload.open()
        async for chunk in upload.chunks():
            went.extend(chunk)

    with pytest.raises(InvalidRequest) as caught:
        await carry()
    return caught.value, bytes(went)


@pytest.mark.parametrize("fields", [[PURPOSE, "file"], ["file", PURPOSE]])
@pytest.mark.parametrize("name", ['"{}"', "{}"])
@pytest.mark.parametrize("lead", ["", "\r\n"])
async def test_the_front_decides_and_is_taken_off_wherever_the_form_is_cut(
    fields: list[Field | str], name: str, lead: str
) -> None:
    def whole(content: bytes) -> bytes:
        listed = [("file", content) if isinstance(one, str) else one for one in fields]
        return form(*listed, name=name, lead=lead)

    for size in range(1, 80):
        assert await carried(whole(NIGHTLY), size=size) == ("nightly", whole(BARED))


@given(st.data())
async def test_what_looks_like_an_edge_is_content(data: st.DataObject) -> None:
    """The parser holds back what may be the beginning of an edge."""
    odd = st.sampled_from([b"\r\n", b"\r", b"\n", b"-", b"--edge", b"edge", b" ", b"\r\n--edg"])
    tails = b"".join(data.draw(st.lists(odd, max_size=6)))
    words = [tails.replace(b"\r", b"").replace(b"\n", b""), b"x"]
    inner = "".join(word.decode() for word in words)
    content = line(1, note=inner) + b"\r\n" + line(2)
    changed = bared(line(1, note=inner)) + b"\r\n" + bared(line(2))
    size = data.draw(st.integers(1, 50))
    whole, made = form(("file", content), PURPOSE), form(("file", changed), PURPOSE)
    assert await carried(whole, size=size) == ("nightly", made)
    plain = tails + content.replace(b"nightly/", b"")
    if b"\r\n--edge" not in b"\r\n" + plain:
        untouched = form(("file", plain), PURPOSE)
        assert await carried(untouched, size=size) == (None, untouched)


@given(st.binary(max_size=300), st.integers(1, 60), st.booleans())
async def test_whatever_else_is_sent_goes_on_untouched(
    content: bytes, size: int, is_form: bool
) -> None:
    body = form(PURPOSE, ("file", content)) if is_form else content
    assert await carried(body, size=size) == (None, body)


@pytest.mark.parametrize(
    "body",
    [
        form(PURPOSE, ("file", line(1, "gpt-5-mini") + b"\n" + line(2))),
        form(PURPOSE, ("file", line(1, "other/m"))),
        form(("purpose", b"vision"), ("file", NIGHTLY)),
        form(("purpose", b"batches"), ("file", NIGHTLY)),
        form(("files", NIGHTLY), PURPOSE),
        form(PURPOSE, ("file", b"")),
        form(PURPOSE, ("file", b"\n\n")),
        form(PURPOSE),
        form(),
        b"preamble\r\n" + form(PURPOSE, ("file", NIGHTLY)),
        form(PURPOSE, ("file", NIGHTLY), edge="other"),
        b"",
    ],
)
async def test_what_has_no_account_in_front_goes_on_byte_by_byte(body: bytes) -> None:
    for size in (1, 7, 2**16):
        assert await carried(body, size=size) == (None, body)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json"},
        {"content-type": "multipart/form-data"},
        {"content-type": f"multipart/form-data; boundary={EDGE}", "content-encoding": "gzip"},
        {"content-type": f"multipart/form-data; boundary={'e' * 5000}"},
    ],
)
async def test_what_is_no_form_goes_on_byte_by_byte(headers: dict[str, str]) -> None:
    body = form(PURPOSE, ("file", NIGHTLY))
    assert await carried(body, headers=Headers(headers)) == (None, body)


async def test_an_account_that_is_named_wins() -> None:
    body = form(PURPOSE, ("file", NIGHTLY))
    assert await carried(body, named="openai") == ("openai", body)
    own = form(PURPOSE, ("file", BARED))
    assert await carried(body, named="nightly") == ("nightly", own)
    plain = form(PURPOSE, ("file", line(1, "m")))
    assert await carried(plain, named="nightly") == ("nightly", plain)


WRONG = [
    (line(2, "m"), "mismatched_account", "without the 'nightly/'"),
    (line(2, "openai/m"), "mismatched_account", "'openai/m'"),
    (b"no json", "invalid_json_line", "JSON is malformed"),
    (b'{"custom_id": "x"}', "invalid_json_line", "'body' is missing"),
]


@pytest.mark.parametrize(("second", "code", "said"), WRONG)
@pytest.mark.parametrize("end", [b"", b"\n", b"\n" + line(3)])
@pytest.mark.parametrize("size", [1, 40, 2**16])
async def test_a_line_of_another_kind_is_named_and_the_form_never_ends(
    second: bytes, code: str, said: str, end: bytes, size: int
) -> None:
    content = line(1) + b"\n\n" + second + end
    error, went = await refused(form(PURPOSE, ("file", content)), size=size)
    assert (error.status, error.code) == (422, "invalid_requests")
    [problem] = error.problems  # type: ignore[attr-defined]
    assert (problem.line, problem.code) == (3, code)
    assert error.message.startswith("Line 3: ")
    assert said in error.message
    assert second not in went
    assert f"--{EDGE}--".encode() not in went


@pytest.mark.parametrize("size", [1, 2**16])
async def test_only_files_of_batches_have_an_account_in_front(size: int) -> None:
    for purpose in (b"vision", b"", b"batchbatch"):
        whole = form(("file", NIGHTLY), ("purpose", purpose))
        error, went = await refused(whole, size=size)
        assert (error.status, error.param) == (400, "purpose")
        assert f"--{EDGE}--".encode() not in went


@pytest.mark.parametrize("size", [1, 2**16])
async def test_a_form_that_is_cut_short_is_not_passed_on_as_one(size: int) -> None:
    whole = form(PURPOSE, ("file", NIGHTLY))
    error, _ = await refused(whole[: whole.index(line(3)) + 20], size=size)
    assert (error.status, "ends before its end" in error.message) == (400, True)


async def test_a_form_that_breaks_off_being_one_is_refused() -> None:
    whole = form(PURPOSE, ("file", NIGHTLY), ("x", b"y")).replace(b'name="x"', b'n\x00ame"')
    broken = whole.replace(b"Content-Disposition: form-data; n\x00", b"Cont ent: ")
    error, went = await refused(broken)
    assert (error.status, "cannot be read" in error.message) == (400, True)
    assert f"--{EDGE}--".encode() not in went


def long(size: int) -> Iterator[bytes]:
    yield b"--edge\r\n" + b'Content-Disposition: form-data; name="file"\r\n\r\n'
    for _ in range(size // 2**16):
        yield b"{" * 2**16


async def test_no_more_is_held_than_a_line_may_have() -> None:
    """A first line without an end is passed on, as large as the rest may be."""
    taken = 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal taken
        for chunk in long(4 * HELD_MAX_BYTES):
            taken += len(chunk)
            yield chunk

    upload = Upload(source(), FORM, ACCOUNTS, None)
    await upload.open()
    assert taken <= HELD_MAX_BYTES + 2**17
    went = sum([len(chunk) async for chunk in upload.chunks()])
    assert (upload.account, went) == (None, taken)


async def test_a_later_line_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addressing, "LINE_MAX_BYTES", 1000)
    whole = form(PURPOSE, ("file", line(1) + b"\n" + b"{" * 5000 + b"\n"))
    error, went = await refused(whole, size=100)
    assert error.problems[0].line == 2  # type: ignore[attr-defined]
    assert error.problems[0].code == "line_too_long"  # type: ignore[attr-defined]
    assert b"{{" not in went


async def test_what_cannot_be_a_request_is_not_held() -> None:
    """An image of any size goes on with its first bytes, whatever its purpose will be."""
    taken = 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal taken
        for chunk in (form(("file", b"\x89PNG" + bytes(300)))[:200], *[bytes(100)] * 10):
            taken += 1
            yield chunk

    upload = Upload(source(), FORM, ACCOUNTS, None)
    await upload.open()
    assert taken == 1
