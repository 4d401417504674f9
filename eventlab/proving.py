"""What a lab proves: that replay repeats, that old code and new code agree, that nothing moved under a golden or a snapshot."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from eventlab.determinism.check import Checked, check, work_of
from eventlab.determinism.goldens import Held, held, keep
from eventlab.determinism.revisions import Accepted, ReplayDiff, accepted_in, replay_diff
from eventlab.determinism.variants import Level, effort_of
from eventlab.errors import InvalidValue, Unsupported
from eventlab.model.models import Model
from eventlab.store.disk import DiskStore
from eventlab.temporal.reader import Reader, quiet
from eventlab.temporal.snapshots import prove
from eventlab.writing import Writer


class Prover(Writer):
    """The checks of a lab; `Lab` is one."""

    def check(
        self, *models: type[Any], level: Level = "standard", sample: int | None = None, until: int | None = None,
        patience: float = 60.0, memory: int | None = None,
    ) -> list[Checked]:  # fmt: skip
        """Fold models again in fresh processes under other conditions, and by every other way to fold, and compare.

        "quick" folds twice: under the baseline, and under another hash seed, time zone, locale, batch size and optimisation at
        once, and compares every eighth state and the tables; above a million events it takes a sample of the streams.
        "standard" folds under four such variants, compares every state, and holds every other way to fold against the row fold:
        the engines, in 1, 2 and 8 threads, files in another order, going on from bases, the versions, states stored and read
        between events, streams one by one. "deep" does more of each. A sensor sees what the first events touch: clock, chance,
        files.

        The events of one stream in `sample` are folded, up to `until`. A report says "no divergence in N events × V variants",
        or names the first event, the field, both values, the conditions that part them, and a command that shows it again. A fold
        that hangs longer than `patience` seconds at one event, takes more than `memory` bytes or ends its process is
        ended, and reported with the event. This is no sandbox: a fold runs with all your rights.
        """
        root = self._folder("a check runs in fresh processes, and they cannot see a lab in memory")
        effort, of = effort_of(level), [self._model(model) for model in models]
        if sample is not None and (isinstance(sample, bool) or not isinstance(sample, int) or sample < 1):
            raise InvalidValue(f"sample={sample!r}: one stream in so many", hint="a whole number from 1 on; 1 takes all")
        tenant = self._tenant if isinstance(self._tenant, str) else None
        bar = self._progress(f"check {', '.join(m.name for m in of)}", work_of(effort))
        try:
            end = self.head if until is None else min(until, self.head)
            return check(
                of, root, tenant=tenant, until=end, sample=sample, effort=effort, patience=patience, memory=memory,
                advance=bar.advance,
            )  # fmt: skip
        finally:
            bar.close()

    def replay_diff(
        self, *models: type[Any], base: str, until: int | None = None,
        accepted: Sequence[Accepted] | str | os.PathLike[str] = (),
    ) -> list[ReplayDiff]:  # fmt: skip
        """What the code of today makes of the log, against that of `base`: a git revision, a wheel or a folder.

        Rows added, removed and changed, by field, each with the first event responsible. `accepted` are the changes that are
        meant: a TOML file of `[[accepted]]` tables with model, field (or "_added", "_removed"), reason and perhaps until.
        `lab.compare` does the same for two definitions of a class in this process.
        """
        root = self._folder("old code runs in fresh processes, and they cannot see a lab in memory")
        meant = accepted_in(Path(accepted)) if isinstance(accepted, (str, os.PathLike)) else tuple(accepted)
        tenant, cut = (self._tenant if isinstance(self._tenant, str) else None), self._store.cut()
        end = cut.head if until is None else min(until, cut.head)
        of = [self._model(model) for model in models]
        return replay_diff(of, root, cut, base=base, tenant=tenant, until=end, today=self._clock().date(), accepted=meant)

    def goldens(self, folder: str | os.PathLike[str], *models: type[Any]) -> list[Held]:
        """Hold models against their goldens in a folder: same, or whether the code, the engine or the events differ; or none
        of these, and the same code gave something else. `frame` has the rows that differ.
        """
        return held([self._model(model) for model in models], Path(folder), self._store.cut(), self._tenant)

    def keep_goldens(self, folder: str | os.PathLike[str], *models: type[Any], until: int | None = None) -> list[Held]:
        """Keep what models give now as their goldens, and say what is different from those before."""
        before = self.goldens(folder, *models)
        cut = self._store.cut()
        end = cut.head if until is None else min(until, cut.head)
        keep([self._model(model) for model in models], Path(folder), cut, self._tenant, end)
        return before

    def _folder(self, why: str) -> Path:
        if not isinstance(self._store, DiskStore):
            raise Unsupported(why, hint="el.open a folder")
        return self._store.root

    # -- snapshots

    def prove_snapshots(self) -> pl.DataFrame:
        """Fold every stream that has a snapshot from its first event on, and hold the two together: a row for each snapshot,
        with its verdict and the first field that differs. None differs, unless code is not repeatable.
        """

        def fold(model: Model, stream: str, tenant: str, position: int) -> tuple[Any, int, int]:
            bare = Reader(self._store, tenant, quiet)
            bare._snapshots = None
            return bare._loaded(model, stream, tenant, self._store.cut(), position)

        return prove(self._store, self._one_tenant("prove_snapshots"), fold)

    def drop_snapshots(self) -> int:
        """Delete every snapshot; they are made again when they are worth it. How many there were."""
        return self._store.drop_snapshots(self._one_tenant("drop_snapshots"))
