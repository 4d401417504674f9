"""The check: fold in fresh processes under each variant, compare, and find the first event at which two folds part."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from eventlab.determinism.sensor import Touch
from eventlab.determinism.variants import BASELINE, QUICK, STANDARD, VARIANTS, Effort, Variant
from eventlab.determinism.ways import Parted, Tried
from eventlab.determinism.worker import Job, Outcome, import_model
from eventlab.determinism.workers import PATIENCE, Done, Stopped, Workers
from eventlab.errors import ModelError, StoreError
from eventlab.model.models import Model
from eventlab.store.words import many

CHECKPOINT_EVERY: Final = 1_024
#: Of a log with no more events than this every state is looked at where folds part.
SHORT: Final = 10_000
#: A quick check of a longer log folds a sample of so many events.
QUICK_EVENTS: Final = 1_000_000
#: Which condition parts two folds is looked for where they part within so many events.
ISOLATED: Final = 200_000
PROCESSES: Final = max(1, min(2, os.cpu_count() or 1))


@dataclass(frozen=True)
class Divergence:
    """The first event after which two folds of the same log have different states, or one of them raised.

    `alone` are the conditions each of which parts them by itself, where they were looked for.
    """

    model: str
    position: int
    key: str
    event: str
    field: str
    before: str
    after: str
    variants: tuple[str, str]
    command: str
    alone: tuple[str, ...] = ()

    def __str__(self) -> str:
        by = f"; what parts them: {', '.join(self.alone)}" if self.alone else ""
        return (
            f"{self.model}.{self.field} parts at position {self.position:,} ({self.event}, {self.key}): "
            f"{self.before} under {self.variants[0]!r}, {self.after} under {self.variants[1]!r}{by}"
        )


@dataclass(frozen=True)
class Checked:
    """What a check of one model did and found.

    `events` were folded, of `of` in the log, of one stream in `sample`; `types` counts them, `versions` says which versions of
    their schemas there were; `ways` are the other ways to fold that were held against the row fold. Whatever the fold touched
    outside of its state and event is in `touches`: a reason to look, no verdict.
    """

    model: str
    reference: str
    level: str
    events: int
    of: int
    sample: int
    variants: tuple[str, ...]
    types: dict[str, int]
    versions: dict[str, list[int]]
    never_seen: tuple[str, ...]
    divergence: Divergence | None
    seconds: float
    ways: tuple[str, ...] = ()
    #: Ways that were not tried, and why.
    skipped: tuple[str, ...] = ()
    parted: Parted | None = None
    #: Shows again in fresh processes what was found.
    command: str = ""
    stopped: Stopped | None = None
    touches: tuple[Touch, ...] = ()

    def code(self) -> str:
        """The Python that checks the same again in another cell."""
        sample = f", sample={self.sample}" if self.sample > 1 else ""
        return f"lab.check({self.reference.rpartition(':')[2]}, level={self.level!r}, until={self.of}{sample})"

    @property
    def ok(self) -> bool:
        """Whether no two folds parted, and all of them came to an end."""
        return self.divergence is None and self.parted is None and self.stopped is None

    @property
    def verdict(self) -> str:
        """In one line; never more than was seen."""
        if self.stopped is not None:
            return str(self.stopped)
        if self.divergence is not None:
            return str(self.divergence)
        if self.parted is not None:
            return f"{self.model}: {self.parted}"
        unseen = f"; never seen: {', '.join(self.never_seen)}" if self.never_seen else ""
        ways = f", and {len(self.ways)} other ways to fold" if self.ways else ""
        sample = f" (one stream in {self.sample:,})" if self.sample > 1 else ""
        times = f"{self.events:,} events{sample} × {many(len(self.variants), 'variant')}"
        return f"{self.model}: no divergence in {times}{ways}{unseen}"

    def __str__(self) -> str:
        again = [f"See it again: {self.command}"] if self.command else []
        return "\n".join([self.verdict, *again, *(f"  {self.model} {touch}" for touch in self.touches)])

    @property
    def details(self) -> list[str]:
        """What was exercised, what was not and why, and what it took; a line each."""
        versions = {name: "" if of == [1] else f" (versions {', '.join(map(str, of))})" for name, of in self.versions.items()}
        seen = ", ".join(f"{name} {count:,}{versions.get(name, '')}" for name, count in sorted(self.types.items()))
        lines = [f"exercised: {seen or 'nothing'}", f"under: {'; '.join(self.variants)}"]
        lines += [f"held against evolve: {'; '.join(self.ways)}"] if self.ways else []
        lines += [f"not tried: {why}" for why in self.skipped]
        return [*lines, f"level {self.level}, in {self.seconds:.1f} s"]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {**asdict(self), "ok": self.ok, "verdict": self.verdict}


def work_of(effort: Effort) -> int:
    """How many pieces of work a check consists of: what `advance` will be told of."""
    return len(effort.variants) + 1 + (PROCESSES if effort.bases else 0)


def check(
    models: Sequence[Model],
    root: Path,
    *,
    tenant: str | None,
    until: int,
    sample: int | None = None,
    effort: Effort = STANDARD,
    patience: float = PATIENCE,
    memory: int | None = None,
    isolate: bool = True,
    advance: Callable[[int], None] | None = None,
) -> list[Checked]:
    """Fold models under the baseline and each variant of an effort, and compare every state of one stream in `sample`.

    `patience` is how many seconds one event may take, `memory` how many bytes a process. `advance` is told of each piece of
    work that is done.
    """
    started = time.perf_counter()
    references = tuple(importable(model) for model in models)
    if sample is None:
        sample = -(-until // QUICK_EVENTS) if effort is QUICK and until > QUICK_EVENTS else 1
    job = Job(str(root), tenant, references, until, sample, chain=CHECKPOINT_EVERY, stride=effort.stride, path=paths())
    with Workers(patience, memory) as workers, ThreadPoolExecutor(PROCESSES) as pool:
        try:
            return _Check(models, references, job, effort, workers, pool, isolate, advance).reports(started)
        except BaseException:
            workers.__exit__(None, None, None)  # before the pool waits for what they do
            raise


@dataclass(frozen=True)
class _Check:
    models: Sequence[Model]
    references: tuple[str, ...]
    job: Job
    effort: Effort
    workers: Workers
    pool: ThreadPoolExecutor
    isolate: bool
    advance: Callable[[int], None] | None

    def reports(self, started: float) -> list[Checked]:
        conditions = (BASELINE, *self.effort.variants)
        sensed = (self.effort.sensed, *(0 for _ in self.effort.variants))
        jobs = [replace(self.job, sensed=count) for count in sensed]
        found = dict(zip(conditions, self.pool.map(self._done, jobs, conditions), strict=True))
        partings: dict[Variant, list[str]] = {}
        stopped = {reference: _stop(reference, found) for reference in self.references}
        fine = [reference for reference in self.references if stopped[reference] is None]
        for reference in fine:
            base = found[BASELINE].outcomes[reference]
            parting = next((v for v in self.effort.variants if _differs(base, found[v].outcomes[reference])), None)
            if parting is not None:
                partings.setdefault(parting, []).append(reference)
        parted = {reference for of in partings.values() for reference in of}
        ways = self._ways([reference for reference in fine if reference not in parted and not _raises(found, reference)])
        # Of a short log every state of all of them is looked at in one go.
        short = self.job.until <= SHORT
        looked = {v: self._states(replace(self.job, models=tuple(of)), v) for v, of in partings.items()} if short else {}
        reports = []
        for model, reference in zip(self.models, self.references, strict=True):
            of = next((v for v, which in partings.items() if reference in which), None)
            divergence = None
            if of is not None:
                pair = looked.get(of)
                both = None if pair is None else (pair[0][reference], pair[1][reference])
                divergence = self._first(
                    model, reference, of, (found[BASELINE].outcomes[reference], found[of].outcomes[reference]), both
                )
            stop = stopped[reference] or self._raised(model, reference, found, divergence)
            reports.append(self._report(model, reference, found, stop, divergence, ways.get(reference, Tried()), started))
        return reports

    def _done(self, job: Job, variant: Variant) -> Done:
        done = self.workers.run(job, variant)
        if self.advance is not None:
            self.advance(1)
        return done

    def _ways(self, references: Sequence[str]) -> dict[str, Tried]:
        """The other ways to fold of each model, shared by the processes."""
        if not self.effort.bases or not references:
            return {}
        job = replace(self.job, models=tuple(references), sample=1, chain=0, bases=self.effort.bases, parts=PROCESSES)
        jobs = [replace(job, part=part) for part in range(PROCESSES)]
        found: dict[str, Tried] = {}
        for done in self.pool.map(lambda job: self._done(job, BASELINE), jobs):
            for stopped in done.stopped.values():
                raise StoreError(f"another way to fold came to no end: {stopped}", hint="level='quick' goes without them")
            for reference, outcome in done.outcomes.items():
                found[reference] = found.get(reference, Tried()).with_more(outcome.tried)
        return found

    def _report(
        self, model: Model, reference: str, found: dict[Variant, Done], stopped: Stopped | None,
        divergence: Divergence | None, tried: Tried, started: float,
    ) -> Checked:  # fmt: skip
        base = found[BASELINE].outcomes.get(reference, Outcome())
        touches = [*base.touches, *(done.forked[reference] for done in found.values() if reference in done.forked)]
        handled = {kind.name for kind in model.handled or ()}
        names = tuple(v.name for v in self.effort.variants)
        at = next((of.position for of in (stopped, divergence, tried.parted) if of is not None), None)
        command = "" if at is None else self._again(reference, at or self.job.until)
        return Checked(
            model.name, reference, self.effort.level, base.events, self.job.until, self.job.sample, names, base.types,
            base.versions, tuple(sorted(handled - set(base.types))), divergence, time.perf_counter() - started, tried.ways,
            tried.skipped, tried.parted, command, stopped, tuple({touch.what: touch for touch in touches}.values()),
        )  # fmt: skip

    # -- where they part

    def _states(self, job: Job, variant: Variant) -> tuple[dict[str, Outcome], dict[str, Outcome]]:
        """Every state between two positions, or of the whole log, under the baseline and under a variant."""
        narrow = replace(job, chain=0, window=job.window or (0, job.until))
        # One after the other: two folds at once now and then read the same microsecond from the clock, and agree by chance.
        return self.workers.run(narrow, BASELINE).outcomes, self.workers.run(narrow, variant).outcomes

    def _first(
        self, model: Model, reference: str, variant: Variant, folded: tuple[Outcome, Outcome],
        both: tuple[Outcome, Outcome] | None,
    ) -> Divergence:  # fmt: skip
        """Look again at the events between the last checkpoint in which both agree and the next, state by state."""
        if self.job.stride > 1 and both is None:
            # Between the states that were compared there may be one that differs, and is the first.
            whole = replace(self.job, models=(reference,), stride=1)
            folded = tuple(self.workers.run(whole, of).outcomes[reference] for of in (BASELINE, variant))  # type: ignore[assignment]
        low, high = 0, self.job.until
        for mine, theirs in zip(folded[0].checkpoints, folded[1].checkpoints, strict=False):
            if mine != theirs:
                high = max(mine[0], theirs[0])
                break
            low = mine[0]
        if both is None:
            found = self._states(replace(self.job, models=(reference,), window=(low, high), until=high), variant)
            both = found[0][reference], found[1][reference]
        left, right = both
        names = (BASELINE.name, variant.name)
        for state, others in zip(left.states, right.states, strict=False):
            if state[3] != others[3]:
                at = next((i for i, (a, b) in enumerate(zip(state[4], others[4], strict=True)) if a != b), 0)
                field = model.fields[at][0]
                alone = self._alone(reference, variant, state)
                again = self._again(reference, state[0])
                return Divergence(model.name, *state[:3], field, state[4][at], others[4][at], names, again, alone)
        # Every state they share is the same: one of them raised, and went no further.
        position = min((p for p in (left.error_position, right.error_position) if p is not None), default=high)
        key, event = next((state[1:3] for state in (*left.states, *right.states) if state[0] == position), ("", "an event"))
        before, after = (outcome.error or "no error" for outcome in (left, right))
        return Divergence(model.name, position, key, event, "evolve", before, after, names, self._again(reference, position))

    def _again(self, reference: str, position: int) -> str:
        of = f"--models {reference} --sample {self.job.sample} --until {position} --level {self.effort.level}"
        return f"eventlab check --store {self.job.store} {of}"

    def _alone(self, reference: str, variant: Variant, state: tuple[int, str, str, str, list[str]]) -> tuple[str, ...]:
        """Which conditions of a variant part the fold at this state, each of them alone."""
        position, digest = state[0], state[3]
        if not self.isolate or position > ISOLATED:
            return ()
        narrow = replace(self.job, models=(reference,), chain=0, until=position, window=(position - 1, position))

        def parts(one: Variant) -> bool:
            outcome = self.workers.run(narrow, one).outcomes.get(reference)
            return outcome is not None and [s[3] for s in outcome.states if s[0] == position] != [digest]

        def tried(them: list[Variant]) -> tuple[str, ...]:
            return tuple(one.name for one, found in zip(them, self.pool.map(parts, them), strict=True) if found)

        again, seed, *others = variant.alone()
        rest = replace(variant, hash_seed=BASELINE.hash_seed)
        first = tried([again, seed, rest])
        # What differs from run to run differs under every condition; and of many that part nothing together, none does alone.
        if again.name in first:
            return (again.name,)
        return first if rest.name not in first else (*first[:-1], *tried(others))

    def _raised(
        self, model: Model, reference: str, found: dict[Variant, Done], divergence: Divergence | None
    ) -> Stopped | None:
        """A fold that raises whatever the conditions."""
        outcome = found[BASELINE].outcomes.get(reference)
        if divergence is not None or outcome is None or outcome.error is None:
            return None
        return Stopped(model.name, f"raises: {outcome.error}", outcome.error_position or 0, "", "", BASELINE.name)


def full_pass(
    models: Sequence[Model], root: Path, *, tenant: str | None, until: int, variant: Variant = VARIANTS[0]
) -> dict[str, Outcome]:
    """Fold the whole log once in a fresh process: the fingerprint of each model's table, by its reference."""
    references = tuple(importable(model) for model in models)
    with Workers() as workers:
        done = workers.run(Job(str(root), tenant, references, until, path=paths()), variant)
    for stopped in done.stopped.values():
        raise StoreError(f"a fold came to no end: {stopped}", hint="eventlab check says more")
    return done.outcomes


def _stop(reference: str, found: dict[Variant, Done]) -> Stopped | None:
    """The first variant under which a fold came to no end, the baseline before all others."""
    stops = (done.stopped.get(reference) for done in found.values())
    return next((stop for stop in stops if stop is not None), None)


def _raises(found: dict[Variant, Done], reference: str) -> bool:
    return found[BASELINE].outcomes[reference].error is not None


def importable(model: Model) -> str:
    """The reference of a model, if a fresh process finds the same class there."""
    if import_model(model.reference) is not model:
        raise ModelError(f"{model.reference} is another class than the one given", hint="give the class that its module defines")
    return model.reference


def _differs(one: Outcome, other: Outcome) -> bool:
    return (one.fingerprint, one.checkpoints, one.error_position) != (other.fingerprint, other.checkpoints, other.error_position)


def paths() -> tuple[str, ...]:
    """Where this process finds modules, for the workers; never the empty entry that means "here"."""
    return tuple(str(Path(entry).resolve()) for entry in sys.path if entry)


def summary(reports: Iterable[Checked]) -> str:
    """The reports as text, one after the other."""
    return "\n".join(map(str, reports))
