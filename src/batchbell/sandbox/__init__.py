"""A provider and a webhook receiver that need no key, no network and no money.

The demo shows Batchbell with them, and our tests and benches are driven by them. The provider
promises that OpenAI's own SDK cannot tell it from the real Files and Batches APIs; the receiver,
that it can behave as badly as any receiver in the world. Neither prints, logs or runs anything in
the background, and both end without a trace when they are closed. This room must never be needed
to run Batchbell against a real provider.

The provider::

    async with Sandbox(api_key="sk-test", schedule=Schedule.lasting(8)) as sandbox:
        AsyncOpenAI(api_key="sk-test", base_url=sandbox.base_url)

    provider = sandbox.provider              # the state behind it, with what a test may force
    id = provider.add_batch(total=10)        # an open batch without a file, newest in the list
    ids = provider.add_batches(100_000)
    provider.finish(id, "completed", failed=2)      # or failed, expired, cancelled
    provider.finish(id, "failed", problems=[problem("invalid_json_line", "…", line=3)])
    provider.set_status(id, "some_new_word", completed=3)
    provider.forget(id)                      # 404 from now on
    provider.calls["list"], provider.log     # what was asked; the routes are in ROUTES

A batch may bring its own schedule in its metadata: `sandbox_seconds` (the whole run),
`sandbox_fail` (the fraction of requests that fail), `sandbox_ends` (completed, failed, expired or
cancelled).

Faults (see FaultKind and Fault; of files also error_in_place, duplicates, half_packed, redirect and
drip; of lists stale, loop, bomb and shift)::

    fault = provider.faults.add("rate_limited", route="list", times=3, retry_after_seconds=2)
    provider.faults.add("status", status=503)                        # times=1 on any route
    provider.faults.add("html", status=200)
    provider.faults.add("slow", seconds=2) ; provider.faults.add("hang")
    provider.faults.add("reset"); provider.faults.add("truncated"); provider.faults.add("cut_off")
    provider.faults.add("unauthorized", times=None)                  # until faults.clear()
    provider.faults.add("missing", batch_id=id)                      # 404, or absent from a list
    provider.faults.add("rewrite", batch_id=id, fields={"error_file_id": ""}, drop=["status"])
    provider.faults.add("late_file", times=3)                        # an end without its files
    provider.faults.add("cut_at", route="content", bytes=65_536, times=None)     # ranges work
    provider.faults.add("empty", route="content", batch_id=error_file_id)
    provider.faults.add("rewrite", every_row=True, drop=["output_file_id"], times=None)
    provider.faults.add("shift", rows=5, skip_calls=1)               # the second page misses 5
    provider.faults.add("stale", times=None)                         # a list that never changes
    provider.faults.add("loop", times=None)                          # the first page for ever
    provider.faults.add("bomb", rows=1_000_000)                      # {"data": [0, 0, …]}
    provider.faults.add("reset", route="create", carried_out=True)   # made, the answer lost
    provider.faults.add("rate_limited", headers={"Retry-After": "soon"})
    await provider.faults.until_hanging(); provider.faults.release(); fault.spent

From another process: `POST|GET|DELETE /sandbox/faults` (the body is add's arguments),
`GET /sandbox/calls`, `POST /sandbox/batches {"number", "total", "metadata"}`,
`POST /sandbox/batches/{id}/finish|status` (the arguments of finish and set_status),
`DELETE /sandbox/batches/{id}` (forget).

Anthropic's Message Batches are played by the same server, without files and metadata::

    AsyncAnthropic(api_key="sk-test", base_url=sandbox.url)
    sandbox.anthropic                        # MessageBatches: the same words, faults and calls

Its `content` is a batch's results (`batch_id` names the batch), and its `delete_file` deletes a
batch. `/sandbox/anthropic/…` steers it from another process.

The Gemini API's batches, of both kinds, and its files lie below `/gemini`::

    genai.Client(api_key="sk-test", http_options={"base_url": sandbox.gemini_url})
    sandbox.gemini                           # ContentBatches: the same words, faults and calls
    sandbox.gemini.add_batch(inline=True)    # its answers are in the batch, and not in a file

`/sandbox/gemini/…` steers it from another process.

Mistral's batch jobs and files lie below `/mistral`::

    Mistral(api_key="sk-test", server_url=sandbox.mistral_url)
    sandbox.mistral                          # BatchJobs: the same words, faults and calls
    sandbox.mistral.add_batch(inline=True)   # its answers are in the job, and not in a file

`/sandbox/mistral/…` steers it from another process.

Groq and Azure OpenAI lie below `/groq` and `/azure`: OpenAI's dialect with habits of their own::

    AsyncGroq(api_key="sk-test", base_url=sandbox.groq_url)
    AsyncAzureOpenAI(api_key="sk-test", azure_endpoint=sandbox.azure_url, api_version="2024-10-21")
    sandbox.groq, sandbox.azure              # the same words, faults and calls
    sandbox.azure.processing_seconds = 5     # a file is not ready before
    sandbox.azure.blobs = "localhost"        # results are in the customer's storage, by URL
    sandbox.azure.signed = False             # which wants a key that nobody has

OpenAI, Azure and Gemini send webhooks when batches end; Gemini also to the `uris` of a batch::

    sandbox.provider.hook = Hook("http://127.0.0.1:3000/hooks/acc_…", "whsec_…")
    assert await sandbox.ring() == [200]     # what is due is sent now, and not by itself

The receiver::

    async with Receiver(secret="whsec_…") as receiver:
        receiver.url("/hook")
        receiver.behave("/hook", Respond(503, {"retry-after": "1"}), Respond())   # the last stays
        first, second = await receiver.wait_for(2, timeout=5)
        first.headers["webhook-id"], first.body, first.verified, receiver.bad_signatures

Behaviours: Respond, redirect(url), Hold (until `receiver.release()`), Hang, Drip, Stall, Endless,
GzipBomb, Reset, Garbage, or a function of what was received. `QuickReceiver` only counts.
"""

from batchbell.sandbox.batch_jobs import BatchJobs
from batchbell.sandbox.behaviours import (
    Behaviour,
    Drip,
    Endless,
    Garbage,
    GzipBomb,
    Hang,
    Hold,
    Reset,
    Respond,
    Stall,
    redirect,
)
from batchbell.sandbox.content_batches import ContentBatches
from batchbell.sandbox.faults import ROUTES, Fault, FaultKind, Faults
from batchbell.sandbox.hooks import Hook
from batchbell.sandbox.inputs import problem
from batchbell.sandbox.message_batches import MessageBatches
from batchbell.sandbox.provider import SandboxProvider
from batchbell.sandbox.quick import QuickReceiver
from batchbell.sandbox.receiver import Received, Receiver
from batchbell.sandbox.schedule import OPEN, Schedule
from batchbell.sandbox.server import Sandbox, serve_receiver, serve_sandbox

__all__ = [
    "OPEN",
    "ROUTES",
    "BatchJobs",
    "Behaviour",
    "ContentBatches",
    "Drip",
    "Endless",
    "Fault",
    "FaultKind",
    "Faults",
    "Garbage",
    "GzipBomb",
    "Hang",
    "Hold",
    "Hook",
    "MessageBatches",
    "QuickReceiver",
    "Received",
    "Receiver",
    "Reset",
    "Respond",
    "Sandbox",
    "SandboxProvider",
    "Schedule",
    "Stall",
    "problem",
    "redirect",
    "serve_receiver",
    "serve_sandbox",
]
