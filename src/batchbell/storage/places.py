"""Where the processes that share this database keep results."""

from __future__ import annotations

from msgspec.structs import asdict
from sqlalchemy import Connection, and_, delete, or_, select, update

from batchbell.core.place import Place
from batchbell.storage.bulk import insert_missing
from batchbell.storage.schema import results_places

KEEP_SECONDS = 100 * 86400.0
"""A place that nobody has used for so long is forgotten."""
LISTED_MAX = 100


def note(connection: Connection, place: Place) -> None:
    """Write that a process uses the place now.

    It replaces a row of the same folder with another marker: there the marker was written anew.
    """
    table, row = results_places, asdict(place)
    same = and_(table.c.name == place.name, table.c.host == place.host)
    gone = or_(same, table.c.seen_at < place.seen_at - KEEP_SECONDS)
    connection.execute(delete(table).where(table.c.marker != place.marker, gone))
    insert_missing(connection, table, [row])
    connection.execute(update(table).where(table.c.marker == place.marker).values(row))


def list_places(connection: Connection) -> list[Place]:
    """All that are known, the last used one first."""
    newest = select(results_places).order_by(results_places.c.seen_at.desc()).limit(LISTED_MAX)
    return [Place(**row._mapping) for row in connection.execute(newest)]
