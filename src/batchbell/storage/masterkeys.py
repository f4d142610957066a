"""The master keys that seal secrets, and the file beside a SQLite database that may hold them.

The file has one key a line, the first of which seals. It is always replaced whole, by a rename, so
that a kill leaves the old one or the new one; only its owner may read it.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchbell import failpoints
from batchbell.core.errors import SettingsError
from batchbell.storage.sealing import KEY_BYTES

SETTING = "BATCHBELL_MASTER_KEY"
HOW_TO_MAKE = "make one with `openssl rand -base64 32`"
OTHERS = 0o077


@dataclass(frozen=True, slots=True)
class MasterKeys:
    """The keys of a process: the first seals, all open. None at all: secrets stay plain."""

    keys: tuple[bytes, ...] = ()
    file: Path | None = None
    """Where they are kept; None where the environment gave the one that seals."""
    made: bool = False
    """Whether the file was made just now."""

    def __repr__(self) -> str:
        return f"MasterKeys({len(self.keys)}, source={self.source!r})"

    @property
    def source(self) -> str:
        """Where the key that seals comes from, for people."""
        if not self.keys:
            return "nowhere"
        return SETTING if self.file is None else str(self.file)


def read_setting(value: str) -> tuple[bytes, ...]:
    """The keys of BATCHBELL_MASTER_KEY. Raises SettingsError, and shows none of it."""
    return _decoded(value.split(","), SETTING)


def file_beside(database: Path) -> Path:
    """Where the keys of a SQLite file are kept, unless the environment gives them."""
    return Path(f"{database}.key")


def read_file(path: Path) -> tuple[bytes, ...]:
    """The keys of the file; none if there is no such file.

    Raises SettingsError for one that cannot be read, or that others can read, too.
    """
    try:
        mode = path.stat().st_mode
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingsError(f"The key file {path} cannot be read: {reason}.") from None
    if os.name == "posix" and mode & OTHERS:
        raise SettingsError(
            f"The key file {path} may be read by others (mode {mode & 0o777:o}): chmod 600 {path}"
        )
    return _decoded(lines, f"The key file {path}")


def make_file(path: Path) -> MasterKeys:
    """Make the file with a new key."""
    keys = (new_key(),)
    write_file(path, keys)
    return MasterKeys(keys, path, made=True)


def new_key() -> bytes:
    """A key of the system's own randomness."""
    return os.urandom(KEY_BYTES)


def write_file(path: Path, keys: Sequence[bytes]) -> None:
    """Have exactly these keys in the file, on disk when this returns. Raises SettingsError."""
    try:
        _replace(path, "".join(f"{base64.b64encode(key).decode()}\n" for key in keys))
    except OSError as error:
        raise SettingsError(
            f"The key file {path} cannot be written: {error.strerror or error}. Let its folder be"
            f" written to, or set {SETTING}: {HOW_TO_MAKE}."
        ) from error


def _replace(path: Path, text: str) -> None:
    new = Path(f"{path}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    failpoints.reach(failpoints.BEFORE_KEY_FILE)
    new.replace(path)
    _sync_folder(path.parent)
    failpoints.reach(failpoints.AFTER_KEY_FILE)


def _sync_folder(folder: Path) -> None:
    """So that the rename itself outlives a power cut. Windows knows no such thing."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _decoded(texts: Iterable[str], whose: str) -> tuple[bytes, ...]:
    found = [text.strip() for text in texts]
    keys = [_key(text, number, whose) for number, text in enumerate(found, 1) if text]
    if not keys:
        raise SettingsError(f"{whose} holds no key: {HOW_TO_MAKE}.")
    return tuple(dict.fromkeys(keys))


def _key(text: str, number: int, whose: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingsError(
            f"{whose}: key {number} is not the base64 of {KEY_BYTES} bytes; {HOW_TO_MAKE}."
        )
    return key
