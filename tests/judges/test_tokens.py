"""PyJWT verifies the tokens of the sandbox, by the keys that it publishes."""

from __future__ import annotations

import json

import aiohttp
import jwt
import pytest

from batchbell.sandbox import Sandbox
from batchbell.sandbox.hooks import KEY_ID, token


async def test_a_token_of_the_sandbox_is_one(sandbox: Sandbox) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{sandbox.gemini_url}/.well-known/jwks.json") as answer,
    ):
        keys = jwt.PyJWKSet.from_json(json.dumps(await answer.json()))
    made = token({"aud": "me", "exp": 4_000_000_000, "data": {"id": "batches/a"}})
    assert jwt.get_unverified_header(made)["kid"] == KEY_ID
    claims = jwt.decode(made, keys[KEY_ID], algorithms=["RS256"], audience="me")
    assert claims["data"] == {"id": "batches/a"}
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(made, keys[KEY_ID], algorithms=["RS256"], audience="another")
