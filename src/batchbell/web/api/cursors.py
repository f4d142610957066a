"""What every list takes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

LIMIT_MAX = 100
LIMIT_DEFAULT = 20

Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="How many, at most.")]
After = Annotated[str | None, Query(description="The `last_id` of the page before.")]
