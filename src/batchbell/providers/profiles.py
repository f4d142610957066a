"""The hosts that are known. One that speaks a known dialect is added here, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

from batchbell.core.limits import Limits
from batchbell.core.model import Status
from batchbell.providers.profile import Auth, ExpiryRange, Hooks, ListStyle, Profile

DAY_SECONDS = 86_400
ENDS = {
    "batch.completed": Status.COMPLETED,
    "batch.failed": Status.FAILED,
    "batch.expired": Status.EXPIRED,
    "batch.cancelled": Status.CANCELLED,
}
"""The webhooks of OpenAI."""

OPENAI = Profile(
    name="openai",
    title="OpenAI",
    dialect="openai",
    base_url="https://api.openai.com/v1",
    key_variables=("OPENAI_API_KEY",),
    base_url_variable="OPENAI_BASE_URL",
    limits=Limits(lines=50_000, bytes=200 * 10**6),
    expiry=ExpiryRange(floor_seconds=3_600, ceiling_seconds=30 * DAY_SECONDS),
    retention_seconds=30 * DAY_SECONDS,
    home_ids=r"batch_.+",
    hooks=Hooks(secret_variable="OPENAI_WEBHOOK_SECRET", events=ENDS),  # noqa: S106 - a name
)
"""https://platform.openai.com/docs/guides/batch and the OpenAPI document, November 2026."""

ANTHROPIC = Profile(
    name="anthropic",
    title="Anthropic",
    dialect="anthropic",
    base_url="https://api.anthropic.com",
    key_variables=("ANTHROPIC_API_KEY",),
    base_url_variable="ANTHROPIC_BASE_URL",
    auth=Auth("x-api-key", ""),
    headers={"anthropic-version": "2023-06-01"},
    limits=Limits(
        lines=100_000,
        bytes=256 * 10**6,
        custom_id_characters=64,
        custom_id=r"[a-zA-Z0-9_-]{1,64}",
    ),
    retention_seconds=29 * DAY_SECONDS,
    retained_from_creation=True,
    page_size=1_000,
    batch_ids=r"msgbatch_[A-Za-z0-9]+",
)
"""https://docs.claude.com/en/docs/build-with-claude/batch-processing, November 2026. Results are
kept for 29 days after the batch was made, not after its end."""

GEMINI = Profile(
    name="gemini",
    title="Gemini API",
    dialect="gemini",
    base_url="https://generativelanguage.googleapis.com",
    key_variables=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
    base_url_variable="GOOGLE_GEMINI_BASE_URL",
    auth=Auth("x-goog-api-key", ""),
    limits=Limits(bytes=2 * 10**9),
    retention_seconds=2 * DAY_SECONDS,
    answers_in_order=True,
    returns_inputs=False,
    batch_ids=r"batches/[A-Za-z0-9_-]+",
    hooks=Hooks(
        secret_variable="GEMINI_WEBHOOK_SECRET",  # noqa: S106 - a name
        events={
            "batch.succeeded": Status.COMPLETED,
            "batch.failed": Status.FAILED,
            "batch.expired": Status.EXPIRED,
            "batch.cancelled": Status.CANCELLED,
        },
        before_id="batches/",
        keys_path="/.well-known/jwks.json",
    ),
)
"""https://ai.google.dev/gemini-api/docs/batch-api and the SDK `google-genai` 3.6, November 2026. No
most requests are named. Files are kept for 48 hours; nothing longer is said of results."""

MISTRAL = Profile(
    name="mistral",
    title="Mistral",
    dialect="mistral",
    base_url="https://api.mistral.ai/v1",
    key_variables=("MISTRAL_API_KEY",),
    base_url_variable="MISTRAL_BASE_URL",
    path="/v1",
    hosts=("mistral.ai",),
    limits=Limits(lines=1_000_000, bytes=512 * 10**6),
    list_filters=frozenset({"status", "created_after", "metadata"}),
    look_seconds=1.0,
    batch_ids=r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    ids_are_shared=True,
)
"""https://docs.mistral.ai/capabilities/batch and the SDK `mistralai` 3.7, November 2026. The most
requests are those that a workspace may have waiting. Files do not expire. A workspace may make as
little as one call a second."""

# Hosts that speak OpenAI's dialect. What their documents do not say is left as it is for all.

GROQ = Profile(
    name="groq",
    title="Groq",
    dialect="openai",
    base_url="https://api.groq.com/openai/v1",
    key_variables=("GROQ_API_KEY",),
    base_url_variable="GROQ_BASE_URL",
    path="/openai/v1",
    limits=Limits(lines=50_000, bytes=100 * 10**6),
    windows=("24h", "7d"),
    retention_seconds=30 * DAY_SECONDS,
    list_style=ListStyle.WHOLE,
)
"""https://console.groq.com/docs/batch and the SDK `groq` 1.7, November 2026. Its reference allows
100 MB, its guide 200 MB; any window from 24 hours to 7 days. Its list has no pages."""

AZURE = Profile(
    name="azure",
    title="Azure OpenAI",
    dialect="openai",
    base_url=None,
    key_variables=("AZURE_OPENAI_API_KEY",),
    base_url_variable="AZURE_OPENAI_ENDPOINT",
    path="/openai/v1",
    hosts=("openai.azure.com", "services.ai.azure.com", "cognitiveservices.azure.com"),
    auth=Auth("api-key", ""),
    signs_in=True,
    limits=Limits(lines=100_000, bytes=200 * 10**6),
    expiry=ExpiryRange(floor_seconds=14 * DAY_SECONDS, ceiling_seconds=30 * DAY_SECONDS),
    runs_on=True,
    look_seconds=60.0,
    hooks=Hooks(secret_variable="AZURE_OPENAI_WEBHOOK_SECRET", events=ENDS),  # noqa: S106 - a name
)
"""https://learn.microsoft.com/azure/foundry/openai/how-to/batch, November 2026: a batch that takes
longer than 24 hours is not expired, and a minute or more is to lie between two looks."""

DEEPINFRA = Profile(
    name="deepinfra",
    title="DeepInfra",
    dialect="openai",
    base_url="https://api.deepinfra.com/v1/openai",
    key_variables=("DEEPINFRA_TOKEN", "DEEPINFRA_API_KEY"),
    base_url_variable="DEEPINFRA_BASE_URL",
    limits=Limits(lines=50_000, bytes=200 * 10**6),
)
"""https://docs.deepinfra.com/batch, November 2026."""

DOUBLEWORD = Profile(
    name="doubleword",
    title="Doubleword",
    dialect="openai",
    base_url="https://api.doubleword.ai/v1",
    key_variables=("DOUBLEWORD_API_KEY",),
    base_url_variable="DOUBLEWORD_BASE_URL",
    windows=("24h", "1h"),
    hooks=Hooks(
        secret_variable="DOUBLEWORD_WEBHOOK_SECRET",  # noqa: S106 - a name
        events={"batch.completed": Status.COMPLETED, "batch.failed": Status.FAILED},
        batch_id="batch_id",
    ),
)
"""https://docs.doubleword.ai/inference-api, November 2026."""

MOONSHOT = Profile(
    name="moonshot",
    title="Moonshot AI",
    dialect="openai",
    base_url="https://api.moonshot.ai/v1",
    key_variables=("MOONSHOT_API_KEY",),
    base_url_variable="MOONSHOT_BASE_URL",
    hosts=("moonshot.cn",),
    windows=("24h", "12h", "7d"),
)
"""https://platform.kimi.ai/docs/api, November 2026. Any window from 12 hours to 7 days."""

NOVITA = Profile(
    name="novita",
    title="Novita AI",
    dialect="openai",
    base_url="https://api.novita.ai/openai/v1",
    key_variables=("NOVITA_API_KEY",),
    base_url_variable="NOVITA_BASE_URL",
    retention_seconds=15 * DAY_SECONDS,
    statuses={"progress": Status.IN_PROGRESS},
)
"""https://novita.ai/docs/guides/llm-batch-api, November 2026. The window cannot be chosen."""

PARASAIL = Profile(
    name="parasail",
    title="Parasail",
    dialect="openai",
    base_url="https://api.parasail.io/v1",
    key_variables=("PARASAIL_API_KEY",),
    base_url_variable="PARASAIL_BASE_URL",
)
"""https://docs.parasail.io and https://pypi.org/project/openai-batch, November 2026."""

PERPLEXITY = Profile(
    name="perplexity",
    title="Perplexity",
    dialect="openai",
    base_url="https://api.perplexity.ai/v1",
    key_variables=("PERPLEXITY_API_KEY",),
    base_url_variable="PERPLEXITY_BASE_URL",
    path="/v1",
    limits=Limits(lines=50_000, bytes=200 * 10**6),
    retention_seconds=30 * DAY_SECONDS,
)
"""https://docs.perplexity.ai/docs/agent-api/batch, November 2026. An expiry is refused."""

QWEN = Profile(
    name="qwen",
    title="Qwen (Alibaba Cloud Model Studio)",
    dialect="openai",
    base_url="https://dashscope.aliyuncs.com/compatible-mode/v1",
    key_variables=("DASHSCOPE_API_KEY",),
    base_url_variable="DASHSCOPE_BASE_URL",
    hosts=("aliyuncs.com",),
    windows=("24h", "336h"),
)
"""https://help.aliyun.com/en/model-studio/batch-interfaces-compatible-with-openai, November 2026.
Any window from 24 to 336 hours. `batch-test-model` is a model that costs nothing."""

SILICONFLOW = Profile(
    name="siliconflow",
    title="SiliconFlow",
    dialect="openai",
    base_url="https://api.siliconflow.cn/v1",
    key_variables=("SILICONFLOW_API_KEY",),
    base_url_variable="SILICONFLOW_BASE_URL",
    hosts=("siliconflow.com",),
    limits=Limits(lines=5_000, bytes=10**9),
    windows=("24h", "336h"),
    retention_seconds=30 * DAY_SECONDS,
    statuses={"in_queue": Status.VALIDATING},
)
"""https://docs.siliconflow.cn/cn/userguide/guides/batch, November 2026. Any window from 24 to 336
hours; results are kept for a month."""

ZHIPU = Profile(
    name="zhipu",
    title="Zhipu AI",
    dialect="openai",
    base_url="https://open.bigmodel.cn/api/paas/v4",
    key_variables=("ZHIPU_API_KEY", "ZHIPUAI_API_KEY"),
    base_url_variable="ZHIPUAI_BASE_URL",
    limits=Limits(lines=50_000, bytes=100 * 10**6, custom_id_characters=64),
    retention_seconds=30 * DAY_SECONDS,
)
"""https://docs.bigmodel.cn/cn/guide/tools/batch, November 2026. A batch of embeddings has 10,000
requests at most. Its one endpoint is called /v4/chat/completions."""

PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        OPENAI,
        ANTHROPIC,
        GEMINI,
        MISTRAL,
        AZURE,
        GROQ,
        DEEPINFRA,
        DOUBLEWORD,
        MOONSHOT,
        NOVITA,
        PARASAIL,
        PERPLEXITY,
        QWEN,
        SILICONFLOW,
        ZHIPU,
    )
}

DEFAULT = OPENAI
"""What an account that names no provider is of, and what messages take as their example."""
