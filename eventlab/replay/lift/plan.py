"""A plan: what the analysis found of a model, the generated loop, and the query where fields lift."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import cached_property
from typing import Final

from eventlab.model.events import EVENTS, EventType, event_class
from eventlab.model.models import Model
from eventlab.replay.lift.analyse import Analysis, analyse
from eventlab.replay.lift.classify import Classified, classify
from eventlab.replay.lift.explain import Explanation, explain
from eventlab.replay.lift.lifted import liftable, refused
from eventlab.replay.lift.loop import Loop, loop_of
from eventlab.replay.lift.partial import Halves, halves_of
from eventlab.replay.lift.source import Refused
from eventlab.replay.lift.sql import NotHere
from eventlab.store.base import Cut


class Plan:
    """How a model is folded: analysed once for its code, its captured values and its events' classes."""

    def __init__(self, model: Model, kinds: Iterable[EventType]) -> None:
        self.model = model
        self.kinds = {kind.name: kind for kind in kinds}
        #: The query that the last lifted fold ran.
        self.last_sql = ""
        #: Why the last fold could not be lifted, though the plan can.
        self.last_why: NotHere | None = None

    @cached_property
    def analysis(self) -> Analysis:
        """The model as data."""
        return analyse(self.model, self.kinds.values())

    @property
    def refusal(self) -> Refused | None:
        """Why only the row fold is left; None where the model was understood."""
        return self.analysis.refusal

    @cached_property
    def loop(self) -> Loop | None:
        """The generated loop; None where the model was not understood."""
        if self.refusal is not None:
            return None
        try:
            return loop_of(self.analysis)
        except (SyntaxError, RecursionError, MemoryError):  # nested more deeply than Python compiles
            return None

    @cached_property
    def every(self) -> Loop | None:
        """The loop that gives the state after each event."""
        return None if self.loop is None else loop_of(self.analysis, every=True)

    @cached_property
    def fields(self) -> Classified:
        """What each field is."""
        return classify(self.analysis)

    @cached_property
    def not_lifted(self) -> dict[str, NotHere]:
        """Why leaves of the state do not lift to the query."""
        return {} if self.refusal is not None else liftable(self.analysis, self.fields)

    @cached_property
    def halves(self) -> Halves | None:
        """The fields that lift, and the loop over the rest, where some lift and some do not; None where that cannot be."""
        if self.refusal is not None or not self.not_lifted or self.model.key_names != ("_id",):
            return None
        if self.model.source is not None:
            return None  # its states would be made for both
        halves = halves_of(self.analysis, self.fields, refused(self.analysis, self.fields))
        if halves is None or liftable(halves.query, halves.fields):
            return None
        try:
            return halves if halves.loop else None
        except (SyntaxError, RecursionError, MemoryError):
            return None

    def explain(self) -> Explanation:
        """Per field the kind, the stratum and the engine, each refusal with its line, and the texts of loop and query."""
        return explain(self)


_PLANS: Final[weakref.WeakKeyDictionary[Model, dict[tuple[object, ...], Plan]]] = weakref.WeakKeyDictionary()


def plan_of(model: Model, cut: Cut | None = None) -> Plan:
    """The plan of a model as its code is now: constants and closures that it captured are part of what it is known by.

    A model that takes every event is planned for the classes of the types that are in `cut`, or that are defined.
    """
    handled = model.handled
    if handled is not None:
        kinds = list(handled)
    elif cut is not None:
        names = sorted({name for name, _ in cut.schemas})
        kinds = [kind for name in names if (kind := event_class(name)) is not None]
    else:
        kinds = EVENTS.all()
    key = (model.fingerprint, *((kind.name, id(kind)) for kind in kinds))
    plans = _PLANS.setdefault(model, {})
    if key not in plans:
        if len(plans) > 8:
            plans.clear()
        plans[key] = Plan(model, kinds)
    return plans[key]
