"""Named places where a test may let the process die.

`BATCHBELL_FAILPOINT=dispatch.after_send:3` kills this process, with no warning and no clean-up,
the third time it reaches that place. Unset, a failpoint costs one comparison.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "BATCHBELL_FAILPOINT"

AFTER_CLAIM = "dispatch.after_claim"
BEFORE_SEND = "dispatch.before_send"
AFTER_SEND = "dispatch.after_send"
BEFORE_SETTLE = "dispatch.before_settle"
BEFORE_WRITE = "sweep.before_write"
INSIDE_WRITE = "sweep.inside_write"
INSIDE_REPLAY = "replay.inside_step"
INSIDE_DISABLE = "disable.inside_write"
INSIDE_HOLD = "disable.inside_step"
INSIDE_FLUSH = "flush.inside_step"
IN_CHILD = "child.inside_work"
BEFORE_STORING = "collect.before_storing"
BEFORE_KEEP = "collect.before_keep"
BEFORE_DELETE = "clean.before_delete"
AFTER_DELETE = "clean.after_delete"
AFTER_INTENT = "submit.after_intent"
AFTER_UPLOAD = "submit.after_upload"
AFTER_FILE = "submit.after_file"
AFTER_CREATE = "submit.after_create"
AFTER_HAND_IN = "submit.after_hand_in"
BEFORE_FINISH = "submit.before_finish"
BEFORE_ANSWER = "submission.before_answer"
AFTER_MADE = "gateway.after_made"
IN_MIGRATION = "migrate.inside"
BEFORE_KEY_FILE = "keyfile.before_rename"
AFTER_KEY_FILE = "keyfile.after_rename"
IN_SEALING = "seal.inside_step"

_armed, _, _count = os.environ.get(VARIABLE, "").partition(":")
_left = int(_count or 1)


def reach(name: str) -> None:
    """Die here if this place is armed and has been reached often enough."""
    global _left  # noqa: PLW0603 - one process dies once
    if name != _armed:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
