"""What an adapter needs of HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from batchbell.core.results import Arrived

Reply = tuple[int, Mapping[str, str], bytes]
"""Status, headers (to be asked for in lower case) and body."""


class Api(Protocol):
    """HTTP under one base URL; raises ProviderUnavailable where no whole answer came."""

    async def get_json_bytes(self, path: str, params: Mapping[str, str] | None = None) -> Reply:
        """GET."""
        ...

    async def post(
        self,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Reply:
        """POST JSON, or nothing. A call that creates something is given longer than others."""
        ...

    async def upload(self, path: str, file: Path, *, name: str, fields: Mapping[str, str]) -> Reply:
        """POST a file as multipart form data, from the disk."""
        ...

    async def post_file(
        self, path: str, file: Path, *, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """POST a file of JSON, from the disk. It is given as long as calls that create.

        `path` may be a whole URL, and `headers` may name another type, as for `download`.
        """
        ...

    def sign(self, headers: Callable[[], Awaitable[Mapping[str, str]]]) -> None:
        """Send these headers too, asked for anew at each call. They may raise ProviderError."""
        ...

    async def delete(self, path: str) -> Reply:
        """DELETE."""
        ...

    async def download(
        self,
        path: str,
        target: Path,
        *,
        refuse: Callable[[int, Mapping[str, str], bytes], Exception],
        most_bytes: int,
        plain: bool = False,
    ) -> Arrived:
        """The body of a GET, to a file, as it is sent: resumed where it was cut off.

        `path` may be a whole URL. Another host than the API's is called without credentials.

        Raises what `refuse` makes of a bad status. `plain` asks for no compression.
        """
        ...


def quote_segment(identity: str) -> str:
    """An id as one segment of a path: no character of it can end or climb out of the segment."""
    quoted = quote(identity, safe="")
    return quoted.replace(".", "%2E") if quoted in (".", "..") else quoted
