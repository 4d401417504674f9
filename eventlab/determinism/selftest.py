"""The checker is checked: faulty folds that it has to find, by reading or by folding, and sound ones it must not accuse."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eventlab.determinism.check import check
from eventlab.determinism.lint import lint
from eventlab.model.models import model_of


@dataclass(frozen=True)
class Tried:
    """One fold of the corpus: whether it is faulty, what lint said, and where two folds of it parted."""

    name: str
    faulty: bool
    about: str
    lint: tuple[str, ...]
    divergence: str | None
    #: What it touched while it ran, as the sensor saw it.
    touches: tuple[str, ...] = ()

    @property
    def found(self) -> bool:
        """Whether it was accused at all."""
        return bool(self.lint) or bool(self.touches) or self.divergence is not None


@dataclass(frozen=True)
class Selftest:
    """What the checker found in the corpus."""

    tried: tuple[Tried, ...]

    @property
    def ok(self) -> bool:
        """Whether all of the faulty folds were found, and none of the sound ones accused."""
        return all(one.found == one.faulty for one in self.tried)

    def to_dict(self) -> dict[str, Any]:
        """The rates, and each fold, as plain values."""
        faulty, sound = ([one for one in self.tried if one.faulty is which] for which in (True, False))
        return {
            "faulty": {"total": len(faulty), "found": sum(one.found for one in faulty)},
            "sound": {"total": len(sound), "accused": sum(one.found for one in sound)},
            "folds": [
                {"name": one.name, "faulty": one.faulty, "found": one.found, "lint": list(one.lint), "divergence": one.divergence,
                 "touches": list(one.touches)}
                for one in self.tried
            ],
        }  # fmt: skip


def selftest(
    faulty: Sequence[type[Any]], sound: Sequence[type[Any]], streams: Callable[..., dict[str, list[Any]]],
    open_lab: Callable[[Path], Any],
) -> Selftest:  # fmt: skip
    """Fold the corpus over a store of its own, in fresh processes, and read its code; `streams` gives what a model folds."""
    models = [*faulty, *sound]
    with tempfile.TemporaryDirectory(prefix="eventlab-selftest-") as folder:
        path = Path(folder) / "store"
        with open_lab(path) as lab:
            for model in models:
                lab.append(streams(model))
            until = lab.head
        reports = check([model_of(model) for model in models], path, tenant=None, until=until, isolate=False)
    tried = []
    for model, report in zip(models, reports, strict=True):
        where = report.divergence
        parts = None if where is None else f"{where.field} at position {where.position:,}"
        if report.parted is not None:
            parts = f"{report.parted.field} at position {report.parted.position:,}, by another way to fold"
        codes = tuple(dict.fromkeys(one.code for one in lint(model)))
        touches = tuple(touch.what for touch in report.touches)
        tried.append(Tried(model.__name__, model in faulty, (model.__doc__ or "").strip(), codes, parts, touches))
    return Selftest(tuple(tried))
