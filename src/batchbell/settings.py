"""Settings: from the environment, and an optional TOML file named by `BATCHBELL_CONFIG`.

The environment wins over the file, the file over the defaults. Each field's description is its
row in docs/reference/settings.md; a test holds the two together.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from batchbell.core.deletion import Deletes
from batchbell.core.errors import SettingsError
from batchbell.core.nearest import hint, misspelt, nearest
from batchbell.core.server import server_url

CONFIG_VARIABLE = "BATCHBELL_CONFIG"
ACCOUNTS_TABLE = "[[accounts]]"
"""How tables of accounts begin. No variable of the environment is called so."""
FAILPOINT_VARIABLE = "BATCHBELL_FAILPOINT"
"""Read by `failpoints`, in tests."""
PREFIX = "BATCHBELL_"
INJECTED = re.compile(
    r"BATCHBELL_(SERVICE_.*|PORT.*|(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?)"
    r"|.+_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
"""What Kubernetes sets in each container for a Service that is named `batchbell` or `batchbell-…`.

https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
"""
INJECTED_PORT = re.compile(r"(tcp|udp|sctp)://.*")
"""What it sets `…_PORT` to: no port of ours."""
ExpirySeconds = Annotated[int, Field(ge=3600, le=2_592_000)]
"""From an hour to 30 days; each provider takes its own part of that."""


def _named(*names: str) -> AliasChoices:
    return AliasChoices(*names)


class Settings(BaseSettings):
    """Everything an operator can set. Build it with `load_settings`."""

    model_config = SettingsConfigDict(
        case_sensitive=False, extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    discover: bool = Field(
        default=False,
        validation_alias=_named("BATCHBELL_DISCOVER"),
        description="Whether the accounts that are declared here find every batch that is made from"
        " now on, also one that nobody named here.",
    )
    database_path: Path = Field(
        Path("batchbell.db"),
        validation_alias=_named("DATABASE_PATH"),
        description="The SQLite file. Made at first start. Unused when `DATABASE_URL` is set.",
    )
    database_url: str | None = Field(
        None,
        validation_alias=_named("DATABASE_URL"),
        description="`postgresql://user:password@host/name` for many processes, or"
        " `sqlite:///path`.",
    )
    host: str = Field(
        "127.0.0.1",
        validation_alias=_named("HOST"),
        description="The address to listen on. Anything but loopback needs an API key first.",
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        3000, validation_alias=_named("PORT"), description="The port to listen on; 0 takes any."
    )
    trusted_proxies: str = Field(
        "",
        validation_alias=_named("BATCHBELL_TRUSTED_PROXIES"),
        description="Addresses or networks of trusted proxies, separated by commas."
        " Only their `X-Forwarded-For` and `X-Forwarded-Proto` are believed. Default: none.",
    )
    webhook_secret: SecretStr | None = Field(
        None,
        validation_alias=_named("BATCHBELL_WEBHOOK_SECRET"),
        description="Signs the webhooks: `whsec_` and base64. Without it one is made at first"
        " start and kept in the database; `batchbell secret` shows it.",
    )
    master_key: SecretStr | None = Field(
        None,
        validation_alias=_named("BATCHBELL_MASTER_KEY"),
        description="Seals the secrets in the database: the base64 of 32 bytes, or several with"
        " commas between them, of which the first seals and all open. Without it SQLite has a key"
        " file, made beside it, and on PostgreSQL secrets are kept as they are.",
    )
    url: str | None = Field(
        None,
        validation_alias=_named("BATCHBELL_URL"),
        description="Where the command line finds the server. Default: `HOST` and `PORT`.",
    )
    api_key: SecretStr | None = Field(
        None,
        validation_alias=_named("BATCHBELL_API_KEY"),
        description="The `bb_…` key that the command line and the Python client send.",
    )
    poll_interval_seconds: Annotated[float, Field(gt=0, le=86400)] = Field(
        15.0,
        validation_alias=_named("BATCHBELL_POLL_INTERVAL_SECONDS"),
        description="Seconds between two sweeps of an account. Where it is not set, a provider that"
        " asks for more time between two looks gets it, and one that announces ends itself is asked"
        " less often.",
    )
    calls_per_minute: Annotated[int, Field(ge=1)] = Field(
        1200,
        validation_alias=_named("BATCHBELL_CALLS_PER_MINUTE"),
        description="Provider calls that one account may make in a minute; sweeps slow down to"
        " keep within it.",
    )
    allow_http: bool = Field(
        default=False,
        validation_alias=_named("BATCHBELL_ALLOW_HTTP"),
        description="Let webhooks go to `http://` URLs. Always on in local mode.",
    )
    allow_cidrs: str = Field(
        "",
        validation_alias=_named("BATCHBELL_ALLOW_CIDRS"),
        description="Private networks that webhooks may go to, as CIDRs separated by commas.",
    )
    provider_proxy: SecretStr | None = Field(
        None,
        validation_alias=_named("BATCHBELL_PROVIDER_PROXY"),
        description="The proxy for calls to providers: `http://host:port` or `https://host:port`,"
        " with `user:password@` if it asks for them. `HTTPS_PROXY` is not read.",
    )
    webhook_proxy: SecretStr | None = Field(
        None,
        validation_alias=_named("BATCHBELL_WEBHOOK_PROXY"),
        description="The proxy for webhooks, written in the same way.",
    )
    no_proxy: str = Field(
        "",
        validation_alias=_named("BATCHBELL_NO_PROXY"),
        description="What is called without a proxy: hosts, domains, addresses and networks,"
        " separated by commas.",
    )
    delivery_timeout_seconds: Annotated[float, Field(ge=1, le=30)] = Field(
        15.0,
        validation_alias=_named("BATCHBELL_DELIVERY_TIMEOUT_SECONDS"),
        description="Wall clock for one webhook call, from the connection to the end of the"
        " answer.",
    )
    max_in_flight: Annotated[int, Field(ge=1, le=5000)] = Field(
        200,
        validation_alias=_named("BATCHBELL_MAX_IN_FLIGHT"),
        description="Webhook calls that one process makes at once.",
    )
    retention_days: Annotated[float, Field(gt=0)] = Field(
        30.0,
        validation_alias=_named("BATCHBELL_RETENTION_DAYS"),
        description="Days that ended batches and replays are kept, with all events and deliveries.",
    )
    attempt_retention_days: Annotated[float, Field(gt=0)] = Field(
        30.0,
        validation_alias=_named("BATCHBELL_ATTEMPT_RETENTION_DAYS"),
        description="Days that the record of an attempt is kept, if its batch is kept for longer.",
    )
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None,
        validation_alias=_named("BATCHBELL_METRICS_PORT"),
        description="Where `batchbell worker` serves its own `/metrics`, on `HOST`; the server has"
        " them beside its other routes.",
    )
    stalled_after_seconds: Annotated[float, Field(gt=0, le=2_592_000)] | None = Field(
        None,
        validation_alias=_named("BATCHBELL_STALLED_AFTER_SECONDS"),
        description="Seconds without progress after which a batch counts as stalled. Default:"
        " three times what nine in ten batches of the account take, from one hour to a day; six"
        " hours while that is not known.",
    )
    expiring_soon_seconds: Annotated[float, Field(gt=0, le=2_592_000)] = Field(
        7200.0,
        validation_alias=_named("BATCHBELL_EXPIRING_SOON_SECONDS"),
        description="How many seconds before a batch expires `batch.expiring_soon` is sent; at"
        " most a quarter of the time that the batch has in all.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        validation_alias=_named("BATCHBELL_LOG_LEVEL"),
        description="How much is logged: `debug`, `info`, `warning` or `error`.",
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto",
        validation_alias=_named("BATCHBELL_LOG_FORMAT"),
        description="`json` for machines, `text` for people; `auto` is text on a terminal.",
    )

    public_url: str | None = Field(
        None,
        validation_alias=_named("BATCHBELL_PUBLIC_URL"),
        description="The address that receivers reach this server by: links to results begin with"
        " it. Default: `BATCHBELL_URL`, else `HOST` and `PORT`.",
    )
    results_url: str | None = Field(
        None,
        validation_alias=_named("BATCHBELL_RESULTS_URL"),
        description="Where merged results are kept: a folder, `s3://bucket/prefix`, `gs://…` or"
        " `az://…`. Default: the folder `batchbell-results` beside the SQLite file, or in the"
        " working directory.",
    )
    results_retention_days: Annotated[float, Field(gt=0)] = Field(
        30.0,
        validation_alias=_named("BATCHBELL_RESULTS_RETENTION_DAYS"),
        description="Days that merged results are kept.",
    )
    results_max_bytes: Annotated[int, Field(ge=1)] = Field(
        20_000_000_000,
        validation_alias=_named("BATCHBELL_RESULTS_MAX_BYTES"),
        description="How large one output, error or input file of a batch may be, unpacked, in"
        " bytes. A batch of few requests is allowed less: 64 MiB for each.",
    )
    inline_results_max_bytes: Annotated[int, Field(ge=0, le=5_000_000)] = Field(
        262_144,
        validation_alias=_named("BATCHBELL_INLINE_RESULTS_MAX_BYTES"),
        description="Results of at most so many bytes travel in the webhook, where that is asked"
        " for.",
    )

    delete_provider_files: Deletes = Field(
        Deletes.NONE,
        validation_alias=_named("BATCHBELL_DELETE_PROVIDER_FILES"),
        description="Which of a batch's files are deleted at the provider once its results are"
        " kept here and add up: `none`, `outputs` (output and error file) or `all` (the input"
        " file too).",
    )
    input_expires_after_seconds: ExpirySeconds | None = Field(
        None,
        validation_alias=_named("BATCHBELL_INPUT_EXPIRES_AFTER_SECONDS"),
        description="When the provider is to forget the files that submissions upload, in seconds"
        " from then: 3600 to 2592000. Default: the provider's own time.",
    )
    output_expires_after_seconds: ExpirySeconds | None = Field(
        None,
        validation_alias=_named("BATCHBELL_OUTPUT_EXPIRES_AFTER_SECONDS"),
        description="The same for the output and error files of the batches that submissions make.",
    )

    submission_max_bytes: Annotated[int, Field(ge=1)] = Field(
        2_000_000_000,
        validation_alias=_named("BATCHBELL_SUBMISSION_MAX_BYTES"),
        description="How long the requests of one submission may be, in bytes.",
    )

    submission_line_max_bytes: Annotated[int, Field(ge=1024, le=64 * 2**20)] = Field(
        64 * 2**20,
        validation_alias=_named("BATCHBELL_SUBMISSION_LINE_MAX_BYTES"),
        description="How long one line of a submission may be, in bytes: 1024 to 67108864.",
    )

    accounts: list[dict[str, Any]] = Field(
        default_factory=list,
        validation_alias=_named(ACCOUNTS_TABLE),
        description="Accounts with a name and limits of their own.",
    )
    """As they stand in the file: `declared` reads them."""

    @field_validator("accounts", mode="before")
    @classmethod
    def _are_tables(cls, value: Any) -> Any:
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise ValueError(f"write each account as a table of its own, under {ACCOUNTS_TABLE}")
        return value

    @field_validator("metrics_port", mode="before")
    @classmethod
    def _is_no_port(cls, value: Any) -> Any:
        """A Service that is named `batchbell-metrics` has Kubernetes set this to a URL."""
        return None if isinstance(value, str) and INJECTED_PORT.fullmatch(value) else value

    @field_validator("host")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        """So that whoever gives a URL or a port here learns where it belongs."""
        if "/" in value or re.fullmatch(r"[^:]*:\d+", value):
            raise ValueError(f"{value!r} is no address: name it alone, and set PORT for the port")
        return value

    @field_validator("url", mode="before")
    @classmethod
    def _is_a_server(cls, value: Any) -> Any:
        return server_url(value) if isinstance(value, str) else value

    @field_validator("url", "public_url")
    @classmethod
    def _has_a_scheme(cls, value: str | None) -> str | None:
        if value and not value.lower().startswith(("http://", "https://")):
            raise ValueError(f"{value!r} must begin with http:// or https://")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        for word in filter(None, (word.strip() for word in value.split(","))):
            try:
                ip_network(word, strict=False)
            except ValueError as error:
                raise ValueError(f"{word!r} is no address and no network") from error
        return value

    @property
    def chooses_pace(self) -> bool:
        """Whether somebody has said how often accounts are swept."""
        return "poll_interval_seconds" in self.model_fields_set

    @property
    def link_url(self) -> str:
        """What links to this server begin with."""
        return (self.public_url or self.server_url).rstrip("/")

    @property
    def results_place(self) -> str:
        """Where merged results are kept: a URL, or a folder's path."""
        if self.results_url:
            return self.results_url
        file = self.store_url.partition("sqlite:///")[2]
        return str(Path(file).parent / "batchbell-results" if file else "batchbell-results")

    @property
    def store_url(self) -> str:
        """The database to open: `DATABASE_URL` if set, else the file at `DATABASE_PATH`."""
        return self.database_url or f"sqlite:///{self.database_path}"

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file, which serves one process only."""
        return self.store_url.startswith("sqlite")

    @property
    def master_keys(self) -> str | None:
        """The master keys as they were given."""
        return None if self.master_key is None else self.master_key.get_secret_value()

    @property
    def server_url(self) -> str:
        """Where the server is to be found by clients on this machine."""
        if self.url:
            return self.url
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - compared
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, InitSettingsSource(settings_cls, _from_file())


def _from_file() -> dict[str, Any]:
    """What the TOML file says, under the names that the environment uses."""
    file = os.environ.get(CONFIG_VARIABLE)
    if not file:
        return {}
    try:
        table = tomllib.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{CONFIG_VARIABLE}: {file} cannot be read: {error}") from error
    known = set(Settings.model_fields)
    unknown = [f"{name!r}. {_help_with(name, known)}" for name in sorted(set(table) - known)]
    if unknown:
        raise SettingsError(f"{CONFIG_VARIABLE}: {file} has unknown settings: {'; '.join(unknown)}")
    return {_variable(Settings.model_fields[name].validation_alias): v for name, v in table.items()}


def _help_with(name: str, known: set[str]) -> str:
    if name.endswith(("_api_key", "_base_url")):
        return f"Accounts are declared by tables {ACCOUNTS_TABLE}."
    return hint(name, known)


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; `overrides` that are not None win. Raises SettingsError in plain words.

    A variable `BATCHBELL_…` that is no setting is an error: its writer believes that it does
    something. One that is empty counts as not set, as for all of them.
    """
    _refuse_unknown(os.environ)
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise SettingsError(_plain(error)) from error


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = {row.variable for row in settings_table()} | {CONFIG_VARIABLE, FAILPOINT_VARIABLE}
    ours = {name.removeprefix(PREFIX): name for name in known if name.startswith(PREFIX)}

    def help_with(name: str) -> str:
        meant = nearest(name.upper().removeprefix(PREFIX), ours)
        return f"Did you mean {ours[meant]!r}?" if meant else hint("", ours.values())

    unknown = [
        f"{name} is no setting. {help_with(name)}"
        for name, value in sorted(environment.items())
        if value
        and name.upper().startswith(PREFIX)
        and name.upper() not in known
        and not is_injected(name, value)
    ]
    if unknown:
        raise SettingsError(" ".join(unknown))


def misspelt_variables(environment: Mapping[str, str], others: Collection[str]) -> dict[str, str]:
    """Variables that were meant to be settings without our prefix, and the setting each meant.

    `others` are known too, such as those of providers. What is misspelt is not refused: it may
    belong to another program.
    """
    known = {row.variable for row in settings_table() if not row.variable.startswith(PREFIX)}
    known |= set(others)
    near = {
        name: misspelt(name, known)
        for name, value in sorted(environment.items())
        if value and name.upper() not in known and not name.upper().startswith(PREFIX)
    }
    return {name: meant for name, meant in near.items() if meant}


def is_injected(name: str, value: str) -> bool:
    """Whether Kubernetes has set this variable, for a Service of our name."""
    if INJECTED.fullmatch(name):
        return True
    return name.endswith("_PORT") and INJECTED_PORT.fullmatch(value) is not None


def _plain(error: ValidationError) -> str:
    rows = [f"{_place(e['loc'])}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()]
    return "; ".join(rows)


def _place(location: tuple[int | str, ...]) -> str:
    """The variable, also where the command line gave the setting by its name."""
    first = Settings.model_fields.get(str(location[0]))
    if first is not None:
        return _variable(first.validation_alias)
    return ".".join(map(str, location)).upper()


@dataclass(frozen=True, slots=True)
class Row:
    """One setting, as the reference lists it."""

    variable: str
    toml: str
    default: str
    description: str


def settings_table() -> list[Row]:
    """Every setting, in the order in which it is defined."""
    return [
        Row(
            variable=_variable(field.validation_alias),
            toml=name,
            default="" if field.default is None else str(field.default),
            description=field.description or "",
        )
        for name, field in Settings.model_fields.items()
        if name != "accounts"
    ]


class Source(StrEnum):
    """Where the value of a setting comes from."""

    DEFAULT = "default"
    ENVIRONMENT = "environment"
    FILE = "file"
    COMMAND_LINE = "command line"


@dataclass(frozen=True, slots=True)
class Described:
    """A setting that is in force: its value in words, without what is secret."""

    row: Row
    value: str
    source: Source


def describe(settings: Settings) -> list[Described]:
    """Every setting as it is in force here, and who said so."""
    file = _from_file()
    return [
        Described(row, _shown(getattr(settings, row.toml)), _source(settings, row, file))
        for row in settings_table()
    ]


def _source(settings: Settings, row: Row, file: Mapping[str, Any]) -> Source:
    if row.toml not in settings.model_fields_set:
        return Source.DEFAULT
    if os.environ.get(row.variable):
        return Source.ENVIRONMENT
    return Source.FILE if row.variable in file else Source.COMMAND_LINE


CREDENTIALS = re.compile(
    r"(?<=://)[^/@\s]*@|(?<=[?&])[^=&\s]*(?:password|key|token|secret)[^=&]*=[^&]*"
)


def _shown(value: object) -> str:
    """What may be secret of a URL is left out of it, and of a secret all."""
    if isinstance(value, SecretStr):
        return "set"
    return "" if value is None else CREDENTIALS.sub("…", str(value))


def _variable(alias: object) -> str:
    assert isinstance(alias, AliasChoices)
    return str(alias.choices[0])
