"""Accounts. Credentials are sent only, and answered never."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from batchbell.api.fields import URL_MAX, Flag, Name, Request, Storable, Text

API_KEY_MAX = 1000

BaseUrl = Annotated[
    str,
    Field(min_length=1, max_length=URL_MAX, examples=["https://api.openai.com/v1"]),
    Storable,
]
ApiKey = Annotated[str, Field(min_length=1, max_length=API_KEY_MAX), Storable]


class AccountRequest(Request):
    name: Name
    provider: Annotated[Text, Field(examples=["openai"])]
    base_url: BaseUrl | None = None
    api_key: ApiKey
    discover: Flag = None


class AccountChanges(Request):
    base_url: BaseUrl | None = None
    api_key: ApiKey | None = None
    state: Literal["active", "paused"] | None = None
    discover: Flag = None
