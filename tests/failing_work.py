"""Work that goes wrong. A module of its own: a child imports it, and little else."""

from __future__ import annotations

import os
import signal


def die(*_: object, **__: object) -> None:
    """Kill the process, whatever is asked."""
    os.kill(os.getpid(), signal.SIGKILL)


def find_disk_full(*_: object, **__: object) -> None:
    """Fail as a full disk does."""
    raise OSError(28, "No space left on device")
