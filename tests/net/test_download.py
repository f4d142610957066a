"""Fetching a file over several calls, from a provider that behaves badly."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from batchbell.core.errors import ProviderError, ProviderRejected, ProviderUnavailable
from batchbell.core.results import Arrived
from batchbell.files.provider_files import in_place_of_lines, unpack
from batchbell.net import download
from batchbell.net.api import ApiClient
from batchbell.net.download import Body, Download
from batchbell.net.hops import Hop, next_hop
from batchbell.net.pace import Pace
from batchbell.sandbox import Sandbox


def packed(text: bytes) -> bytes:
    return gzip.compress(text, mtime=0)


WHOLE = bytes(range(256)) * 1000
Answer = Callable[[Mapping[str, str], int], tuple[int, dict[str, str], bytes]]


def refuse(status: int, headers: Mapping[str, str], body: bytes) -> Exception:
    return ProviderRejected(f"{status}", from_api=True)


async def fetched(
    folder: Path, answer: Answer, *, most: int = 10**7
) -> tuple[bytes, list[Mapping[str, str]]]:
    """What arrives from an answer for each call, whose body is cut at its announced length."""
    calls: list[Mapping[str, str]] = []

    @asynccontextmanager
    async def open(headers: Mapping[str, str], pace: Pace) -> AsyncIterator[Body]:
        calls.append(headers)
        status, told, body = answer(headers, len(calls))

        async def chunks() -> AsyncIterator[bytes]:
            for place in range(0, len(body), 10_000):
                yield body[place : place + 10_000]
            if len(body) < int(told.get("content-length", len(body))):
                raise ProviderUnavailable("cut")

        yield Body(status, told, chunks())

    target = folder / "file"
    await Download(open, target, refuse=refuse, most_bytes=most, stall_seconds=1.0).run()
    return target.read_bytes(), calls


def serving(*, at: int, ranged: bool = True, **headers: str) -> Answer:
    """Cuts every answer after `at` bytes."""

    def answer(asked: Mapping[str, str], call: int) -> tuple[int, dict[str, str], bytes]:
        begin = int(asked["Range"][6:-1]) if ranged and "Range" in asked else 0
        told = {**headers, "content-length": str(len(WHOLE) - begin)}
        if begin:
            told["content-range"] = f"bytes {begin}-{len(WHOLE) - 1}/{len(WHOLE)}"
        return 206 if begin else 200, told, WHOLE[begin : begin + at]

    return answer


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSES_SECONDS", (0.0, 0.0, 0.0))


async def test_a_file_that_is_always_cut_comes_in_pieces(tmp_path: Path) -> None:
    body, calls = await fetched(tmp_path, serving(at=60_000, etag='"e"'))
    assert body == WHOLE
    begins = [f"bytes={n}0000-" for n in (6, 12, 18, 24)]
    assert [call.get("Range") for call in calls] == [None, *begins]
    assert {call.get("If-Range") for call in calls[1:]} == {'"e"'}


async def test_what_arrived_together_with_the_cut_is_kept(tmp_path: Path) -> None:
    """aiohttp drops it. Else a file that is cut after little each time would never be whole."""
    sandbox = Sandbox(api_key="sk-x")
    id = sandbox.provider.add_batch(total=20)
    sandbox.provider.finish(id)
    file_id = sandbox.provider.retrieve(id)["output_file_id"]
    cut = sandbox.provider.faults.add("cut_at", route="content", bytes=500, times=None)
    target = tmp_path / "file"
    async with sandbox:
        api = ApiClient(sandbox.base_url, {"Authorization": "Bearer sk-x"})
        how = {"refuse": refuse, "most_bytes": 10**7}
        await api.download(f"/files/{file_id}/content", target, **how)
        await api.aclose()
    whole = sandbox.provider.file(file_id).make()
    assert target.read_bytes() == whole
    assert cut.spent == -(-len(whole) // 500)


async def test_a_body_that_stalls_after_a_byte_of_each_call_is_given_up(tmp_path: Path) -> None:
    """The limit on its pace is for all calls together."""
    sandbox = Sandbox(api_key="sk-x")
    id = sandbox.provider.add_batch(total=20)
    sandbox.provider.finish(id)
    file_id = sandbox.provider.retrieve(id)["output_file_id"]
    drip = sandbox.provider.faults.add("drip", route="content", seconds=60, times=None)
    async with sandbox:
        api = ApiClient(sandbox.base_url, {"Authorization": "Bearer sk-x"})

        def open(headers: Mapping[str, str], pace: Pace) -> AbstractAsyncContextManager[Body]:
            return api._body(f"/files/{file_id}/content", headers, pace)

        slow = Download(
            open, tmp_path / "file", refuse=refuse, most_bytes=10**7, stall_seconds=0.05
        )
        slow._pace = Pace(stall_seconds=0.05, grace_seconds=0.3)
        with pytest.raises(ProviderUnavailable, match=r"silent|fewer than"):
            await slow.run()
        await api.aclose()
    assert 1 < drip.spent < 20


@pytest.mark.parametrize("etag", ["", 'W/"weak"', "bare"])
async def test_without_a_strong_validator_a_piece_must_come_again(
    tmp_path: Path, etag: str
) -> None:
    body, calls = await fetched(tmp_path, serving(at=60_000, etag=etag))
    assert body == WHOLE
    assert not any("If-Range" in call for call in calls)
    assert calls[1]["Range"] == f"bytes={60_000 - download.OVERLAP_BYTES}-"


async def test_a_server_without_ranges_is_not_asked_for_ever(tmp_path: Path) -> None:
    with pytest.raises(ProviderUnavailable, match="cut"):
        await fetched(tmp_path, serving(at=60_000, ranged=False, etag='"e"'))


async def test_another_file_is_begun_anew(tmp_path: Path) -> None:
    def answer(asked: Mapping[str, str], call: int) -> tuple[int, dict[str, str], bytes]:
        if call == 1:
            return 200, {"content-length": "9000", "etag": '"old"'}, b"o" * 5000
        if "Range" in asked:
            told = {"content-range": "bytes 5000-8999/9000", "etag": '"new"'}
            return 206, told, b"n" * 4000
        return 200, {"content-length": "9000", "etag": '"new"'}, b"n" * 9000

    body, calls = await fetched(tmp_path, answer)
    assert (body, len(calls)) == (b"n" * 9000, 3)


WRONG = [
    (206, {"content-range": "bytes 0-8999/9000"}),
    (206, {"content-range": "bytes 5001-8999/9000"}),
    (206, {"content-range": "bytes 5000-8999/9999"}),
    (206, {"content-range": "nonsense"}),
    (206, {}),
    (416, {"content-range": "bytes */4000"}),
    (416, {}),
]


@pytest.mark.parametrize(("status", "headers"), WRONG)
async def test_a_wrong_part_is_not_taken(
    tmp_path: Path, status: int, headers: dict[str, str]
) -> None:
    def answer(asked: Mapping[str, str], call: int) -> tuple[int, dict[str, str], bytes]:
        if "Range" in asked:
            return status, headers, b"x" * 4000
        told = {"content-length": "9000", "etag": '"e"'}
        return 200, told, b"n" * (5000 if call == 1 else 9000)

    body, _ = await fetched(tmp_path, answer)
    assert body == b"n" * 9000


@pytest.mark.parametrize("status", [202, 204, 206, 302, 304])
async def test_what_is_no_file_is_no_file(tmp_path: Path, status: int) -> None:
    with pytest.raises(ProviderUnavailable):
        await fetched(tmp_path, lambda *_: (status, {}, b""))


async def test_a_file_that_is_too_large_is_not_asked_for_again(tmp_path: Path) -> None:
    for headers in ({"content-length": "5000"}, {}):
        with pytest.raises(ProviderUnavailable, match="larger than 1,000 bytes"):
            await fetched(tmp_path, lambda *_, h=headers: (200, h, b"x" * 5000), most=1000)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("location", "ours"),
    [
        ("/v1/other", True),
        ("https://api.example/v1/x", True),
        ("https://api.example:8443/v1/x", False),
        ("https://store.example/x?sig=a%2Fb", False),
        ("//store.example/x", False),
    ],
)
def test_our_key_stays_with_the_api(location: str, ours: bool) -> None:
    hop = next_hop(None, "https://api.example/v1/files/a/content", location)
    assert hop.ours is ours
    assert not next_hop(
        Hop("https://store.example/x", ours=False), "https://api.example/v1", "/y"
    ).ours
    assert "sig" not in hop.shown
    assert "a%2Fb" in hop.url or "sig" not in location


@pytest.mark.parametrize(
    "location", ["http://store.example/x", "ftp://x/y", "https://a@store.example/", "http://[", ""]
)
def test_where_no_redirect_is_followed_to(location: str) -> None:
    with pytest.raises(ProviderUnavailable):
        next_hop(
            Hop("https://api.example/a", ours=True), "https://api.example/a", location or "data:,x"
        )


async def test_storage_is_reached_without_the_key_and_its_signature_is_not_told(
    tmp_path: Path,
) -> None:
    async with Sandbox(api_key="sk-test") as sandbox:
        provider = sandbox.provider
        id = provider.add_batch(total=3)
        provider.finish(id)
        file = provider.retrieve(id)["output_file_id"]
        client = ApiClient(sandbox.base_url, {"Authorization": "Bearer sk-test"})
        path, target = f"/files/{file}/content", tmp_path / "out"
        try:
            provider.faults.add("redirect", route="content")
            await client.download(path, target, refuse=refuse, most_bytes=10**6)
            assert target.read_bytes() == provider.file(file).content
            provider.faults.add("redirect", route="content")
            provider.faults.add("redirect", route="content")
            provider.delete_file(file)
            with pytest.raises(ProviderError) as caught:
                await client.download(path, target, refuse=refuse, most_bytes=10**6)
            assert "secret" not in str(caught.value)
        finally:
            await client.aclose()


def unpacked(folder: Path, sent: bytes, encoding: str | None = None, most: int = 10**6) -> bytes:
    (folder / "sent").write_bytes(sent)
    unpack(folder / "sent", folder / "lines", Arrived(encoding=encoding), most_bytes=most)
    return (folder / "lines").read_bytes()


LINE = b'{"custom_id":"a","response":{"status_code":200,"body":{}}}\n'


@pytest.mark.parametrize(
    ("sent", "encoding"),
    [
        (LINE, None),
        (LINE, "gzip"),
        (packed(LINE), "gzip"),
        (packed(LINE), None),
        (packed(LINE[:20]) + packed(LINE[20:]), "x-gzip"),
        (LINE.decode().encode("utf-16"), None),
        (zlib.compress(LINE), "deflate"),
    ],
)
def test_a_file_is_unpacked_by_what_it_is(
    tmp_path: Path, sent: bytes, encoding: str | None
) -> None:
    assert unpacked(tmp_path, sent, encoding) == LINE


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (packed(LINE * 100)[:-20], "cut off"),
        (packed(LINE)[:10] + b"rubbish" * 9, "damaged|cut off"),
        (packed(b"0" * 10**7), "larger than 1,000,000 bytes"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b'{"error": {"message": "not yet"}}', "not yet"),
        (b'{\n  "error": {\n    "message": "not yet"\n  }\n}', "not yet"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b"upstream connect error", "upstream connect error"),
    ],
)
def test_what_is_not_the_file_is_said(tmp_path: Path, sent: bytes, reason: str) -> None:
    with pytest.raises(ProviderUnavailable, match=reason):
        unpacked(tmp_path, sent)


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b'{"custom_id": null, "error": {"message": "line 5 is no JSON"}}',
        b'{"custom_id": "a", "respon',
        b'{"response": {"body": {}}}',
        LINE * 3,
    ],
)
def test_odd_lines_are_lines(tmp_path: Path, lines: bytes) -> None:
    (tmp_path / "lines").write_bytes(lines)
    assert in_place_of_lines(tmp_path / "lines") is None
