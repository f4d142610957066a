"""Which dialects there are, and which of them speaks to an account's provider."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

from batchbell import __version__
from batchbell.core.errors import SettingsError
from batchbell.core.form import Form
from batchbell.core.model import Account, Batch
from batchbell.core.nearest import hint
from batchbell.providers import anthropic, entra, gemini, mistral, openai
from batchbell.providers.api import Api
from batchbell.providers.entra import SIGN_IN as SIGN_IN  # noqa: PLC0414 - its one name elsewhere
from batchbell.providers.profile import Profile
from batchbell.providers.profiles import DEFAULT, PROFILES
from batchbell.providers.protocol import Dialect, Provider

DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (openai.DIALECT, anthropic.DIALECT, gemini.DIALECT, mistral.DIALECT)
}

Connect = Callable[[str, Mapping[str, str]], Api]
"""Makes HTTP under a base URL, with these headers on every call."""

ANSWER_PREFIXES = (
    b"anthropic-",
    b"azureml-",
    b"openai-",
    b"ratelimit",
    b"x-amzn-",
    b"x-goog-",
    b"x-groq-",
    b"x-litellm-",
    b"x-ms-",
    b"x-ratelimit-",
)
"""How headers of providers and their gateways begin that are about a call. Any of them may stand
behind any base URL."""


def profile_of(account: Account) -> Profile:
    """The facts of an account's host. Raises SettingsError for a provider that is not known."""
    try:
        return named_profile(account.provider)
    except SettingsError as error:
        raise SettingsError(f"Account {account.name!r}: {error}") from None


def named_profile(name: str) -> Profile:
    """The profile of this name. Raises SettingsError."""
    profile = PROFILES.get(name)
    if profile is None:
        raise SettingsError(
            f"There is no provider {name!r}. {hint(name, PROFILES.keys())} Another host that speaks"
            f" {DEFAULT.title}'s API is of provider {DEFAULT.name!r}, at a base_url of its own."
        )
    return profile


def provider_by_name(name: str) -> str:
    """The provider of an account that names none: the one that it is called after, or the default.

    `nightly` is OpenAI's, and `anthropic` Anthropic's.
    """
    return name if name in PROFILES else DEFAULT.name


def claims(account: Account, batch_id: str) -> bool:
    """Whether the account's provider, and no other, gives its batches ids of this shape."""
    return _has_shape(account, batch_id, shared=False)


def has_any_ids(account: Account) -> bool:
    """Whether ids of the account's batches may look like anything."""
    profile = PROFILES.get(account.provider)
    return profile is None or profile.batch_ids is None


def may_have(account: Account, batch_id: str) -> bool:
    """Whether a batch of the account may have this id."""
    profile = PROFILES.get(account.provider)
    return profile is None or profile.may_have(batch_id, base_url=account.base_url)


def resembles(account: Account, batch_id: str) -> bool:
    """Whether the account's provider gives ids of this shape, and none but of this shape."""
    return _has_shape(account, batch_id, shared=True)


def _has_shape(account: Account, batch_id: str, *, shared: bool) -> bool:
    profile = PROFILES.get(account.provider)
    if profile is None or profile.batch_ids is None or profile.ids_are_shared > shared:
        return False
    return re.fullmatch(profile.batch_ids, batch_id) is not None


def takes_submissions(account: Account) -> bool:
    """Whether requests are handed in to the account's provider."""
    profile = PROFILES.get(account.provider)
    return profile is not None and profile.submissions


def results_expire_at(batch: Batch) -> float | None:
    """Until when the provider keeps the results of a batch; None where it has not ended, or no
    time can be said."""
    profile, seen = PROFILES.get(batch.provider), batch.snapshot
    if profile is None or seen is None or not batch.status.ended:
        return None
    return profile.results_expire_at(seen)


def form_of(account: Account) -> Form:
    """How requests are written that are submitted to the account. Raises SettingsError."""
    lines = dialect_of(account).lines
    return Form() if lines is None else lines.form


def speaks(account: Account, dialect: str) -> bool:
    """Whether the account's provider speaks the dialect of this name."""
    profile = PROFILES.get(account.provider)
    return profile is not None and profile.dialect == dialect


def dialect_of(account: Account) -> Dialect:
    """How an account's provider speaks. Raises SettingsError as `profile_of`."""
    return DIALECTS[profile_of(account).dialect]


def open_provider(
    account: Account,
    api_key: str,
    *,
    connect: Connect,
    clock: Callable[[], float] = time.time,
) -> Provider:
    """The way to an account's provider. Nothing is called yet.

    Raises SettingsError for a provider that we do not know, or a key that cannot be sent.
    """
    profile = profile_of(account)
    key = api_key.strip()
    if not is_sendable(key):
        raise SettingsError(f"The API key of account {account.name!r} is empty or misspelt.")
    agent = {"User-Agent": f"Batchbell/{__version__}"}
    signs_in = key == SIGN_IN and profile.signs_in and account.from_environment
    own = {} if signs_in else profile.credentials(key)
    api = connect(account.base_url, {**profile.headers, **own, **agent})
    if signs_in:
        api.sign(lambda: _signed(profile))
    return DIALECTS[profile.dialect].open(profile, api, key, clock)


async def _signed(profile: Profile) -> Mapping[str, str]:
    return profile.credentials(await entra.tokens().token())


def signs_in(profile: Profile) -> bool:
    """Whether an account that is declared without a key can be called all the same."""
    return profile.signs_in and entra.is_installed()


async def key_to_send(declared_key: str) -> str:
    """What a call is made with: the key that was declared, or a token. Raises ProviderAuthError."""
    return await entra.tokens().token() if declared_key == SIGN_IN else declared_key


def is_sendable(api_key: str) -> bool:
    """Whether an API key can be a header's value."""
    return bool(api_key) and api_key.isascii() and api_key.isprintable() and " " not in api_key
