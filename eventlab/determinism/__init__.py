"""Is replay repeatable? Fold again under varied conditions, compare fingerprints, and find the first event that parts.

Nothing here says "deterministic": a check says *no divergence in N events × V variants*, or names the event, the field, both
values and the condition that parts them. A fold that is checked runs with all that it may do: this is no sandbox.

* `variants` says what is varied, and how much of it a level tries; `worker` folds in a fresh process, `workers` starts those,
  watches them and ends them; `check` compares and looks for the first divergence.
* `ways` holds every other way to fold (engines, threads, bases, snapshots, versions, orders) against the row fold, which is
  the meaning; `sensor` sees what a fold touches of the world while it runs.
* `fingerprints` encodes states and tables so that they are equal exactly when the values are; the fingerprint of code is
  the model's own (`model.source`).
* `revisions` folds with the code of a git revision, a wheel or a folder; `goldens` keeps what models gave.
* `lint` and `sql_lint` read code and queries without running them; `selftest` checks all of this on folds with known faults.

What is not varied: the clock cannot be set for one process, so it is watched by the sensor, and the time zones lie so that no
two of the first three variants have the same date. Consumers, which may be told of an event twice, are held to their promise by
the kill loops of the tests.
"""
