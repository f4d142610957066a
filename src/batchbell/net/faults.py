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
from batchbell.net.answer import NotHttp, clean
from batchbell.net.connection import ConnectionLost

CONNECT_TIMEOUT_SECONDS = 5.0
DETAIL_MAX_CHARACTERS = 300


class CallFailed(Exception):
    """A call got no answer, and this is why."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail


def not_resolved(host: str, error: OSError) -> CallFailed:
    return CallFailed(Fault.DNS, f"The name {host} could not be resolved: {_reason(error)}.")


def not_connected(name: str, error: Exception) -> CallFailed:
    return CallFailed(Fault.CONNECT, f"No connection to {name}: {_reason(error)}.")


def not_secure(host: str, error: Exception) -> CallFailed:
    """TLS could not be agreed on, or the certificate is not accepted."""
    if isinstance(error, ssl.SSLCertVerificationError):
        detail = f"The certificate of {host} is not accepted: {_first_line(error.verify_message)}."
    else:
        detail = f"{host} did not speak TLS as expected: {_handshake(error)}."
    return CallFailed(Fault.TLS, detail)


def fault_of(error: Exception, *, timeout_seconds: float) -> tuple[Fault, str]:
    """Classify what a call raised before there was a status. Never names the URL's path."""
    if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
        return Fault.TIMEOUT, f"No answer within {timeout_seconds:g} s."
    fault, detail = _classify(error)
    return fault, clean(detail, DETAIL_MAX_CHARACTERS)


def _classify(error: Exception) -> tuple[Fault, str]:
    if isinstance(error, CallFailed):
        return error.fault, error.detail
    if isinstance(error, aiohttp.ClientConnectorError):
        failed = _of_connector(error)
        return failed.fault, failed.detail
    for type_, fault, describe in FAULTS:
        if isinstance(error, type_):
            return fault, describe(error)
    return Fault.PROTOCOL, f"The exchange failed ({type(error).__name__})."


def _of_connector(error: aiohttp.ClientConnectorError) -> CallFailed:
    """aiohttp keeps the system's own error behind several of its own."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return not_resolved(error.host, error.os_error)
    if isinstance(error, aiohttp.ClientSSLError):
        cause = error.__cause__
        return not_secure(error.host, cause if isinstance(cause, Exception) else error)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return not_connected(f"the proxy {error.host}", error.os_error)
    return not_connected(error.host, error.os_error)


def _reason(error: Exception) -> str:
    number: int = getattr(error, "errno", None) or 0
    if number in errno.errorcode and not isinstance(error, socket.gaierror):
        return os.strerror(number)
    return _first_line(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _handshake(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "handshake failed").lower().replace("_", " ")
    return "the connection was closed"


def _first_line(text: str) -> str:
    """Without the parser's picture of the bytes, and without a full stop of its own."""
    return re.sub(r"^\d+, message:\s*", "", text.strip()).partition("\n")[0].rstrip(":. ")


def _closed(_: Exception) -> str:
    return "The connection was closed before an answer came."


FAULTS: tuple[tuple[type[Exception], Fault, Callable[[Any], str]], ...] = (
    (AddressRefused, Fault.REFUSED, str),
    (InvalidRequest, Fault.REFUSED, str),
    (
        aiohttp.ConnectionTimeoutError,
        Fault.TIMEOUT,
        lambda _: f"No connection within {CONNECT_TIMEOUT_SECONDS:g} s.",
    ),
    (ssl.SSLError, Fault.TLS, lambda _: "The TLS connection broke."),
    (ConnectionLost, Fault.RESET, _closed),
    (NotHttp, Fault.PROTOCOL, lambda _: "The answer is not valid HTTP."),
    (aiohttp.ClientConnectionError, Fault.RESET, _closed),
    (OSError, Fault.RESET, _closed),
    (
        aiohttp.ClientHttpProxyError,
        Fault.CONNECT,
        lambda e: f"The proxy refuses the tunnel ({e.status}).",
    ),
    (
        aiohttp.ClientResponseError,
        Fault.PROTOCOL,
        lambda e: f"The answer is not valid HTTP: {_first_line(e.message)}.",
    ),
)
"""The first that fits: narrow types stand before wide ones."""
