"""How a model is folded over this log: its plan, with the query written out and what only the log decides."""

from __future__ import annotations

from dataclasses import replace

from eventlab.model.models import Model
from eventlab.replay.lift import Explanation, plan_of
from eventlab.replay.lift.explain import GuardPlan, place
from eventlab.replay.lift.lifted import Lifting, connect
from eventlab.replay.lift.plan import Plan
from eventlab.replay.lift.scan import scan_of
from eventlab.replay.lift.sources import sources_of
from eventlab.replay.lift.sql import NotHere
from eventlab.replay.lift.staged import imagined
from eventlab.store.base import Cut, Tenant


def explained(model: Model, cut: Cut, tenant: Tenant, until: int) -> Explanation:
    """The explanation of a plan; nothing is folded for it, and the log's events are not read."""
    plan = plan_of(model, cut)
    found = replace(plan.explain(), sql="")
    half = plan.halves
    if found.engine not in ("lifted", "lifted + loop"):
        return found
    analysis, fields = (plan.analysis, plan.fields) if half is None else (half.query, half.fields)
    with connect() as connection:
        try:
            scan = scan_of(model, plan.kinds, analysis.events, cut, tenant, until, connection)
            if model.source is not None:
                scan = imagined(scan, model.source, analysis)
            sql = Lifting(model, analysis, fields, scan, tenant).query().sql if scan.sql else ""
        except NotHere as why:
            # Each field lifts, and the query cannot be written: an expression without SQL, a stored column that is too wide.
            file, reason = why.file or model.evolve.__code__.co_filename, f"the query cannot be written: {why.why}"
            looped = tuple(replace(field, engine="loop") for field in found.fields)
            return replace(found, engine="loop", fields=looped, reason=reason, where=place(file, why.line), hint=why.hint)
    return replace(found, sql=sql, guards=(*_of_upcasters(plan, cut), *found.guards))


def _of_upcasters(plan: Plan, cut: Cut) -> tuple[GuardPlan, ...]:
    """What sends the whole log to the loop or the row fold where an old event meets it on its way to today's shape."""
    found = [
        GuardPlan(f"{name} {version}", effect.why, effect.file, effect.line)
        for (name, version), schema in sorted(cut.schemas.items())
        if name in plan.kinds
        for effect in sources_of(plan.kinds[name], schema).effects
    ]
    return tuple(dict.fromkeys(found))
