"""What results are handed out as, and what the files of each are called on the shelf."""

from __future__ import annotations

from enum import StrEnum

from batchbell.core.results import Results
from batchbell.files.lines import Fate


class Format(StrEnum):
    """The word is the ending of a file's name, too."""

    JSONL = "jsonl"
    PARQUET = "parquet"
    CSV = "csv"

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self]


MEDIA_TYPES = {
    Format.JSONL: "application/jsonl",
    Format.PARQUET: "application/vnd.apache.parquet",
    Format.CSV: "text/csv",
}
TABLES = (Format.PARQUET, Format.CSV)


def table_of(found: Results, format: Format, fate: Fate | None) -> str:
    """What the table of all lines, or of those of one fate, is called on the shelf."""
    lines = "" if fate is None else f".{fate}"
    return f"{found.name.removesuffix('.jsonl')}{lines}.{format}"


def files_of(found: Results) -> list[str]:
    """All that may be on the shelf of these results: they come and go together."""
    fates = (None, *Fate)
    return [found.name, *(table_of(found, format, fate) for format in TABLES for fate in fates)]
