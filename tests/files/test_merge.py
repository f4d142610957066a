"""Joining a provider's files into one, in the order of the input."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core.results import Tally, Tokens
from batchbell.files.custom_ids import Numbers
from batchbell.files.lines import PIECE_BYTES, Fate, answer
from batchbell.files.merge import merge

MISSING = ("batch_expired", "The batch expired before this request ran.")


def request(name: str) -> bytes:
    line = {"custom_id": name, "method": "POST", "url": "/v1/responses", "body": {"model": "m"}}
    return json.dumps(line).encode()


def good(name: str, **more: Any) -> bytes:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, **more}
    body = {"model": "gpt-5-mini", "usage": usage, "choices": [{"text": "ok\n"}]}
    return json.dumps(
        {"custom_id": name, "response": {"status_code": 200, "body": body}, "error": None}
    ).encode()


def refused(name: str) -> bytes:
    body = {"error": {"message": "no", "code": "bad"}}
    return json.dumps({"custom_id": name, "response": {"status_code": 400, "body": body}}).encode()


def merged(
    folder: Path, input: bytes | None, *answers: bytes
) -> tuple[Tally, list[dict[str, Any]], bytes]:
    paths = []
    for number, content in enumerate(answers):
        paths.append(folder / f"answers-{number}")
        paths[-1].write_bytes(content)
    requests = None
    if input is not None:
        requests = folder / "input"
        requests.write_bytes(input)
    target = io.BytesIO()
    result = merge(requests, paths, target, missing_code=MISSING[0], missing_message=MISSING[1])
    whole = target.getvalue()
    lines = whole.decode("utf-8", "replace").split("\n")[:-1]
    return result, [json.loads(line) for line in lines], whole


def test_lines_stand_in_the_order_of_the_input(tmp_path: Path) -> None:
    """Pitfall 16: results come in any order."""
    input = b"\n".join(map(request, "abc"))
    result, lines, whole = merged(tmp_path, input, good("c") + b"\n" + good("a"), refused("b"))
    assert [line["custom_id"] for line in lines] == ["a", "b", "c"]
    assert (result.lines, result.succeeded, result.failed, result.not_run) == (3, 2, 1, 0)
    assert result.in_input_order
    assert result.notes == ()
    assert result.size == len(whole)
    assert good("c") in whole, "what the provider wrote is passed on byte for byte"


def test_every_request_has_a_line_whatever_became_of_it(tmp_path: Path) -> None:
    """Pitfall 13: expired and cancelled batches have paid, finished lines."""
    result, lines, _ = merged(tmp_path, b"\r\n".join(map(request, "ab")) + b"\r\n", good("b"))
    assert lines[0] == {
        "id": None,
        "custom_id": "a",
        "response": None,
        "error": {"code": MISSING[0], "message": MISSING[1]},
    }
    assert (result.succeeded, result.not_run) == (1, 1)


def test_what_the_provider_says_was_not_run_is_counted_so(tmp_path: Path) -> None:
    line = {"custom_id": "a", "response": None, "error": {"code": "batch_cancelled"}}
    result, _, _ = merged(tmp_path, request("a"), json.dumps(line).encode())
    assert (result.failed, result.not_run) == (0, 1)


def test_without_the_input_the_files_keep_their_order(tmp_path: Path) -> None:
    result, lines, _ = merged(tmp_path, None, good("c") + b"\n" + good("a"), refused("b"))
    assert [line["custom_id"] for line in lines] == ["c", "a", "b"]
    assert not result.in_input_order


@pytest.mark.parametrize("empty", [b"", b"\n", b"\r\n \n"])
def test_empty_files_are_no_lines(tmp_path: Path, empty: bytes) -> None:
    """Pitfall 16: error files may be 0 bytes."""
    result, _, _ = merged(tmp_path, request("a"), good("a"), empty)
    assert (result.lines, result.notes) == (1, ())


def test_usage_is_summed_by_model_cached_tokens_too(tmp_path: Path) -> None:
    """Pitfall 20: cached tokens are not to be missed."""
    details = {"prompt_tokens_details": {"cached_tokens": 3}}
    lines = good("a", **details) + b"\n" + good("b", **details)
    result, _, _ = merged(tmp_path, None, lines)
    spent = Tokens(requests=2, input_tokens=10, cached_tokens=6, output_tokens=4)
    assert result.usage == {"gpt-5-mini": spent}


def test_usage_of_the_responses_api_counts_too(tmp_path: Path) -> None:
    usage = {
        "input_tokens": 7,
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 2},
    }
    body = {"model": "m", "usage": usage}
    line = {"custom_id": "a", "response": {"status_code": 200, "body": body}, "error": None}
    result, _, _ = merged(tmp_path, None, json.dumps(line).encode())
    assert result.usage["m"] == Tokens(
        requests=1, input_tokens=7, output_tokens=4, reasoning_tokens=2
    )


def answered(usage: bytes, said: bytes = b"ok") -> bytes:
    body = b'{"model":"m","text":"%s","usage":%s}' % (said, usage)
    return b'{"custom_id":"a","response":{"status_code":200,"body":%s},"error":null}' % body


@pytest.mark.parametrize("said", [b"half \\ud83d", b"no \xff", b'","odds":[NaN],"x":"'])
def test_usage_is_counted_however_odd_the_answer(tmp_path: Path, said: bytes) -> None:
    result, _, _ = merged(tmp_path, None, answered(b'{"input_tokens":7}', said))
    assert result.usage["m"] == Tokens(requests=1, input_tokens=7)


@pytest.mark.parametrize("number", [b"-1", b"1" * 12, b"1" * 40, b"1" * 5000, b"1e300"])
@pytest.mark.parametrize("said", [b"ok", b"half \\ud83d"])
def test_no_number_of_tokens_is_believed_that_cannot_be(number: bytes, said: bytes) -> None:
    """What a model uses for its bytes is learnt from them: one such number would undo it."""
    found = answer(answered(b'{"input_tokens":%s}' % number, said))
    assert found is not None
    assert (found.fate, found.spent) == (Fate.SUCCEEDED, None)


def test_what_does_not_add_up_is_said_and_kept(tmp_path: Path) -> None:
    files = (good("a") + b"\n" + good("a") + b"\n{broken\n" + good("stranger"),)
    result, lines, _ = merged(tmp_path, request("a") + b"\n{}\n", *files)
    assert [line["custom_id"] for line in lines] == ["a", None, "stranger"]
    assert (lines[1]["error"]["code"], lines[1]["text"]) == ("unreadable_line", "{broken")
    assert [note.split()[0] for note in result.notes] == ["1", "1", "1", "1"]
    assert (result.lines, result.surplus, result.surplus_succeeded) == (3, 2, 1)


def test_the_nth_request_has_the_nth_answer_and_a_good_one_before_a_failed_one(
    tmp_path: Path,
) -> None:
    asked = b"\n".join(map(request, ["a", "b", "a", "c"]))
    first, second = good("a", completion_tokens=1), good("a", completion_tokens=9)
    outputs = b"\n".join([refused("b"), first, second, good("b"), refused("c")])
    result, lines, whole = merged(tmp_path, asked, outputs, refused("a"))
    assert whole.split(b"\n")[:-1] == [
        first, good("b"), second, refused("c"), refused("b"), refused("a")
    ]  # fmt: skip
    assert (result.succeeded, result.failed, result.surplus) == (3, 3, 2)
    assert result.notes[0].startswith("2 answers are to no request, or to one that has an answer")
    without, _, _ = merged(tmp_path, None, outputs, refused("a"))
    assert (without.lines, without.surplus) == (6, 3)
    assert [line["custom_id"] for line in lines] == ["a", "b", "a", "c", "b", "a"]


def unnamed(text: str) -> bytes:
    body = {"model": "m", "choices": [{"text": text}]}
    return json.dumps({"custom_id": None, "response": {"status_code": 200, "body": body}}).encode()


def test_answers_without_a_name_go_by_their_place_where_nothing_else_says_whose_they_are(
    tmp_path: Path,
) -> None:
    asked = b"\n".join(map(request, "ab"))
    answers = unnamed("one") + b"\n" + unnamed("two")
    result, lines, _ = merged(tmp_path, asked, answers)
    texts = [line["response"]["body"]["choices"][0]["text"] for line in lines]
    assert ([line["custom_id"] for line in lines], texts) == (["a", "b"], ["one", "two"])
    assert "same order" in result.notes[0]
    fewer, lines, _ = merged(tmp_path, asked, unnamed("one"))
    assert [line["custom_id"] for line in lines] == ["a", "b", None], "it may be anybody's"
    assert (fewer.not_run, fewer.surplus) == (2, 1)
    _, lines, _ = merged(tmp_path, asked, good("b"), unnamed("one"))
    assert [line["custom_id"] for line in lines] == ["a", "b", None]


def test_numbers_in_place_of_names_get_their_name_back(tmp_path: Path) -> None:
    numbered = good("7").replace(b'"custom_id": "7"', b'"custom_id": 7')
    result, lines, _ = merged(tmp_path, request("7"), numbered)
    assert (lines[0]["custom_id"], result.succeeded, result.notes) == ("7", 1, ())
    asked = request("7").replace(b'"7"', b"7")
    result, _, whole = merged(tmp_path, asked, numbered)
    assert whole == numbered + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        b"[" + good("a") + b", " + good("b") + b"]",
        b"[\n" + good("a") + b",\n" + good("b") + b"\n]\n",
        b"[" + good("a") + b",\n" + good("b") + b"]",
        good("a") + b",\n" + good("b") + b",\n",
    ],
)
def test_files_that_are_written_as_an_array_have_lines_too(tmp_path: Path, content: bytes) -> None:
    result, _, whole = merged(tmp_path, b"\n".join(map(request, "ab")), content)
    assert whole == good("a") + b"\n" + good("b") + b"\n"
    assert result.notes == ()


def test_the_newest_round_speaks_for_a_request(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(request("a"))
    for number, text in enumerate([refused("a"), good("a")]):
        (tmp_path / str(number)).write_bytes(text)
    target = io.BytesIO()
    files = [tmp_path / "0", tmp_path / "1"]
    result = merge(
        tmp_path / "in", files, target, missing_code="x", missing_message="", rounds=True
    )
    assert target.getvalue() == refused("a") + b"\n"
    assert (result.lines, result.notes) == (1, ())


@pytest.mark.long
def test_a_million_short_lines_take_little_memory() -> None:
    import tracemalloc

    names = Numbers()
    tracemalloc.start()
    for number in range(200_000):
        assert names.add(f"r{number}", number) == number
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 200_000 * 48
    assert [names.get(f"r{n}") for n in (0, 77, 199_999, 200_000)] == [0, 77, 199_999, None]
    assert names.add("r5", 9) == 5
    assert len(names) == 200_000


@pytest.mark.parametrize(
    "line",
    [
        b'\xef\xbb\xbf{"custom_id":"a","response":{"status_code":200,"body":null},"error":null}',
        b'{"custom_id":"a","response":{"status_code":200,"body":"text"},"error":null}',
        b'{"custom_id":"a","response":{"status_code":200,"body":{"usage":"?"}},"error":null}',
        b'{"custom_id":"a","response":{"status_code":200,"body":{"x":"\\ud83d"}},"error":null}',
        b'{"custom_id":"a","response":{"status_code":200,"body":{"x":"\xff"}},"error":null}',
        b'{"custom_id":"a","id":5,"response":{"status_code":200,"request_id":null}}',
        b'{"custom_id":"a","response":{"status_code":200,"body":[]},"error":null}',
        b'{"custom_id":"a","response":{"status_code":200,"body":{"model":5}},"error":null}',
        b'{"custom_id":"a","response":{"status_code":200},"pad":"%b"}' % (b"x" * 3 * PIECE_BYTES),
    ],
)
def test_odd_answers_are_answers(tmp_path: Path, line: bytes) -> None:
    result, _, whole = merged(tmp_path, request("a"), line)
    assert (result.succeeded, result.notes) == (1, ())
    assert whole == line.removeprefix(b"\xef\xbb\xbf") + b"\n"


DEEP = b"[" * 5000 + b"]" * 5000


def test_what_is_nested_too_deeply_is_kept_as_text(tmp_path: Path) -> None:
    deep = b'{"custom_id":"a","response":{"status_code":200,"body":' + DEEP + b"}}"
    asked = request("a") + b'\n{"custom_id":"b","body":' + DEEP + b"}"
    result, lines, _ = merged(tmp_path, asked, deep)
    codes = [(line["custom_id"], line["error"]["code"]) for line in lines]
    assert codes == [("a", MISSING[0]), (None, "unreadable_line")]
    assert lines[1]["text"].encode() == deep
    assert [note.split()[0] for note in result.notes] == ["1", "1"]


identities = st.lists(st.text(max_size=8), unique=True, max_size=12)


@given(identities, st.data())
def test_no_request_is_ever_without_its_line(names: list[str], data: st.DataObject) -> None:
    import tempfile

    answered = [name for name in names if data.draw(st.booleans())]
    shuffled = data.draw(st.permutations(answered))
    ending = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    with tempfile.TemporaryDirectory() as folder:
        result, lines, _ = merged(
            Path(folder), ending.join(map(request, names)), ending.join(map(good, shuffled))
        )
    assert [line["custom_id"] for line in lines] == names
    assert result.succeeded == len(answered)
    assert result.not_run == len(names) - len(answered)


@given(st.binary(max_size=200), st.lists(st.binary(max_size=60), max_size=5))
def test_no_bytes_at_all_break_the_merge(input: bytes, answers: list[bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        result, lines, _ = merged(Path(folder), input, *answers)
    assert result.lines == len(lines)
