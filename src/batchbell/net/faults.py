"""From what went wrong to a fault and one short sentence for people."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp

from batchbell.core.errors import AddressRefused, InvalidRequest
from batchbell.core.outcome import Fault
from batchbell.net.answers import clean

CONNECT_TIMEOUT_SECONDS = 5.0
DETAIL_MAX_CHARACTERS = 300


def fault_of(error: Exception, *, timeout_seconds: float) -> tuple[Fault, str]:
    """Classify what a call raised before there was a status. Never names the URL's path."""
    if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
        return Fault.TIMEOUT, f"No answer within {timeout_seconds:g} s."
    fault, detail = _classify(error)
    return fault, clean(detail, DETAIL_MAX_CHARACTERS)


def _classify(error: Exception) -> tuple[Fault, str]:
    for type_, fault, describe in FAULTS:
        if isinstance(error, type_):
            return fault, describe(error)
    return Fault.PROTOCOL, f"The exchange failed ({type(error).__name__})."


def _reason(error: aiohttp.ClientConnectorError) -> str:
    cause = error.os_error
    known = cause.errno in errno.errorcode and not isinstance(cause, socket.gaierror)
    if known and cause.errno is not None:
        return os.strerror(cause.errno)
    return _first_line(cause.strerror or str(cause) or type(cause).__name__)


def _tls(error: aiohttp.ClientConnectorError) -> str:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _first_line(cause.verify_message)
    reason = cause.reason if isinstance(cause, ssl.SSLError) else None
    return (reason or "handshake failed").lower().replace("_", " ")


def _first_line(text: str) -> str:
    """Without the parser's picture of the bytes, and without a full stop of its own."""
    return re.sub(r"^\d+, message:\s*", "", text.strip()).partition("\n")[0].rstrip(":. ")


def _closed(_: Exception) -> str:
    return "The connection was closed before an answer came."


FAULTS: tuple[tuple[type[Exception], Fault, Callable[[Any], str]], ...] = (
    (AddressRefused, Fault.REFUSED, str),
    (InvalidRequest, Fault.REFUSED, str),
    (
        aiohttp.ClientConnectorDNSError,
        Fault.DNS,
        lambda e: f"The name {e.host} could not be resolved: {_reason(e)}.",
    ),
    (
        aiohttp.ClientConnectorCertificateError,
        Fault.TLS,
        lambda e: f"The certificate of {e.host} is not accepted: {_tls(e)}.",
    ),
    (
        aiohttp.ClientSSLError,
        Fault.TLS,
        lambda e: f"{e.host} did not speak TLS as expected: {_tls(e)}.",
    ),
    (
        aiohttp.ClientConnectorError,
        Fault.CONNECT,
        lambda e: f"No connection to {e.host}: {_reason(e)}.",
    ),
    (
        aiohttp.ConnectionTimeoutError,
        Fault.TIMEOUT,
        lambda _: f"No connection within {CONNECT_TIMEOUT_SECONDS:g} s.",
    ),
    (ssl.SSLError, Fault.TLS, lambda _: "The TLS connection broke."),
    (aiohttp.ClientConnectionError, Fault.RESET, _closed),
    (OSError, Fault.RESET, _closed),
    (
        aiohttp.ClientResponseError,
        Fault.PROTOCOL,
        lambda e: f"The answer is not valid HTTP: {_first_line(e.message)}.",
    ),
)
"""The first that fits: narrow types stand before wide ones."""
