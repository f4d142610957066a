"""Sharing a few places fairly."""

from __future__ import annotations

from batchbell.core.turns import Turns, Waiting, with_room


def taken(turns: Turns[int]) -> list[tuple[str, int]]:
    found = []
    while (one := turns.take()) is not None:
        found.append(one)
    return found


def test_an_owner_with_much_to_do_leaves_room_for_the_others() -> None:
    turns: Turns[int] = Turns(most=4, most_of_one=2)
    for number in range(100):
        turns.add("many", number)
    turns.add("few", 0)
    turns.add("other", 0)
    assert taken(turns) == [("many", 0), ("few", 0), ("other", 0), ("many", 1)]
    turns.ended("few")
    assert taken(turns) == [], "two is all that one owner has"
    turns.ended("many")
    assert taken(turns) == [("many", 2)]
    assert turns.under_way == 3


def test_owners_take_turns_when_all_want_more() -> None:
    turns: Turns[int] = Turns(most=1, most_of_one=1)
    for number in range(3):
        turns.add("a", number)
        turns.add("b", number)
    order = []
    while (one := turns.take()) is not None:
        order.append(one[0])
        turns.ended(one[0])
    assert order == ["a", "b", "a", "b", "a", "b"]


def waiting(account: str, project: str, due_at: float = 0.0) -> Waiting:
    return Waiting(account_id=account, project_id=project, due_at=due_at)


def test_who_has_the_fewest_jobs_under_way_is_served_first() -> None:
    room = with_room(
        [waiting("a", "1", 5.0), waiting("b", "1", 1.0), waiting("c", "2", 9.0),
         waiting("e", "4"), waiting("f", "5")],
        of_account={"a": 1, "e": 4}, of_project={"1": 1, "5": 8},
        most_of_account=4, most_of_project=8,
    )  # fmt: skip
    assert [one.account_id for one in room] == ["c", "b", "a"]
