"""Where merged results are kept: a folder of this machine, or a bucket.

Half a file is never there to be read: what is being written has another name until it is whole.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, ParamSpec, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from batchbell.core.errors import ResultsError, ResultsGone, ResultsUnavailable, SettingsError
from batchbell.threads import disk, heavy, stored

CHUNK_BYTES = 256 * 2**10
LISTED = 1000
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
MARKER = ".batchbell-place"
MARKER_MAX = 100
BUCKETS = ("s3", "s3a", "gs", "az", "azure")

P = ParamSpec("P")
T = TypeVar("T")


class ResultsStore(Protocol):
    """Files by name, each whole or not there. Raises ResultsUnavailable where it cannot be used."""

    async def put(self, name: str, file: Path) -> None:
        """Keep the content of `file` under a name; `file` may be gone afterwards."""
        ...

    async def size(self, name: str) -> int:
        """How many bytes it has. Raises ResultsGone."""
        ...

    def read(self, name: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to, and without, `end`. Raises ResultsGone."""
        ...

    async def fetch(self, name: str, target: Path) -> None:
        """Have it on this machine's disk, to be read only. It stays there when it is deleted here.

        Raises ResultsGone.
        """
        ...

    async def delete(self, name: str) -> None:
        """Forget it; one that is not there is no error."""
        ...

    def older(self, ending: str, *, before: float) -> AsyncIterator[list[str]]:
        """The names `project/file` with this ending of what was written before a time.

        They come a page at a time, and a page may be empty.
        """
        ...

    async def mark(self, marker: str) -> str:
        """Leave a marker, unless there is one; returns the one that is there."""
        ...


def open_results_store(url: str) -> ResultsStore:
    """The results store at a folder (`file:///…` or a path) or a bucket (`s3://`, `gs://`, `az://`).

    Buckets take their credentials from the environment, as their own tools do. Raises
    SettingsError.
    """
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        path = unquote(parts.path) if parts.scheme else url
        if not path or parts.netloc not in ("", "localhost"):
            raise SettingsError(f"BATCHBELL_RESULTS_URL: {url!r} names no folder of this machine.")
        return Folder(Path(path).expanduser().resolve())
    if parts.scheme not in BUCKETS:
        raise SettingsError(
            f"BATCHBELL_RESULTS_URL: {parts.scheme!r} is not supported; use a folder, s3://, gs://"
            " or az://."
        )
    try:
        return Bucket(from_url(url, client_options={"allow_http": True}))
    except (BaseError, ValueError) as error:
        raise SettingsError(f"BATCHBELL_RESULTS_URL: {url!r} cannot be used: {error}") from error


def scratch_of(results_store: ResultsStore) -> Path:
    """Where files are made before they are put: beside a folder's own, so that they are moved."""
    if isinstance(results_store, Folder):
        return results_store.root / ".scratch"
    return Path(tempfile.gettempdir()) / "batchbell"


class Folder:
    """A folder of this machine, made when the first file is put."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def put(self, name: str, file: Path) -> None:
        """Moved where that is possible, and on disk when this returns."""
        with _explained():
            await heavy(owner_of(name), _move, file, self.root / name)

    async def fetch(self, name: str, target: Path) -> None:
        """By a link, or a copy where a link cannot be."""
        with _explained():
            await stored(owner_of(name), _link, self.root / name, target)

    async def size(self, name: str) -> int:
        with _explained():
            return (await stored(owner_of(name), (self.root / name).stat)).st_size

    async def read(
        self, name: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        with _explained():
            async with _opened(self.root / name, owner_of(name), start) as file:
                left = None if end is None else end - start
                while left is None or left > 0:
                    most = CHUNK_BYTES if left is None else min(CHUNK_BYTES, left)
                    chunk = await file.read(most)
                    if not chunk:
                        break
                    if left is not None:
                        left -= len(chunk)
                    yield chunk

    async def delete(self, name: str) -> None:
        with _explained():
            await stored(owner_of(name), (self.root / name).unlink, missing_ok=True)

    async def mark(self, marker: str) -> str:
        with _explained():
            return await stored("", _mark, self.root, marker)

    async def older(self, ending: str, *, before: float) -> AsyncIterator[list[str]]:
        """All of them are one page."""
        with _explained():
            found = await stored("", _older, self.root, ending, before)
        yield found


@asynccontextmanager
async def _opened(path: Path, owner: str, start: int) -> AsyncIterator[_File]:
    """Whoever is cancelled meanwhile leaves nothing open."""
    file = _File(owner)
    try:
        await file.open(path, start)
        yield file
    finally:
        file.close()


class _File:
    """A file of a folder that is read in threads.

    A reader who leaves is cancelled while a thread may still read. The file is closed when that
    read has ended, and without waiting: to close it before would block the event loop.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._file: IO[bytes] | None = None
        self._last: asyncio.Task[Any] | None = None

    async def open(self, path: Path, start: int) -> None:
        def work() -> None:
            self._file = path.open("rb")
            if start:
                self._file.seek(start)

        await self._run(work)

    async def read(self, most: int) -> bytes:
        assert self._file is not None
        return await self._run(self._file.read, most)

    def close(self) -> None:
        if self._last is None or self._last.done():
            self._close()
        else:
            self._last.add_done_callback(self._abandon)

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._last = task = asyncio.create_task(stored(self._owner, work, *args, **kwargs))
        return await asyncio.shield(task)

    def _abandon(self, last: asyncio.Task[Any]) -> None:
        if not last.cancelled():
            last.exception()  # nobody is left to hear of it
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()


def _link(file: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(file)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(file, target)


def _older(root: Path, ending: str, before: float) -> list[str]:
    found = []
    for path in root.glob(f"*/*{ending}"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < before:
                found.append(path.relative_to(root).as_posix())
    return found


def _mark(root: Path, marker: str) -> str:
    """Of two who do it at once, both return the marker of the first."""
    path = root / MARKER
    with suppress(FileNotFoundError):
        if found := _marker_in(path.read_bytes()):
            return found
        path.unlink()  # a disk that lost power may leave it empty
    _make_private(root)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=root) as folder:
        fresh = Path(folder) / MARKER
        fresh.write_text(marker)
        fresh.chmod(PRIVATE_FILE)
        _sync(fresh)
        try:
            path.hardlink_to(fresh)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            fresh.replace(path)
    return _marker_in(path.read_bytes())


def _marker_in(content: bytes) -> str:
    return content[:MARKER_MAX].decode(errors="replace").strip()


def _move(file: Path, target: Path) -> None:
    """On disk first, and then by another name. Of two who do it at once, the last one's counts."""
    _make_private(target.parent)
    file.chmod(PRIVATE_FILE)
    _sync(file)
    try:
        file.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(file, target)
    _sync(target.parent)


def _make_private(folder: Path) -> None:
    """With all folders above it that are missing."""
    for one in reversed((folder, *folder.parents)):
        if not one.exists():
            one.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)


def _copy(file: Path, target: Path) -> None:
    """From another disk: under a name that nobody else has, so that half a copy is not seen."""
    with tempfile.TemporaryDirectory(prefix=".part-", dir=target.parent) as folder:
        beside = Path(folder) / target.name
        shutil.copyfile(file, beside)
        beside.chmod(PRIVATE_FILE)
        _sync(beside)
        beside.replace(target)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def owner_of(name: str) -> str:
    """The project that a file belongs to: its folder."""
    return name.partition("/")[0]


@contextmanager
def _explained() -> Iterator[None]:
    """Turn errors of the disk into those that a results store may raise."""
    try:
        yield
    except FileNotFoundError as error:
        raise ResultsGone(f"There is no {error.filename} any more.") from error
    except OSError as error:
        raise ResultsUnavailable(f"The results folder cannot be used: {error}") from error


class Bucket:
    """S3, Google Cloud Storage, Azure, and what speaks like them."""

    def __init__(self, store: Any) -> None:
        self._store = store

    async def put(self, name: str, file: Path) -> None:
        """A bucket shows an object when its last part has arrived, and not before."""
        try:
            await obstore.put_async(self._store, name, file)
        except (BaseError, OSError) as error:
            raise ResultsUnavailable(f"The results bucket cannot be written: {error}") from error

    async def size(self, name: str) -> int:
        try:
            return int((await obstore.head_async(self._store, name))["size"])
        except (BaseError, OSError) as error:
            raise _bucket_error(name, error) from error

    async def read(
        self, name: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        try:
            options: Any = {"range": {"offset": start} if end is None else (start, end)}
            found = await obstore.get_async(self._store, name, options=options)
            async for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)
        except (BaseError, OSError) as error:
            raise _bucket_error(name, error) from error

    async def fetch(self, name: str, target: Path) -> None:
        file = await disk(target.open, "wb")
        try:
            async for chunk in self.read(name):
                await disk(file.write, chunk)
        finally:
            await disk(file.close)

    async def delete(self, name: str) -> None:
        try:
            await obstore.delete_async(self._store, name)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise _bucket_error(name, error) from error

    async def older(self, ending: str, *, before: float) -> AsyncIterator[list[str]]:
        """A bucket lists everything that it has: one call for each page of LISTED objects."""
        try:
            async for page in obstore.list(self._store, chunk_size=LISTED):
                yield [
                    one["path"]
                    for one in page
                    if one["path"].endswith(ending)
                    and one["path"].count("/") == 1  # deeper ones are another installation's
                    and one["last_modified"].timestamp() < before
                ]
        except (BaseError, OSError) as error:
            raise _bucket_error("list of files", error) from error

    async def mark(self, marker: str) -> str:
        try:
            found = await self._marker()
        except ResultsGone:
            await self._leave(marker)
            return await self._marker()
        if not found:
            await self._overwrite(marker.encode())
        return found or marker

    async def _marker(self) -> str:
        """Whole: S3 refuses to read the first byte of what is empty."""
        try:
            found = await obstore.get_async(self._store, MARKER)
            return _marker_in(bytes(await found.bytes_async()))
        except (BaseError, OSError) as error:
            raise _bucket_error(MARKER, error) from error

    async def _leave(self, marker: str) -> None:
        content = marker.encode()
        try:
            await obstore.put_async(self._store, MARKER, content, mode="create")
        except AlreadyExistsError:
            return
        except (BaseError, OSError):  # not every bucket can do this
            await self._overwrite(content)

    async def _overwrite(self, content: bytes) -> None:
        try:
            await obstore.put_async(self._store, MARKER, content)
        except (BaseError, OSError) as error:
            raise ResultsUnavailable(f"The results bucket cannot be written: {error}") from error


def _bucket_error(name: str, error: Exception) -> ResultsError:
    if isinstance(error, FileNotFoundError):
        return ResultsGone(f"There is no {name} any more.")
    return ResultsUnavailable(f"The results bucket cannot be used: {error}")
