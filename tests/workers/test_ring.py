"""The ring by itself: turns, room, and lanes that are shut."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from batchbell.core.model import Claimed, Dialect, Endpoint
from batchbell.core.outcome import Fault, Outcome
from batchbell.core.slots import MOST
from batchbell.workers.ring import DEEPEST, ROOM, Ring

GOOD = Outcome(status=200)
TIMEOUT = Outcome(fault=Fault.TIMEOUT)


def endpoint(id: str, **wishes: Any) -> Endpoint:
    url = f"https://{id}.example"
    wishes.setdefault("project_id", "default")
    return Endpoint(id=id, url=url, secrets=("whsec_",), **wishes)


def delivery(id: str, endpoint_id: str, *, attempt: int = 1) -> Claimed:
    return Claimed(
        id=id,
        endpoint_id=endpoint_id,
        event_id=f"evt_{id}",
        attempt=attempt,
        first_attempt_base=0,
        first_due_at=0.0,
        occurred_at=0.0,
        event_body="{}",
        dialect=Dialect.WATCH,
        watch_id=None,
        watch_metadata=None,
        lease_token="token",
        lease_until=100.0,
    )


def ring_of(**numbers: int) -> Ring:
    ring = Ring(200)
    claimed = [delivery(f"{id}{n}", id) for id, number in numbers.items() for n in range(number)]
    ring.add(claimed, {id: endpoint(id) for id in numbers})
    return ring


def take_all(ring: Ring) -> list[Claimed]:
    taken = []
    while (next_ := ring.take()) is not None:
        taken.append(next_[0])
    return taken


def test_endpoints_take_turns() -> None:
    first = [d.endpoint_id for d in take_all(ring_of(a=5, b=2, c=1))]
    assert first == ["a", "b", "c", "a", "b", "a", "a", "a"]


def test_no_endpoint_has_more_under_way_than_it_takes() -> None:
    ring = ring_of(a=30, b=3)
    taken = take_all(ring)
    assert Counter(d.endpoint_id for d in taken) == {"a": MOST, "b": 3}
    ring.ended(taken[0], GOOD)
    assert [d.endpoint_id for d in take_all(ring)] == ["a"]


def test_an_endpoint_in_distress_gets_half_and_slowly_more_again() -> None:
    ring = ring_of(a=32)
    for one in take_all(ring):
        ring.ended(one, TIMEOUT)
    under_way = take_all(ring)
    assert len(under_way) == 1
    assert ring.rooms()["a"] == 0, "nor is more claimed for it than it takes"
    for n in range(40):
        ring.ended(under_way.pop(), GOOD)
        ring.add([delivery(f"more{n}", "a")], {"a": endpoint("a")})
        under_way += take_all(ring)
    assert ring.under_way == MOST


def test_for_one_with_a_rate_no_more_is_claimed_than_can_be_sent_at_once() -> None:
    ring = Ring(200)
    ring.add([delivery(f"d{n}", "a") for n in range(3)], {"a": endpoint("a", rate_limit=50.0)})
    assert ring.rooms()["a"] == MOST - 3
    assert len(take_all(ring)) == 3


def test_an_ordered_endpoint_has_one_call_and_room_for_one() -> None:
    ring = Ring(200)
    ring.add([delivery("d1", "a")], {"a": endpoint("a", ordered=True)})
    assert ring.rooms()["a"] == 0
    (taken,) = take_all(ring)
    ring.ended(taken, GOOD)
    assert ring.rooms().get("a", 1) == 1
    ring.add([delivery(f"e{n}", "a") for n in range(2)], {"a": endpoint("a", ordered=True)})
    assert len(take_all(ring)) == 1, "whatever came here before it was ordered"


def test_retries_hold_half_of_the_calls_while_a_first_attempt_waits() -> None:
    ring = Ring(10)
    names = [f"e{n}" for n in range(20)]
    retries = [delivery(f"r{id}", id, attempt=2) for id in names]
    ring.add(retries, {id: endpoint(id) for id in names})
    ring.add([delivery(f"f{n}", "busy") for n in range(32)], {"busy": endpoint("busy")})
    taken = [next_[0] for _ in range(10) if (next_ := ring.take())]
    assert Counter(one.is_retry for one in taken) == {True: 5, False: 5}
    assert taken[0].is_retry is False
    assert ring.take() is None, "all calls are taken"
    for first in [one for one in taken if not one.is_retry][:3]:
        ring.ended(first, GOOD)
    for _ in range(3):
        assert (more := ring.take()) is not None
        assert not more[0].is_retry, "retries hold their half"


def test_retries_hold_all_calls_when_no_first_attempt_waits() -> None:
    ring = Ring(10)
    names = [f"e{n}" for n in range(20)]
    ring.add([delivery(id, id, attempt=2) for id in names], {id: endpoint(id) for id in names})
    assert len(take_all(ring)) == 10


def filled(calls: int, **numbers: int) -> Ring:
    """A ring with projects that have so many endpoints each, with one delivery for each."""
    ring = Ring(calls)
    for project, number in numbers.items():
        more(ring, project, number)
    return ring


def more(ring: Ring, project: str, number: int) -> None:
    ids = [f"{project}{n}" for n in range(number)]
    made = {id: endpoint(id, project_id=project) for id in ids}
    ring.add([delivery(f"d{id}", id) for id in ids], made)


def projects_of(taken: list[Claimed]) -> Counter[str]:
    return Counter(one.endpoint_id[0] for one in taken)


def test_a_project_that_is_alone_has_all_calls_but_the_reserve() -> None:
    assert len(take_all(filled(200, a=2000))) == 200


def test_projects_share_the_calls_whoever_has_more_endpoints() -> None:
    assert projects_of(take_all(filled(200, a=2000, b=2000))) == {"a": 100, "b": 100}
    assert projects_of(take_all(filled(200, a=2000, b=7, c=2000))) == {"a": 97, "b": 7, "c": 96}


def test_whoever_comes_later_does_not_wait_for_the_calls_of_another() -> None:
    ring = filled(200, a=2000)
    held = take_all(ring)
    more(ring, "b", 500)
    first = take_all(ring)
    assert projects_of(first) == {"b": 50}, "at once, out of the reserve"
    for number in range(50):
        ring.ended(first[number], GOOD)
        (again,) = take_all(ring)
        assert again.endpoint_id.startswith("b"), "what it gives back is its own"
        first.append(again)
    for one in held[:100]:
        ring.ended(one, TIMEOUT)
    assert projects_of(take_all(ring)) == {"b": 50}, "until both have half"
    assert ring.under_way == 200


def test_what_a_project_cannot_use_another_has() -> None:
    ring = filled(200, a=2000, b=1)
    under_way = take_all(ring)
    ring.ended(next(one for one in under_way if one.endpoint_id == "b0"), GOOD)
    assert projects_of(take_all(ring)) == {"a": 1}
    assert set(ring.held()) == {"a"}


@settings(max_examples=200)
@given(st.data())
def test_whoever_has_the_fewest_calls_under_way_is_served_next(data: st.DataObject) -> None:
    ring = Ring(20)
    waiting, under_way = Counter[str](), list[Claimed]()
    for number in range(data.draw(st.integers(1, 120))):
        match data.draw(st.sampled_from(["add", "take", "take", "end"])):
            case "add":
                id = data.draw(st.sampled_from(["a0", "a1", "b0", "c0", "c1", "d0"]))
                ring.add([delivery(f"d{number}", id)], {id: endpoint(id, project_id=id[0])})
                waiting[id] += 1
            case "end" if under_way:
                one = data.draw(st.sampled_from(under_way))
                under_way.remove(one)
                ring.ended(one, GOOD)
            case "take":
                calls = Counter(one.endpoint_id for one in under_way)
                of = projects_of(under_way)
                able = {id[0] for id, n in waiting.items() if n and calls[id] < MOST}
                least = min((of[project] for project in able), default=None)
                held = set(of) | {id[0] for id, n in waiting.items() if n}
                none = len(under_way) >= 20 and (least is None or least >= 20 // len(held))
                if (next_ := ring.take()) is None:
                    assert none or least is None or len(under_way) == 25
                else:
                    assert not none
                    assert of[next_[0].endpoint_id[0]] == least
                    waiting[next_[0].endpoint_id] -= 1
                    under_way.append(next_[0])


def test_after_an_outage_an_endpoint_starts_with_one_call_and_doubles() -> None:
    ring = ring_of(a=ROOM)
    ring.start_slowly("a")
    rounds = []
    while rounds[-1:] != [MOST]:
        taken = take_all(ring)
        rounds.append(len(taken))
        for one in taken:
            ring.ended(one, GOOD)
    assert rounds == [1, 2, 4, 8]


def test_a_shut_endpoint_is_sent_nothing_until_it_is_opened() -> None:
    ring = ring_of(a=20, b=1)
    taken = take_all(ring)
    ring.shut("a")
    for one in taken:
        ring.ended(one, GOOD)
    assert take_all(ring) == []
    assert ring.rooms()["a"] == 0
    assert len(ring.open("a")) == 20 - MOST
    assert ring.rooms().get("a", ROOM) == ROOM


def test_a_lane_that_was_filled_asks_for_more_when_half_of_it_is_gone() -> None:
    ring = ring_of(a=ROOM)
    wanted = 0
    for _ in range(ROOM // MOST):
        for one in take_all(ring):
            wanted += ring.ended(one, GOOD)
    assert wanted == 1


def test_a_fast_endpoint_has_more_at_hand_and_a_slow_one_no_more_than_before() -> None:
    rooms = {}
    for milliseconds in (1.0, 50.0, 2000.0):
        ring = ring_of(a=ROOM)
        for _ in range(ROOM - 1):
            taken = ring.take()
            assert taken is not None
            ring.ended(taken[0], Outcome(status=200, duration_ms=milliseconds))
        rooms[milliseconds] = ring.rooms()["a"] + 1
    assert rooms == {1.0: DEEPEST, 50.0: 39, 2000.0: ROOM}


def test_a_lane_that_is_more_than_half_full_is_left_alone_and_asks_for_more_later() -> None:
    ring = ring_of(a=ROOM - 1)
    assert ring.rooms() == {"a": 0}
    asked = []
    while taken := take_all(ring):
        asked += [ring.ended(delivery, None) for delivery in taken]
    assert asked.index(True) == ROOM // 2 - 2
    assert asked.count(True) == 1


@settings(max_examples=200)
@given(st.data())
def test_nothing_is_lost_or_handed_out_twice(data: st.DataObject) -> None:
    """Whatever is added, taken, ended, shut and opened: each delivery comes out exactly once."""
    ring, out, under_way, number = Ring(6), [], [], 0
    for _ in range(data.draw(st.integers(1, 60))):
        id = data.draw(st.sampled_from("abc"))
        match data.draw(st.sampled_from(["add", "take", "end", "shut", "open", "slow"])):
            case "add":
                attempt = data.draw(st.integers(1, 2))
                ring.add([delivery(f"d{number}", id, attempt=attempt)], {id: endpoint(id)})
                number += 1
            case "take" if (next_ := ring.take()) is not None:
                under_way.append(next_[0])
                counts = Counter(d.endpoint_id for d in under_way)
                assert counts[next_[0].endpoint_id] <= MOST
                assert ring.retries_under_way == sum(d.is_retry for d in under_way)
            case "end" if under_way:
                one = under_way.pop(0)
                ring.ended(one, data.draw(st.sampled_from([GOOD, TIMEOUT, None])))
                out.append(one.id)
            case "shut":
                ring.shut(id)
            case "slow":
                ring.start_slowly(id)
            case "open":
                out += [d.id for d in ring.open(id)]
            case _:
                pass
    assert ring.under_way == len(under_way)
    out += [d.id for d in under_way]
    for id in "abc":
        out += [d.id for d in ring.open(id)]
    out += [d.id for d in ring.empty()]
    assert sorted(out) == sorted(f"d{n}" for n in range(number))
    assert ring.waiting == 0
