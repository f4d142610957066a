"""Webhooks of providers themselves."""

from __future__ import annotations

from typing import Annotated

from batchbell.api.answers import Object, about, one_of


class Hook(Object, frozen=True, kw_only=True, tag="hook"):
    """A webhook that is genuine."""

    result: Annotated[
        str,
        one_of(("accepted", "replayed", "late", "ignored")),
        about(
            "`accepted`: the batch is looked at now. Nothing changes by one that came before"
            " (`replayed`), whose batch has ended here already (`late`), or that is of no batch"
            " that is watched (`ignored`)."
        ),
    ]
