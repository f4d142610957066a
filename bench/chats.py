"""The files of a great batch: chat requests, and their answers in another order."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

LINES = 50_000
INPUT_LINE_BYTES = 4_000
OUTPUT_LINE_BYTES = 20_000
"""On average: 200 MB in and 1 GB out for 50,000 lines."""
WORDS = 40_000
MODEL = "gpt-5-mini"


@dataclass(frozen=True)
class Chats:
    """Where they are, and how large."""

    input: Path
    output: Path
    lines: int

    @property
    def size(self) -> int:
        """Of both, in bytes."""
        return self.input.stat().st_size + self.output.stat().st_size


def write_chats(folder: Path, *, lines: int) -> Chats:
    """Write both files. The same for each run: chance has a seed."""
    rand = random.Random(50_000)
    prose = _prose(rand)
    made = Chats(folder / "chats-in.jsonl", folder / "chats-out.jsonl", lines)
    names = [name(number) for number in range(lines)]
    with made.input.open("w") as file:
        for one in names:
            file.write(_request(one, prose, rand) + "\n")
    rand.shuffle(names)
    with made.output.open("w") as file:
        for one in names:
            file.write(_answer(one, prose, rand) + "\n")
    return made


def name(number: int) -> str:
    """The custom_id on a line of the input; they count from 0."""
    return f"ticket-{number:06d}-summary"


def _prose(rand: random.Random) -> str:
    """Words, paragraphs, quotes, and letters beyond ASCII."""
    letters = "eeeeeaaaooiiutttnnnsssrrrhhllddccmmffppggwwyybbvvkk"
    words = ["".join(rand.choices(letters, k=rand.randint(2, 11))) for _ in range(2_000)]
    words += ['"quoted"', "\u201cso\u201d", "caf\u00e9,", "x = {1: [2, 3]}", "\U0001f44d"]
    return "".join(
        word + rand.choices((" ", ", ", ".\n\n"), (20, 2, 1))[0]
        for word in rand.choices(words, k=WORDS)
    )


def _text(prose: str, rand: random.Random, size: int) -> str:
    """Some of the prose as JSON, `size` bytes long on average, and between half and twice that."""
    length = int(size * (0.5 + rand.random()))
    begin = rand.randrange(len(prose) - length)
    return json.dumps(prose[begin : begin + length])


def _request(custom_id: str, prose: str, rand: random.Random) -> str:
    text = _text(prose, rand, INPUT_LINE_BYTES - 280)
    return (
        f'{{"custom_id":"{custom_id}","method":"POST","url":"/v1/chat/completions","body":{{'
        f'"model":"{MODEL}","messages":[{{"role":"system","content":"Sum up the ticket."}},'
        f'{{"role":"user","content":{text}}}],"max_completion_tokens":4096}}}}'
    )


def _answer(custom_id: str, prose: str, rand: random.Random) -> str:
    text = _text(prose, rand, OUTPUT_LINE_BYTES - 900)
    digits = f"{rand.getrandbits(96):024x}"
    used, made = rand.randrange(500, 2_000), rand.randrange(1_000, 8_000)
    return (
        f'{{"id": "batch_req_{digits}", "custom_id": "{custom_id}", "response": {{"status_code":'
        f' 200, "request_id": "{digits}", "body": {{"id": "chatcmpl-{digits}", "object":'
        f' "chat.completion", "created": 1790000000, "model": "{MODEL}", "choices": [{{"index": 0,'
        f' "message": {{"role": "assistant", "content": {text}, "refusal": null, "annotations":'
        ' []}, "logprobs": null, "finish_reason": "stop"}], "usage": {"prompt_tokens":'
        f' {used}, "completion_tokens": {made}, "total_tokens": {used + made},'
        ' "prompt_tokens_details": {"cached_tokens": 256, "audio_tokens": 0},'
        ' "completion_tokens_details": {"reasoning_tokens": 128, "audio_tokens": 0,'
        ' "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}}, "service_tier":'
        ' "default", "system_fingerprint": "fp_44709d6fcb"}}, "error": null}'
    )
