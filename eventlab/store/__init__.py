"""The log: append and read.

A store can `append` and `read`; everything else it does (seal, ingest, compact, verify) changes nothing that a reader sees.

* `base` says what a store is, `rules` and `schemas` what every store keeps to; `memory` is the specification, a page of
  obvious code.
* `disk` is the durable one: a SQLite `catalog` with the hot `tail`, and sealed Parquet `segment`s of typed `columns`.
* `runs` makes files part of the log and takes them out again; `seal`, `place` (ingest) and `compact` write them, `gc`
  deletes what nobody can be reading, `maintain` does all that in a thread.
* A `cut` is the log up to a position, wherever its events lie; `query` is SQL over one.
* `verify` looks for damage (`wal` in the write-ahead log), `info` and `show` explain what is there (as `shown`, in `words`),
  `backup` and `upgrade` keep a store for years; `files` does the durable writes.

**Assumed of the disk**: a local file system where `flock` excludes, `rename` is atomic, and `fsync` of a file and of its
folder makes bytes and name survive a crash. Others are refused when the store is opened.

**Promised**: an acknowledged append or ingest chunk is there for ever, whole, at its positions; what was not acknowledged
is there whole or not at all. Positions are dense and in commit order, `recorded_at` never goes back, a stream's versions
are 1…n. An append with an expected version or a condition is done only if nothing came in between, in any number of
threads and processes. A reader sees the log up to one commit and never half of one; a cut stays what it is while the
store is sealed and compacted under it. What is done to one tenant cannot be seen by another. A killed process leaves a
store that opens.

**Recovery** is SQLite's own: the catalog's transaction is the only commit point. A segment file is named in the catalog
before it exists, as pending with a lease; one that no live row names is not part of the log. It is deleted by `gc` when
its lease is over, or named by `verify` when the catalog does not know it at all. A failed write to the catalog poisons the
writer: what is on the disk is not known until the store is opened again.

**Not promised**: survival of a disk that lies about fsync; ids remembered for longer than the last million events unless
`expected` is given, and ids of an ingest at all; that a snapshot outlives a power cut, for it is made anew; network file
systems; Windows. An event is in one stream: there are no links into others, for the second place would be a second truth
about order. Tags and filters pick events across streams.
"""
