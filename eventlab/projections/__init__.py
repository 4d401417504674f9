"""Read models: a model's table kept at a checkpoint, and brought up to date when it is read.

A read model is a base (the table at a position, made by code of one fingerprint) plus the fold of the events since.
Reading merges both, so it is current; `rebuild` and `catch_up` move the base. A base made by other code is never read.
"""
