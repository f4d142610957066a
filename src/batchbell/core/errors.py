"""Every error that Batchbell raises on purpose.

BatchbellError
├── SettingsError            a setting is missing or wrong; the message says what to set
├── InvalidRequest           a caller's input cannot be taken; names the field
│   ├── NotFound             nothing of that id in this project
│   └── AmbiguousBatch       several accounts have a batch of that id
├── AccessDenied             no key, a wrong key, or a Host header that is not ours
├── StoreError
│   ├── StoreInUse           another process owns the SQLite file
│   ├── StoreOutdated        the schema is not the one that this version needs
│   ├── StoreUnavailable     the database did not answer; worth trying again
│   │   ├── StoreFull        the disk has no room for it
│   │   └── StoreMoved       its file was deleted or replaced while we had it open
│   └── SecretUnreadable     a secret in it does not open under the master keys given
│       └── SecretDamaged    its key is there, but what was sealed has been changed
├── LeaseLost                another worker holds the lease now; the write was discarded
├── ChildDied                the process that did a long piece of work died of it
├── AddressRefused           the address rules forbid a call to this URL
├── ResultsError
│   ├── ResultsGone          they are not there (any more)
│   └── ResultsUnavailable   the folder or bucket did not answer; worth trying again
│       └── PartsAwaited     parts of a submission are being fetched first
└── ProviderError            a provider's API did not answer as it should
    ├── ProviderAuthError    401, or the API's own 403: the credentials are not accepted
    ├── ProviderBillingError 402 or a quota that only money lifts
    ├── ProviderRateLimited  429: the whole account waits
    ├── ProviderNotFound     the API itself says that it has nothing of this id
    ├── ProviderRejected     the API itself says 4xx, and repeating cannot help
    ├── ProviderUnavailable  no answer, or a doubtful one: ask again
    └── MalformedBatch       one row of an otherwise good answer makes no sense
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class BatchbellError(Exception):
    """The root: whatever is raised on purpose can be caught by this."""


class SettingsError(BatchbellError):
    """A setting is missing or wrong."""


class InvalidRequest(BatchbellError):
    """A caller's input cannot be taken.

    `param` names the field, `code` is a stable word for programs, and `status` is the HTTP
    status that says the same.
    """

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str = "invalid_value",
        status: int = 400,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status


class NotFound(InvalidRequest):
    """Nothing of that id in this project: also what another project's ids look like."""

    def __init__(self, what: str, identity: str) -> None:
        super().__init__(f"No {what} found with id {identity!r}.", code="not_found", status=404)


class AmbiguousBatch(InvalidRequest):
    """Several accounts of the project have a batch of this id."""

    def __init__(self, batch_id: str, accounts: Sequence[str]) -> None:
        super().__init__(
            f"Several accounts have a batch {batch_id!r}: {', '.join(accounts)}. Say which one by"
            " `?account=`.",
            param="account",
            code="ambiguous_account",
            status=409,
        )
        self.accounts = tuple(accounts)


class AccessDenied(BatchbellError):
    """The caller may not do this.

    `status` is 401 (who are you?), 403 (not from there) or 429 (not so often).
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int = 401,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.message = message
        self.code = code
        self.status = status


class StoreError(BatchbellError):
    """The database cannot be used as it is."""


class StoreInUse(StoreError):
    """Another process owns the SQLite file; speak to it over HTTP, or use PostgreSQL."""


class StoreOutdated(StoreError):
    """The schema is older or newer than this version of Batchbell needs."""


class StoreUnavailable(StoreError):
    """The database did not answer, or was locked for too long. Trying again may work."""


class StoreFull(StoreUnavailable):
    """The disk is full: nothing can be written until somebody makes room."""


class StoreMoved(StoreUnavailable):
    """The database's file was deleted, moved or replaced: what we write there would be lost."""


class SecretUnreadable(StoreError):
    """A secret in the database is sealed under a key that is not here, or is damaged."""


class SecretDamaged(SecretUnreadable):
    """Its key is given, and yet a secret does not open: this one alone is lost."""


class LeaseLost(BatchbellError):
    """The lease ran out and somebody else has taken the work; nothing was written."""


class ChildDied(BatchbellError):
    """The child process that did some work died before it was done. Trying again may work."""


class AddressRefused(BatchbellError):
    """The address rules forbid this call. The message says which rule, and how to allow it."""


class ResultsError(BatchbellError):
    """The merged results of a batch cannot be had."""


class ResultsGone(ResultsError):
    """There is no such file: it was never written, or was deleted."""


class ResultsUnavailable(ResultsError):
    """The folder or bucket that holds results could not be used. Trying again may work."""


class PartsAwaited(ResultsUnavailable):
    """The results of some parts of a submission are being fetched: they are joined after that."""


class ProviderError(BatchbellError):
    """A provider's API did not answer as it should.

    `retry_after_seconds` is how long the provider asks to be left alone, where it does.
    `from_api` says that the answer came in the API's own error shape: anything else may come from
    a proxy in front of it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retry_after_seconds: float | None = None,
        from_api: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.retry_after_seconds = retry_after_seconds
        self.from_api = from_api


class ProviderAuthError(ProviderError):
    """401, or 403 in the API's own error shape: the account pauses and says so."""


class ProviderBillingError(ProviderError):
    """402, or a quota that only money lifts: slow polls until somebody pays."""


class ProviderRateLimited(ProviderError):
    """429: every call of the account waits, not only the one batch."""


class ProviderNotFound(ProviderError):
    """404 or 410 in the API's own error shape, about this very id."""


class ProviderRejected(ProviderError):
    """Another 4xx in the API's own error shape: the same request will never work."""


class ProviderUnavailable(ProviderError):
    """No answer, a 5xx, or an answer that proves nothing: try again with backoff.

    Such as a proxy's page or JSON, an empty body, cut-off JSON, or a 4xx that passes.
    """


class MalformedBatch(ProviderError):
    """The answer was whole, but one batch in it makes no sense; the others are fine."""


def is_full(error: BaseException | None) -> bool:
    """Whether this failed because a disk, or somebody's share of it, is full."""
    while error is not None:
        if isinstance(error, StoreFull) or (isinstance(error, OSError) and error.errno in FULL):
            return True
        error = error.__cause__
    return False
