"""Where processes keep results, as the database knows it."""

from __future__ import annotations

from msgspec.structs import replace

from batchbell.core.place import Place
from batchbell.storage import places
from batchbell.storage.engine import Store

ONE = Place(marker="plc_1", name="/results", host="a", seen_at=1000.0)


async def note(store: Store, place: Place) -> list[Place]:
    await store.write(places.note, place)
    return await store.read(places.list_places)


async def test_a_place_is_one_row_whoever_uses_it(store: Store) -> None:
    assert await note(store, ONE) == [ONE]
    again = replace(ONE, host="b", name="/mnt/results", seen_at=1060.0)
    assert await note(store, again) == [again]
    other = replace(ONE, marker="plc_2", host="c", seen_at=1070.0)
    assert await note(store, other) == [other, again]


async def test_a_folder_with_a_new_marker_is_no_second_place(store: Store) -> None:
    await note(store, ONE)
    anew = replace(ONE, marker="plc_2", seen_at=1060.0)
    assert await note(store, anew) == [anew]


async def test_a_place_that_was_left_long_ago_is_forgotten(store: Store) -> None:
    await note(store, ONE)
    later = Place(marker="plc_2", name="/x", host="a", seen_at=1001.0 + places.KEEP_SECONDS)
    assert await note(store, later) == [later]
