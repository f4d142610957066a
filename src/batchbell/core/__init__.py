"""Everything Batchbell knows, and nothing it does.

This room is pure: the standard library, and msgspec for its structs; no I/O, no clock, no chance
but what is passed in.
It promises that the same arguments give the same answer for ever, so every rule can be tested by
a table. It must never import another room of Batchbell, read the time, or log.

Times are seconds since the epoch (UTC) as floats; names of durations end in their unit.
"""
