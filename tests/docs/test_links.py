"""Every relative link in the documents leads somewhere, down to the heading."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FENCED = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[[^\]]*\]\(<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:")


def pages() -> list[Path]:
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert len(found) > 1
    return sorted(found)


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    """The page without its code blocks, in which nothing is a link or a heading."""
    return FENCED.sub("", path.read_text(encoding="utf-8"))


def links(path: Path) -> Iterator[str]:
    for target in LINK.findall(CODE.sub("", prose(path))):
        if not ELSEWHERE.match(target):
            yield target


def anchors(path: Path) -> set[str]:
    """What GitHub makes of the headings."""
    counts: Counter[str] = Counter()
    found = set()
    for heading in HEADING.findall(prose(path)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.add(f"{slug}-{counts[slug]}" if counts[slug] else slug)
        counts[slug] += 1
    return found


def broken(path: Path, link: str) -> str | None:
    target, _, anchor = link.partition("#")
    there = (path.parent / target).resolve() if target else path
    if not there.exists():
        return f"{link}: no such file"
    if not there.is_relative_to(ROOT):
        return f"{link}: outside of the repository"
    if anchor and anchor not in anchors(there):
        return f"{link}: no such heading"
    return None


@pytest.mark.parametrize("path", pages(), ids=page_name)
def test_each_link_leads_somewhere(path: Path) -> None:
    assert [why for link in links(path) if (why := broken(path, link))] == []


def test_each_page_of_the_docs_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    unlisted = {page_name(page) for page in (ROOT / "docs").rglob("*.md") if page not in listed}
    assert unlisted - {page_name(index)} == set()


def test_a_broken_link_is_found() -> None:
    page = ROOT / "README.md"
    assert broken(page, "docs/no-such-page.md") == "docs/no-such-page.md: no such file"
    assert broken(page, "#no-such-heading") == "#no-such-heading: no such heading"


@pytest.mark.parametrize("path", pages(), ids=page_name)
def test_no_page_holds_the_marks_of_a_merge(path: Path) -> None:
    marks = re.compile(r"^(<{7} |={7}$|>{7} )", re.MULTILINE)
    assert marks.findall(path.read_text(encoding="utf-8")) == []
