"""Time: every read happens at a place in the log.

`reader` holds the read verbs (`load`, `table`, `read`, `sql`, …) at some position; the lab reads at the head, a `moment`
at a position that a time, a position or a version named; `events` is what a read picked; `versions` are states after every
event, and `compare` holds those of two definitions together. Both clocks are explicit: recorded is what was known.
"""
