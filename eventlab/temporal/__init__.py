"""Time: every read happens at a place in the log.

`reader` holds the read verbs (`load`, `table`, `read`, `sql`, …) at some position; the lab reads at the head, a `moment`
at a position that a time, a position or a version named; `events` is what a read picked. Both clocks are explicit:
recorded is what was known.
"""
