"""Folding the log: the row fold, which runs the modeller's own `evolve` and is the meaning of every faster path.

`rows` folds events into entries (state, version, position) by key; `tables` turns entries into a model's table and back.
"""
