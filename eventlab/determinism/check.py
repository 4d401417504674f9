"""The check: fold in fresh processes under each variant, compare, and find the first event at which two folds part."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from eventlab import errors
from eventlab.determinism.variants import BASELINE, VARIANTS, Variant
from eventlab.determinism.worker import Job, Outcome, import_model
from eventlab.errors import ModelError, StoreError
from eventlab.model.models import Model

CHECKPOINT_EVERY: Final = 1_024
#: Of a log with no more events than this every state is looked at where folds part.
SHORT: Final = 10_000
PROCESSES: Final = max(1, min(2, os.cpu_count() or 1))


@dataclass(frozen=True)
class Divergence:
    """The first event after which two folds of the same log have different states, or one of them raised."""

    model: str
    position: int
    key: str
    event: str
    field: str
    before: str
    after: str
    variants: tuple[str, str]
    command: str

    def __str__(self) -> str:
        return (
            f"{self.model}.{self.field} parts at position {self.position:,} ({self.event}, {self.key}): "
            f"{self.before} under {self.variants[0]!r}, {self.after} under {self.variants[1]!r}"
        )


@dataclass(frozen=True)
class Checked:
    """What a check of one model did and found."""

    model: str
    reference: str
    events: int
    of: int
    variants: tuple[str, ...]
    types: dict[str, int]
    never_seen: tuple[str, ...]
    divergence: Divergence | None
    seconds: float

    @property
    def ok(self) -> bool:
        return self.divergence is None

    def __str__(self) -> str:
        if self.divergence is not None:
            return f"{self.divergence}\nSee it again: {self.divergence.command}"
        unseen = f"; never seen: {', '.join(self.never_seen)}" if self.never_seen else ""
        return f"{self.model}: no divergence in {self.events:,} events × {len(self.variants)} variants{unseen}"

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {**asdict(self), "ok": self.ok}


def check(
    models: Sequence[Model],
    root: Path,
    *,
    tenant: str | None,
    until: int,
    sample: int = 1,
    variants: Sequence[Variant] = VARIANTS,
    advance: Callable[[int], None] | None = None,
) -> list[Checked]:
    """Fold models under the baseline and each variant, every state of one stream in `sample`, and compare.

    `advance` is told of each fold that is done (a number of folds, one a variant).
    """
    started = time.perf_counter()
    references = tuple(_importable(model) for model in models)
    job = Job(str(root), tenant, references, until, sample, BASELINE.batch, chain=CHECKPOINT_EVERY, path=_path())
    conditions = (BASELINE, *variants)

    def fold(variant: Variant) -> dict[str, Outcome]:
        done = run_worker(job, variant)
        if advance is not None:
            advance(1)
        return done

    with ThreadPoolExecutor(PROCESSES) as pool:
        outcomes = dict(zip(conditions, pool.map(fold, conditions), strict=True))

    partings: dict[Variant, list[str]] = {}
    for reference in references:
        parting = next((v for v in variants if _differs(outcomes[BASELINE][reference], outcomes[v][reference])), None)
        if parting is not None:
            partings.setdefault(parting, []).append(reference)
    # Of a short log every state of all of them is looked at in one go.
    looked = {v: _states(replace(job, models=tuple(of)), v) for v, of in partings.items()} if until <= SHORT else {}

    def report(model: Model, reference: str) -> Checked:
        base = outcomes[BASELINE][reference]
        parting = next((v for v, of in partings.items() if reference in of), None)
        divergence = None
        if parting is not None:
            pair = looked.get(parting)
            both = None if pair is None else (pair[0][reference], pair[1][reference])
            divergence = _first(model, reference, job, parting, (base, outcomes[parting][reference]), both)
        handled = {kind.name for kind in model.handled or ()}
        return Checked(
            model.name, reference, base.events, until, tuple(v.name for v in variants), base.types,
            tuple(sorted(handled - set(base.types))), divergence, time.perf_counter() - started,
        )  # fmt: skip

    # Several models are looked at closely at once; of one model never two folds, see `_states`.
    with ThreadPoolExecutor(PROCESSES) as pool:
        return list(pool.map(report, models, references))


def full_pass(
    models: Sequence[Model], root: Path, *, tenant: str | None, until: int, variant: Variant = VARIANTS[0]
) -> dict[str, Outcome]:
    """Fold the whole log once in a fresh process: the fingerprint of each model's table, by its reference."""
    references = tuple(_importable(model) for model in models)
    return run_worker(Job(str(root), tenant, references, until, 1, variant.batch, path=_path()), variant)


def run_worker(job: Job, variant: Variant) -> dict[str, Outcome]:
    """Run a job in a fresh process under a variant's conditions."""
    # -I would ignore PYTHONHASHSEED; -s and -P keep the user's site and the working directory out.
    command = [sys.executable, "-s", "-P", *(["-O"] if variant.optimise else []), "-m", "eventlab.determinism.worker"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LC_")) and k not in ("TZ", "LANG")}
    environment = {**kept, **variant.environment, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUTF8": "1"}
    text = json.dumps(asdict(replace(job, batch=variant.batch)))
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment, cwd="/", check=False)
    if done.returncode != 0:
        raise StoreError(f"a worker of the check died with {done.returncode}", hint=done.stderr.strip()[-2000:])
    answer = json.loads(done.stdout)
    if "refused" in answer:
        kind, message, hint = answer["refused"]
        raise getattr(errors, kind)(message, hint=hint)
    return {reference: _outcome(raw) for reference, raw in answer.items()}


def _outcome(raw: dict[str, Any]) -> Outcome:
    raw["checkpoints"] = [(position, digest) for position, digest in raw["checkpoints"]]
    raw["states"] = [tuple(state) for state in raw["states"]]
    return Outcome(**raw)


def _importable(model: Model) -> str:
    """The reference of a model, if a fresh process finds the same class there."""
    if import_model(model.reference) is not model:
        raise ModelError(f"{model.reference} is another class than the one given", hint="give the class that its module defines")
    return model.reference


def _differs(one: Outcome, other: Outcome) -> bool:
    return (one.fingerprint, one.checkpoints, one.error_position) != (other.fingerprint, other.checkpoints, other.error_position)


def _states(job: Job, variant: Variant) -> tuple[dict[str, Outcome], dict[str, Outcome]]:
    """Every state between two positions, or of the whole log, under the baseline and under a variant."""
    narrow = replace(job, chain=0, window=job.window or (0, job.until))
    # One after the other: two folds at once now and then read the same microsecond from the clock, and agree by chance.
    return run_worker(narrow, BASELINE), run_worker(narrow, variant)


def _first(
    model: Model, reference: str, job: Job, variant: Variant, folded: tuple[Outcome, Outcome],
    both: tuple[Outcome, Outcome] | None,
) -> Divergence:  # fmt: skip
    """Look again at the events between the last checkpoint in which both agree and the next, state by state."""
    low = 0
    high = job.until
    for mine, theirs in zip(folded[0].checkpoints, folded[1].checkpoints, strict=False):
        if mine != theirs:
            high = max(mine[0], theirs[0])
            break
        low = mine[0]
    if both is None:
        found = _states(replace(job, models=(reference,), window=(low, high), until=high), variant)
        both = found[0][reference], found[1][reference]
    left, right = both
    names = (BASELINE.name, variant.name)

    def again(position: int) -> str:
        return f"eventlab check --store {job.store} --models {reference} --sample {job.sample} --until {position}"

    for state, others in zip(left.states, right.states, strict=False):
        if state[3] != others[3]:
            at = next((i for i, (a, b) in enumerate(zip(state[4], others[4], strict=True)) if a != b), 0)
            field = model.fields[at][0]
            return Divergence(model.name, *state[:3], field, state[4][at], others[4][at], names, again(state[0]))
    # Every state they share is the same: one of them raised, and went no further.
    position = min((p for p in (left.error_position, right.error_position) if p is not None), default=high)
    key, event = next((state[1:3] for state in (*left.states, *right.states) if state[0] == position), ("", "an event"))
    before, after = (outcome.error or "no error" for outcome in (left, right))
    return Divergence(model.name, position, key, event, "evolve", before, after, names, again(position))


def _path() -> tuple[str, ...]:
    """Where this process finds modules, for the workers; never the empty entry that means "here"."""
    return tuple(str(Path(entry).resolve()) for entry in sys.path if entry)


def summary(reports: Iterable[Checked]) -> str:
    """The reports as text, one after the other."""
    return "\n".join(map(str, reports))
