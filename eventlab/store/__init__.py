"""The log: append and read.

A store can `append` and `read`; everything else it does (seal, ingest, verify) changes nothing that a reader sees.

* `base` says what a store is; `memory` is the specification, a page of obvious code.
* `disk` keeps the protocol: a SQLite `catalog` with the hot tail, and sealed Parquet `segment`s of typed columns.
* `columns` turns stored values into Arrow columns and back; `schemas` guards the names and shapes of types.
* `query` is the SQL connection over one cut of the log; `verify` looks for damage; `files` does the durable writes.

**Assumed of the disk**: a local file system where `flock` excludes, `rename` is atomic, and `fsync` of a file and of its
folder makes bytes and name survive a crash. Others are refused when the store is opened.

**Promised**: an acknowledged append or ingest chunk is there for ever, whole, at its positions; what was not acknowledged
is there whole or not at all. Positions are dense and in commit order, `recorded_at` never goes back, a stream's versions
are 1…n. A reader sees the log up to one commit and never half of one. A killed process leaves a store that opens.

**Recovery** is SQLite's own: the catalog's transaction is the only commit point. A segment file that no live row of the
catalog names is not part of the log; it is left over from a crash and `verify` lists it.

**Not promised**: survival of a disk that lies about fsync, ids remembered for longer than the last million events unless
`expected` is given, network file systems, Windows.
"""
