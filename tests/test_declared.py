"""Accounts are declared by variables and by tables of the settings file."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchbell.core.declared import Declarations
from batchbell.core.errors import SettingsError
from batchbell.core.model import Status
from batchbell.core.signing import make_secret
from batchbell.declared import AccountTable, accounts_table, read_declared
from batchbell.providers import entra
from batchbell.providers.entra import SIGN_IN
from batchbell.providers.profile import ListStyle, Profile
from batchbell.providers.profiles import GROQ, PROFILES
from batchbell.settings import load_settings
from batchbell.storage import accounts
from batchbell.storage.engine import Store

ENVIRONMENT = {
    "OPENAI_API_KEY": "sk-env",
    "EU_KEY": "sk-eu-0123456789",
    "EMPTY": "",
    "SPOILT": "sk with a space",
}
GOOD = '[[accounts]]\nname = "eu"\napi_key_env = "EU_KEY"\n'


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Reads the declarations in the text of a file, and an environment."""

    def read(text: str, **environment: str) -> Declarations:
        file = tmp_path / "batchbell.toml"
        file.write_text(text)
        monkeypatch.setenv("BATCHBELL_CONFIG", str(file))
        return read_declared(load_settings(), ENVIRONMENT | environment)

    return read


def told(found: Declarations) -> list[tuple[str, str, str]]:
    return [(one.name, one.base_url, one.key) for one in found]


BAD = {
    "a misspelt key": (
        GOOD + "poll_intervall_seconds = 5\n",
        "Did you mean 'poll_interval_seconds'?",
    ),
    "the key itself": (GOOD + 'api_key = "sk-1"\n', "Did you mean 'api_key_env'?"),
    "no name": ('[[accounts]]\napi_key_env = "EU_KEY"\n', "[[accounts]] 1: name is missing."),
    "a bad name": (GOOD.replace('"eu"', '"e u"'), "[[accounts]] 'e u': the name "),
    "a name twice": (GOOD + GOOD, "'eu' is there 2 times"),
    "an unknown provider": (GOOD + 'provider = "open-ai"\n', "Did you mean 'openai'?"),
    "no variable of that name": (
        GOOD.replace("EU_KEY", "US_KEY"),
        "the variable US_KEY is not set",
    ),
    "an empty variable": (GOOD.replace("EU_KEY", "EMPTY"), "the variable EMPTY is not set"),
    "a spoilt key": (GOOD.replace("EU_KEY", "SPOILT"), "the value of SPOILT is no API key"),
    "a key in place of a variable": (
        GOOD.replace("EU_KEY", "sk-eu-0123"),
        "Put the API key into a variable",
    ),
    "a bad address": (GOOD + 'base_url = "nowhere"\n', "base_url: 'nowhere' is no base URL"),
    "a number that is none": (GOOD + 'calls_per_minute = "many"\n', "calls_per_minute: "),
    "no time at all": (GOOD + "poll_interval_seconds = 0\n", "poll_interval_seconds: "),
    "an expiry too short": (GOOD + "input_expires_after_seconds = 60\n", "equal to 3600"),
    "no batch": (GOOD + "batch_max_requests = 0\n", "batch_max_requests: "),
    "one table": ('[accounts]\nname = "eu"\n', "under [[accounts]]"),
    "a list of names": ('accounts = ["eu"]\n', "under [[accounts]]"),
    "what was in files before": ('openai_api_key = "sk-1"\n', "declared by tables [[accounts]]"),
    "the name of another's variable": (
        GOOD.replace('"eu"', '"openai"'),
        "OPENAI_API_KEY makes an account of the same name",
    ),
}


@pytest.mark.parametrize(("text", "says"), BAD.values(), ids=BAD)
def test_a_bad_declaration_is_refused_and_shows_no_key(declared: Any, text: str, says: str) -> None:
    with pytest.raises(SettingsError) as error:
        declared(text)
    assert says in str(error.value)
    assert "sk-" not in str(error.value)


def test_all_that_is_wrong_is_said_at_once(declared: Any) -> None:
    with pytest.raises(SettingsError) as error:
        declared('[[accounts]]\nnmae = "a"\n[[accounts]]\nname = "b"\ndiscover = 1\n')
    for says in ("1: 'nmae' is no setting", "1: name is missing", "'b': discover: "):
        assert says in str(error.value)


def test_each_variable_of_a_provider_makes_an_account_of_its_name(declared: Any) -> None:
    assert told(declared("")) == [("openai", "https://api.openai.com/v1", "sk-env")]
    moved = declared("", OPENAI_BASE_URL="http://gateway.internal/v1/")
    assert told(moved) == [("openai", "http://gateway.internal/v1", "sk-env")]
    assert told(declared("", OPENAI_API_KEY=" ")) == []


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_every_name_of_a_key_and_the_variable_of_the_address_are_read(
    declared: Any, profile: Profile
) -> None:
    for name in profile.key_variables:
        moved = {name: "k-1", str(profile.base_url_variable): "http://127.0.0.1:9/"}
        found = [*declared("", **moved)][-1]
        assert (found.name, found.key_variable) == (profile.name, name)
        assert found.base_url == f"http://127.0.0.1:9{profile.path}"


def test_the_guide_to_contributing_adds_a_host_by_one_profile(
    declared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code that it shows, and nothing else."""
    page = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = page.split("## Add a provider")[1].split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {"Profile": Profile, "Status": Status, "ListStyle": ListStyle}
    exec(code, names)
    (made,) = [one for one in names.values() if isinstance(one, Profile)]
    assert made.name not in PROFILES
    monkeypatch.setitem(PROFILES, made.name, made)  # type: ignore[arg-type]
    table = f'[[accounts]]\nname = "two"\nprovider = "{made.name}"\napi_key_env = "EU_KEY"\n'
    found = [*declared(table, **{made.key_variable: "k-1"})]
    assert [(one.name, one.base_url) for one in found[1:]] == [
        (made.name, made.base_url),
        ("two", made.base_url),
    ]


@pytest.mark.parametrize(
    ("more", "variable", "looks"),
    [
        ("", None, 60.0),
        ("poll_interval_seconds = 5\n", None, 0.0),
        ("", "5", 0.0),
        ('base_url = "http://127.0.0.1:4000"\n', None, 0.0),
        ('base_url = "https://api.groq.com"\n', None, 60.0),
    ],
)
def test_time_between_looks_is_lifted_by_a_chosen_interval_or_a_foreign_address(
    declared: Any,
    monkeypatch: pytest.MonkeyPatch,
    more: str,
    variable: str | None,
    looks: float,
) -> None:
    slow = replace(GROQ, look_seconds=60.0)
    monkeypatch.setitem(PROFILES, "groq", slow)  # type: ignore[arg-type]
    if variable is not None:
        monkeypatch.setenv("BATCHBELL_POLL_INTERVAL_SECONDS", variable)
    found = [*declared(f'{GOOD}provider = "groq"\n{more}')][-1]
    assert (found.pace.look_seconds, found.pace.interval_seconds) == (
        looks,
        looks or found.pace.poll_interval_seconds,
    )


@pytest.mark.parametrize(
    ("installed", "more", "keys"),
    [
        (False, {}, []),
        (True, {}, [("azure", SIGN_IN)]),
        (True, {"AZURE_OPENAI_API_KEY": "k-1"}, [("azure", "k-1")]),
    ],
)
def test_the_address_of_azure_is_enough_where_the_process_can_sign_in(
    declared: Any,
    monkeypatch: pytest.MonkeyPatch,
    installed: bool,
    more: dict[str, str],
    keys: list[tuple[str, str]],
) -> None:
    monkeypatch.setattr(entra, "is_installed", lambda: installed)
    found = declared("", AZURE_OPENAI_ENDPOINT="https://r.openai.azure.com", **more)
    assert [(one.name, one.key) for one in found][1:] == keys


@pytest.mark.parametrize("installed", [False, True])
def test_so_is_that_of_a_table_which_names_no_key(
    declared: Any, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    monkeypatch.setattr(entra, "is_installed", lambda: installed)
    table = (
        '[[accounts]]\nname = "se"\nprovider = "azure"\nbase_url = "https://r.openai.azure.com"\n'
    )
    if not installed:
        with pytest.raises(SettingsError, match="AZURE_OPENAI_API_KEY is not set"):
            declared(table)
        return
    found = [*declared(table, AZURE_OPENAI_ENDPOINT="https://other.openai.azure.com")]
    assert [(one.name, one.key) for one in found[1:]] == [("se", SIGN_IN)]
    assert found[1].base_url == "https://r.openai.azure.com/openai/v1"


def test_tables_come_after_them(declared: Any) -> None:
    found = declared(GOOD + 'base_url = "https://eu.example.com/v1/"\n')
    assert told(found) == [
        ("openai", "https://api.openai.com/v1", "sk-env"),
        ("eu", "https://eu.example.com/v1", "sk-eu-0123456789"),
    ]
    assert "sk-" not in repr(list(found))


def test_a_variable_that_a_table_reads_makes_no_account_of_its_own(declared: Any) -> None:
    found = declared('[[accounts]]\nname = "main"\n')
    assert told(found) == [("main", "https://api.openai.com/v1", "sk-env")]


def test_an_account_has_its_own_limits_and_else_those_of_all(
    declared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHBELL_CALLS_PER_MINUTE", "60")
    monkeypatch.setenv("BATCHBELL_DISCOVER", "true")
    own = (
        "discover = false\npoll_interval_seconds = 90\nbatch_max_requests = 10\n"
        "batch_max_bytes = 2048\nbatch_max_tokens = 7\noutput_expires_after_seconds = 3600\n"
    )
    first, second = declared(GOOD + own)
    assert (first.discover, second.discover) == (True, False)
    assert first.pace.poll_interval_seconds == 15.0
    assert second.pace.poll_interval_seconds == 90.0
    assert first.pace.calls_per_minute == second.pace.calls_per_minute == 60
    assert (first.limits.lines, second.limits.lines) == (50_000, 10)
    assert (second.limits.bytes, second.limits.tokens) == (2048, 7)
    assert (first.expiry.output_seconds, second.expiry.output_seconds) == (None, 3600)
    assert second.expiry.input_seconds is None


async def test_a_name_that_was_added_by_api_is_not_taken_over(
    store: Store, mint: Any, clock: Any
) -> None:
    about = {"provider": "openai", "base_url": "https://a.example/v1", "mint": mint, "now": clock()}
    await store.write(accounts.add, "default", name="eu", credentials="sk-api", **about)
    with pytest.raises(SettingsError, match="accounts remove eu"):
        await store.write(accounts.ensure_account, project_id="default", name="eu", **about)
    await store.write(accounts.remove, "default", "eu", force=False, now=clock())
    taken = await store.write(accounts.ensure_account, project_id="default", name="eu", **about)
    assert taken.from_environment
    assert [one.name for one in await store.read(accounts.list_accounts)] == ["eu"]


def test_every_key_of_a_table_is_described() -> None:
    assert [row.name for row in accounts_table()] == list(AccountTable.model_fields)
    assert all(row.description for row in accounts_table())


def test_the_first_of_a_providers_variables_that_is_set_counts(declared: Any) -> None:
    def keys(text: str = "", **environment: str) -> dict[str, str]:
        found = declared(text, **environment)
        return {one.key_variable: one.key for one in found if one.provider == "gemini"}

    both = {"GOOGLE_API_KEY": "AIza-google", "GEMINI_API_KEY": "AIza-gemini"}
    assert keys() == {}
    assert keys(GEMINI_API_KEY="AIza-gemini") == {"GEMINI_API_KEY": "AIza-gemini"}
    assert keys(**both) == {"GOOGLE_API_KEY": "AIza-google"}
    table = '[[accounts]]\nname = "second"\nprovider = "gemini"\n'
    assert keys(table, **both) == {"GOOGLE_API_KEY": "AIza-google"}
    with pytest.raises(SettingsError, match="the variable GEMINI_API_KEY is not set"):
        keys(table)


OLD, NEW = (make_secret(bytes([n]) * 24) for n in (1, 2))


def test_secrets_of_webhooks_are_read_beside_the_key(declared: Any) -> None:
    """Several while one replaces another; a provider that sends none has none."""
    own = GOOD + 'hook_secret_env = "EU_HOOK"\nhook_audience = "project-7"\n'
    found = declared(
        own,
        OPENAI_WEBHOOK_SECRET=OLD,
        EU_HOOK=f"{NEW}, {OLD}",
        MISTRAL_API_KEY="m",
    )
    assert {one.name: one.hook_secrets for one in found} == {
        "openai": (OLD,),
        "mistral": (),
        "eu": (NEW, OLD),
    }
    assert [one.hook_audience for one in found] == [None, None, "project-7"]
    assert OLD not in repr(list(found))


@pytest.mark.parametrize(
    ("text", "environment", "says"),
    [
        (GOOD + 'hook_secret_env = "NONE"\n', {}, "the variable NONE is not set"),
        (GOOD + 'hook_secret_env = "whsec_x="\n', {}, "is not the name of a variable"),
        (GOOD + 'hook_secret_env = "EU_KEY"\n', {}, "EU_KEY: A webhook secret is `whsec_`"),
        ("", {"OPENAI_WEBHOOK_SECRET": "whsec_x"}, "OPENAI_WEBHOOK_SECRET: A webhook secret"),
        (GOOD + 'provider = "mistral"\nhook_secret_env = "EU_KEY"\n', {}, "sends no webhooks"),
    ],
)
def test_what_is_no_secret_of_webhooks_is_refused(
    declared: Any, text: str, environment: dict[str, str], says: str
) -> None:
    with pytest.raises(SettingsError, match=re.escape(says)) as refused:
        declared(text, **environment)
    assert "whsec_x" not in str(refused.value)
    assert ENVIRONMENT["EU_KEY"] not in str(refused.value)
