"""Is replay repeatable? Fold again under varied conditions, compare fingerprints, and find the first event that parts.

Nothing here says "deterministic": a check says *no divergence in N events × V variants*, or names the event, the field and
both values. `fingerprints` encodes states, `variants` says what is varied, `worker` folds in a fresh process, `check` runs
them and looks for the first divergence.
"""
