"""How many calls an endpoint takes at once: a little more with success, half on distress."""

from __future__ import annotations

from batchbell.core.outcome import Fault, Outcome

MOST = 8
FEWEST = 1.0
DISTRESS_STATUSES = frozenset({502, 504})
DISTRESS_FAULTS = frozenset({Fault.TIMEOUT, Fault.RESET})


def slots_after(slots: float, outcome: Outcome, *, starting: bool = False) -> float:
    """The slots after an outcome: additive increase, multiplicative decrease, 1 to MOST.

    While `starting`, after an outage, each success earns one more: 1, 2, 4, 8 at once.
    """
    if outcome.status in DISTRESS_STATUSES or outcome.fault in DISTRESS_FAULTS:
        return max(FEWEST, slots / 2)
    if outcome.success:
        return min(float(MOST), slots + (1.0 if starting else 1 / slots))
    return slots
