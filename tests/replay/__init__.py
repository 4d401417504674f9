"""Tests of folding the log, and the oracle that other tests compare with too: `from replay import oracle`."""
