"""Batchbell for Python programs, and for our own command line.

    from batchbell.client import Batchbell

    with Batchbell() as bell:
        bell.watch("batch_abc123", "https://example.com/hook")
        done = bell.wait("batch_abc123")

`Batchbell` blocks, `AsyncBatchbell` is awaited; both say the same. What a call sends and what
its answer means is written once, in `calls`. `Batchbell` is generated from `AsyncBatchbell`. This
room speaks HTTP and nothing else: it must never open the database.
"""

from batchbell.api.accounts import Account, AccountDeleted, AccountHooks, AccountTest
from batchbell.api.batches import Batch, BatchError, BatchErrors, BatchExtras, RequestCounts
from batchbell.api.deliveries import Attempt, Delivery, Timings
from batchbell.api.endpoints import Breaker, Endpoint, EndpointTest
from batchbell.api.errors import Problem
from batchbell.api.events import DeliveryCounts, Event
from batchbell.api.health import Readiness
from batchbell.api.keys import Key
from batchbell.api.lists import Page
from batchbell.api.projects import Project
from batchbell.api.replays import Replay, ReplayCounts
from batchbell.api.results import ProviderFiles, Results, Tokens
from batchbell.api.submissions import Part, Submission
from batchbell.api.timeline import Timeline, TimelineEntry
from batchbell.api.watches import Watch
from batchbell.client.async_client import AsyncBatchbell
from batchbell.client.calls import WatchSpec
from batchbell.client.client import Batchbell
from batchbell.client.downloads import ResultError, ResultLine, ResultResponse
from batchbell.client.errors import (
    AccessRefused,
    ApiError,
    ClientError,
    NothingFound,
    ServerUnavailable,
    ServerUnreachable,
    WaitTimedOut,
)
from batchbell.client.streaming import StreamedEvent

__all__ = [
    "AccessRefused",
    "Account",
    "AccountDeleted",
    "AccountHooks",
    "AccountTest",
    "ApiError",
    "AsyncBatchbell",
    "Attempt",
    "Batch",
    "BatchError",
    "BatchErrors",
    "BatchExtras",
    "Batchbell",
    "Breaker",
    "ClientError",
    "Delivery",
    "DeliveryCounts",
    "Endpoint",
    "EndpointTest",
    "Event",
    "Key",
    "NothingFound",
    "Page",
    "Part",
    "Problem",
    "Project",
    "ProviderFiles",
    "Readiness",
    "Replay",
    "ReplayCounts",
    "RequestCounts",
    "ResultError",
    "ResultLine",
    "ResultResponse",
    "Results",
    "ServerUnavailable",
    "ServerUnreachable",
    "StreamedEvent",
    "Submission",
    "Timeline",
    "TimelineEntry",
    "Timings",
    "Tokens",
    "WaitTimedOut",
    "Watch",
    "WatchSpec",
]
