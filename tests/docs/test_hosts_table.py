"""The table of hosts in the guide is what the profiles say."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from batchbell.providers.profile import Profile
from batchbell.providers.profiles import AZURE, DAY_SECONDS, DEFAULT, GROQ, PROFILES

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "watch-other-hosts.md"
HEAD = "| provider | host | requests | file | windows | results kept | `custom_id` |"
ELSEWHERE = {DEFAULT.name, AZURE.name, GROQ.name}
"""They have pages of their own."""


def test_the_hosts_that_send_webhooks_are_all_listed() -> None:
    text = (PAGE.parent / "let-a-provider-ring.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ([^|]+) \| [^|]+ \| `([A-Z_]+)` \|$", text, re.M)
    sending = [one for one in PROFILES.values() if one.hooks is not None]
    assert sorted(listed) == sorted((one.title, one.hooks.secret_variable) for one in sending)


def row(profile: Profile) -> str:
    days = profile.retention_seconds and f"{profile.retention_seconds / DAY_SECONDS:g} days"
    cells = (
        f"`{profile.name}`",
        profile.title,
        f"{profile.limits.lines:,}",
        f"{profile.limits.bytes // 10**6:,} MB",
        ", ".join(f"`{window}`" for window in profile.windows),
        days or "",
        f"{profile.limits.custom_id_characters} characters",
    )
    return f"| {' | '.join(cells)} |"


def test_the_table_of_hosts_is_complete_and_equal() -> None:
    """To mend the page, put in what this test expects."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    begun = lines[lines.index(HEAD) + 2 :]
    found = list(itertools.takewhile(lambda line: line.startswith("|"), begun))
    hosts = [one for one in PROFILES.values() if one.dialect == DEFAULT.dialect]
    assert found == [row(one) for one in hosts if one.name not in ELSEWHERE]
