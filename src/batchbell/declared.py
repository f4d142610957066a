"""Reads the accounts that are declared: by variables of the environment, and by the settings file.

A provider's variable makes an account of the provider's name, such as `OPENAI_API_KEY` the account
`openai`. A table `[[accounts]]` makes one of any name, and may have limits of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from batchbell.api.fields import NAME_MAX, NAME_SHAPE
from batchbell.core import signing
from batchbell.core.declared import Declarations, Declared
from batchbell.core.errors import InvalidRequest, SettingsError
from batchbell.core.ids import NAME_PATTERN
from batchbell.core.nearest import hint, shown
from batchbell.core.polling import RELAXED_SECONDS, Pace
from batchbell.core.submission import Expiry
from batchbell.net.api import checked_base
from batchbell.providers.profile import Profile
from batchbell.providers.profiles import DEFAULT, PROFILES
from batchbell.providers.registry import SIGN_IN, is_sendable, named_profile, signs_in
from batchbell.settings import ExpirySeconds, Settings

TABLE = "[[accounts]]"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class AccountTable(BaseModel):
    """One table `[[accounts]]`. Each description is its row in docs/reference/settings.md."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(strict=True, min_length=1, max_length=NAME_MAX)] = Field(
        description="What the account is called; unique. Required."
    )
    provider: Annotated[str, Field(strict=True)] = Field(
        DEFAULT.name, description="Whose API it is: a provider of the table above."
    )
    base_url: Annotated[str, Field(strict=True)] | None = Field(
        None,
        description="Where the API is. Default: the provider's variable for it, else the provider's"
        " own address.",
    )
    api_key_env: Annotated[str, Field(strict=True)] | None = Field(
        None,
        description="The name of the variable that holds the API key. Default: the provider's"
        " variable.",
    )
    hook_secret_env: Annotated[str, Field(strict=True)] | None = Field(
        None,
        description="The name of the variable that holds the secret with which the provider signs"
        " its own webhooks; several secrets are parted by spaces. Default: the provider's variable"
        " for it.",
    )
    hook_audience: Annotated[str, Field(strict=True, min_length=1)] | None = Field(
        None,
        description="The `aud` of the tokens with which the provider signs webhooks that single"
        " batches ask for. Default: the address that they go to.",
    )
    discover: Annotated[bool, Field(strict=True)] | None = Field(
        None, description="As `BATCHBELL_DISCOVER`, for this account."
    )
    poll_interval_seconds: Annotated[float, Field(gt=0, le=86400)] | None = Field(
        None, description="As `BATCHBELL_POLL_INTERVAL_SECONDS`, for this account."
    )
    calls_per_minute: Annotated[int, Field(ge=1, strict=True)] | None = Field(
        None, description="As `BATCHBELL_CALLS_PER_MINUTE`, for this account."
    )
    input_expires_after_seconds: ExpirySeconds | None = Field(
        None, description="As `BATCHBELL_INPUT_EXPIRES_AFTER_SECONDS`, for this account."
    )
    output_expires_after_seconds: ExpirySeconds | None = Field(
        None, description="As `BATCHBELL_OUTPUT_EXPIRES_AFTER_SECONDS`, for this account."
    )
    batch_max_requests: Annotated[int, Field(ge=1, strict=True)] | None = Field(
        None,
        description="How many requests of a submission go into one batch. Default: what the"
        " provider takes.",
    )
    batch_max_bytes: Annotated[int, Field(ge=1024, strict=True)] | None = Field(
        None,
        description="How large the file of one batch may be, in bytes: 1024 or more. Default: what"
        " the provider takes.",
    )
    batch_max_tokens: Annotated[int, Field(ge=1, strict=True)] | None = Field(
        None,
        description="How many prompt tokens, by estimate, go into one batch. Default: what the"
        " provider was seen to take.",
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One key of a table, as the reference lists it."""

    name: str
    default: str
    description: str


def accounts_table() -> list[Row]:
    """Every key of `[[accounts]]`, in the order in which it is defined."""
    return [
        Row(name, "" if field.default is None or field.is_required() else str(field.default), says)
        for name, field in AccountTable.model_fields.items()
        if (says := field.description or "")
    ]


def read_declared(settings: Settings, environment: Mapping[str, str]) -> Declarations:
    """The accounts that are declared; those of the environment first.

    Raises SettingsError with everything that is wrong with the tables, or what is missing.
    """
    tables = _read_tables(settings.accounts)
    reader = _Reader(settings, environment, tables)
    return Declarations([*reader.of_environment(), *map(reader.of_table, tables)])


def pace_of(
    settings: Settings,
    profile: Profile,
    base_url: str,
    *,
    interval: float | None = None,
    calls: int | None = None,
) -> Pace:
    """The pace of an account; `interval` and `calls` are those of its table.

    The time that its provider asks for counts where nobody has chosen one, at the provider's own
    address.
    """
    chosen = interval is not None or settings.chooses_pace
    return Pace(
        poll_interval_seconds=interval or settings.poll_interval_seconds,
        calls_per_minute=calls or settings.calls_per_minute,
        look_seconds=0.0 if chosen else profile.look_seconds_at(base_url),
        relaxed_seconds=0.0 if chosen else RELAXED_SECONDS,
    )


def _read_tables(given: Sequence[Mapping[str, Any]]) -> list[AccountTable]:
    tables, problems = [], []
    for number, table in enumerate(given, 1):
        try:
            tables.append(AccountTable.model_validate(table))
        except ValidationError as error:
            problems += [f"{_place(number, table)}: {says}" for says in _problems(error)]
    names = [table.name for table in tables]
    problems += [
        f"{TABLE}: {name!r} is there {times} times. Give each account another name."
        for name, times in Counter(names).items()
        if times > 1
    ]
    problems += [
        f"{TABLE} {shown(name)}: the name {NAME_SHAPE}."
        for name in names
        if not re.fullmatch(NAME_PATTERN, name)
    ]
    if problems:
        raise SettingsError(" ".join(problems))
    return tables


def _place(number: int, table: Mapping[str, Any]) -> str:
    name = table.get("name")
    return f"{TABLE} {shown(name)}" if isinstance(name, str) and name else f"{TABLE} {number}"


def _problems(error: ValidationError) -> Iterator[str]:
    for one in error.errors():
        name = str(one["loc"][0])
        if one["type"] == "extra_forbidden":
            yield f"{shown(name)} is no setting of an account. {hint(name, _names())}"
        elif one["type"] == "missing":
            yield f"{name} is missing."
        else:
            yield f"{name}: {one['msg']}."


def _names() -> set[str]:
    return set(AccountTable.model_fields)


class _Reader:
    """Reads keys and addresses for the tables, and fills in what they leave out."""

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        tables: Sequence[AccountTable],
    ) -> None:
        self._settings = settings
        self._environment = environment
        self._tables = tables
        self._names = {table.name for table in tables}
        self._read = {self._variable_of(table) for table in tables}

    def of_environment(self) -> Iterator[Declared]:
        """An account for each provider whose variable is set, and not read by a table."""
        for profile in PROFILES.values():
            variable = self._set_of(profile) or self._signing_in(profile)
            if variable is None or variable in self._read:
                continue
            if profile.name in self._names:
                raise SettingsError(
                    f"{TABLE} {profile.name!r} reads another variable, and {variable} makes an"
                    " account of the same name. Rename the account in the file, or unset"
                    f" {variable}."
                )
            table = AccountTable.model_validate({"name": profile.name, "provider": profile.name})
            yield self._declared(table, profile, place=variable, in_file=False)

    def of_table(self, table: AccountTable) -> Declared:
        place = f"{TABLE} {table.name!r}"
        try:
            profile = named_profile(table.provider)
        except SettingsError as error:
            raise SettingsError(f"{place}: {error}") from None
        return self._declared(table, profile, place=place, in_file=True)

    def _declared(
        self, table: AccountTable, profile: Profile, *, place: str, in_file: bool
    ) -> Declared:
        settings = self._settings
        discover = settings.discover if table.discover is None else table.discover
        base_url = self._base_url(table, profile, place)
        return Declared(
            name=table.name,
            provider=profile.name,
            base_url=base_url,
            key=self._key_for(table, profile, place),
            key_variable=self._variable_of(table),
            hook_audience=table.hook_audience,
            hook_secrets=self._hook_secrets(table, profile, place),
            in_file=in_file,
            discover=discover,
            pace=pace_of(
                settings,
                profile,
                base_url,
                interval=table.poll_interval_seconds,
                calls=table.calls_per_minute,
            ),
            expiry=Expiry(
                input_seconds=table.input_expires_after_seconds
                or settings.input_expires_after_seconds,
                output_seconds=table.output_expires_after_seconds
                or settings.output_expires_after_seconds,
            ),
            limits=replace(
                profile.limits,
                lines=table.batch_max_requests or profile.limits.lines,
                bytes=table.batch_max_bytes or profile.limits.bytes,
                tokens=table.batch_max_tokens or profile.limits.tokens,
            ),
        )

    def _signing_in(self, profile: Profile) -> str | None:
        """The variable of the address, where that is enough to make an account."""
        address = profile.base_url_variable
        taken = any(table.provider == profile.name for table in self._tables)
        there = address is not None and self._value(address) and signs_in(profile)
        return address if there and not taken else None

    def _key_for(self, table: AccountTable, profile: Profile, place: str) -> str:
        own = table.api_key_env is not None or self._set_of(profile) is not None
        if not own and signs_in(profile):
            return SIGN_IN
        return self._key(self._variable_of(table), place)

    def _key(self, variable: str, place: str) -> str:
        if not VARIABLE.fullmatch(variable):
            # It may be the key itself: it is not shown.
            raise SettingsError(
                f"{place}: api_key_env is not the name of a variable. Put the API key into a"
                " variable of the environment, and its name here."
            )
        key = self._value(variable)
        if not key:
            raise SettingsError(
                f"{place}: the variable {variable} is not set. Set it to the API key of this"
                " account, or name another variable with api_key_env, and start again."
            )
        if not is_sendable(key):
            raise SettingsError(
                f"{place}: the value of {variable} is no API key: it holds a space or a character"
                " that no key has. Set it again, and start again."
            )
        return key

    def _hook_secrets(self, table: AccountTable, profile: Profile, place: str) -> tuple[str, ...]:
        named = table.hook_secret_env
        if profile.hooks is None:
            if named is not None:
                raise SettingsError(
                    f"{place}: hook_secret_env is of no use: {profile.title} sends no webhooks"
                    " about batches. Leave it out."
                )
            return ()
        if named is not None and not VARIABLE.fullmatch(named):
            raise SettingsError(  # it may be the secret itself: it is not shown
                f"{place}: hook_secret_env is not the name of a variable. Put the secret into a"
                " variable of the environment, and its name here."
            )
        variable = named or profile.hooks.secret_variable
        secrets = self._value(variable).replace(",", " ").split()
        if named is not None and not secrets:
            raise SettingsError(
                f"{place}: the variable {variable} is not set. Set it to the secret that the"
                " provider signs its webhooks with, or leave hook_secret_env out."
            )
        for secret in secrets:
            try:
                signing.check_secret(secret)
            except InvalidRequest as error:
                raise SettingsError(f"{place}: {variable}: {error.message}") from None
        return tuple(secrets)

    def _base_url(self, table: AccountTable, profile: Profile, place: str) -> str:
        variable = profile.base_url_variable
        named = self._value(variable) if variable else ""
        given = table.base_url or named or profile.base_url
        if not given:
            raise SettingsError(
                f"{place}: there is no base_url, and {profile.title} has none for everybody. Set"
                f" {variable or 'base_url'}."
            )
        try:
            return profile.address(checked_base(given))
        except SettingsError as error:
            source = "base_url" if table.base_url else variable
            raise SettingsError(f"{place}: {source}: {error}") from None

    def _set_of(self, profile: Profile) -> str | None:
        """The first of the provider's variables that is set."""
        return next(filter(self._value, profile.key_variables), None)

    def _variable_of(self, table: AccountTable) -> str:
        if table.api_key_env is not None:
            return table.api_key_env
        profile = PROFILES.get(table.provider)
        return "" if profile is None else self._set_of(profile) or profile.key_variable

    def _value(self, variable: str) -> str:
        """An empty variable counts as not set."""
        return self._environment.get(variable, "").strip()
