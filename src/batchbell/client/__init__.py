"""Batchbell for Python programs, and for our own command line.

    from batchbell.client import Batchbell

    with Batchbell() as bell:
        bell.watch("batch_abc123", "https://example.com/hook")
        done = bell.wait("batch_abc123")

`Batchbell` blocks, `AsyncBatchbell` is awaited; both say the same. What a call sends and what
its answer means is written once, in `calls`. `Batchbell` is generated from `AsyncBatchbell`. This
room speaks HTTP and nothing else: it must never open the database.
"""

from batchbell.client.async_client import AsyncBatchbell
from batchbell.client.client import Batchbell
from batchbell.client.downloads import ResultError, ResultLine, ResultResponse
from batchbell.client.errors import (
    AccessRefused,
    ApiError,
    ClientError,
    NothingFound,
    Problem,
    ServerUnavailable,
    ServerUnreachable,
    WaitTimedOut,
)
from batchbell.client.shapes import (
    Account,
    AccountDeleted,
    AccountTest,
    Attempt,
    Batch,
    BatchError,
    BatchErrors,
    BatchExtras,
    Delivery,
    DeliveryCounts,
    Endpoint,
    EndpointTest,
    Event,
    Key,
    Page,
    Part,
    Project,
    Readiness,
    Replay,
    ReplayCounts,
    RequestCounts,
    StreamedEvent,
    Submission,
    Timings,
    Watch,
    WatchSpec,
)

__all__ = [
    "AccessRefused",
    "Account",
    "AccountDeleted",
    "AccountTest",
    "ApiError",
    "AsyncBatchbell",
    "Attempt",
    "Batch",
    "BatchError",
    "BatchErrors",
    "BatchExtras",
    "Batchbell",
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
    "Readiness",
    "Replay",
    "ReplayCounts",
    "RequestCounts",
    "ResultError",
    "ResultLine",
    "ResultResponse",
    "ServerUnavailable",
    "ServerUnreachable",
    "StreamedEvent",
    "Submission",
    "Timings",
    "WaitTimedOut",
    "Watch",
    "WatchSpec",
]
