"""What a plan does, as a value that reads well as text: per field the kind, the stratum, the engine, and each refusal's line."""

from __future__ import annotations

import linecache
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventlab.replay.lift.plan import Plan


@dataclass(frozen=True)
class FieldPlan:
    """One leaf of the state: what it is, its stratum (0 reads no other field), the fastest engine, and why not a faster one."""

    field: str
    type: str
    kind: str
    stratum: int | None
    engine: str
    reads: tuple[str, ...] = ()
    reason: str = ""
    file: str = ""
    line: int = 0
    hint: str = ""

    @property
    def where(self) -> str:
        return place(self.file, self.line)

    @property
    def text(self) -> str:
        """The line that the reason is about."""
        return _line(self.file, self.line)


@dataclass(frozen=True)
class GuardPlan:
    """Something that sends an event's key to the row fold: the event, why, and the line."""

    event: str
    why: str
    file: str
    line: int

    @property
    def where(self) -> str:
        return place(self.file, self.line)


@dataclass(frozen=True)
class Explanation:
    """The plan of one model. `engine` is what `auto` takes first; `sql` is empty until a query ran or where none can.

    With "lifted + loop" the query gives some fields and a loop the others, where the log is such that this is quicker.
    """

    model: str
    engine: str
    fields: tuple[FieldPlan, ...]
    guards: tuple[GuardPlan, ...]
    events: tuple[str, ...]
    reason: str = ""
    where: str = ""
    text: str = ""
    hint: str = ""
    sql: str = ""
    loop: str = ""
    #: The aggregate by whose state its key is made; empty where the event alone gives it.
    source: str = ""

    def code(self) -> str:
        """The Python that explains it again in another cell."""
        return f"lab.explain({self.model})"

    @property
    def refusals(self) -> tuple[FieldPlan, ...]:
        """The fields that do not lift to the query."""
        return tuple(field for field in self.fields if field.reason)

    @property
    def verdict(self) -> str:
        """In one line: the engine, and how many of the fields lift."""
        lifted = sum(1 for field in self.fields if field.engine == "lifted")
        return f"{self.model}: {self.engine}, {lifted} of {len(self.fields)} fields lift"

    @property
    def keyed_by(self) -> str:
        """By whose state it is keyed, in one line; empty where it is not."""
        return f"keyed by the state of {self.source} after each event: lab.explain({self.source})" if self.source else ""

    def __repr__(self) -> str:
        return f"Explanation({self.verdict})"

    def __str__(self) -> str:
        lines = [f"{self.verdict} ({', '.join(self.events)})"]
        if self.source:
            lines.append(f"  {self.keyed_by}")
        if self.reason:
            lines.append(f"  {self.where}: {self.reason}" if self.where else f"  {self.reason}")
            if self.text:
                lines.append(f"      {self.text}")
            if self.hint:
                lines.append(f"  what would lift it: {self.hint}")
        width = max((len(f.field) for f in self.fields), default=0)
        for field in self.fields:
            stratum = "-" if field.stratum is None else str(field.stratum)
            reads = f" reads {', '.join(field.reads)}" if field.reads else ""
            lines.append(f"  {field.field:<{width}}  {field.kind:<7} stratum {stratum}  {field.engine}{reads}")
            if field.reason:
                lines.append(f"  {'':<{width}}  {field.where}: {field.reason}")
                if field.text:
                    lines.append(f"  {'':<{width}}      {field.text}")
                if field.hint:
                    lines.append(f"  {'':<{width}}  what would lift it: {field.hint}")
        lines += [f"  guard: {g.event}, {g.where}: {g.why}" for g in self.guards]
        return "\n".join(lines)


def place(file: str, line: int) -> str:
    """Where a line is, as a person finds it: the name of its file, or "cell" in a notebook, whose files have names of chance."""
    if not line:
        return ""
    cell = os.path.basename(os.path.dirname(file)).startswith("ipykernel_") or file.startswith("<ipython-input")
    return f"cell:{line}" if cell else f"{os.path.basename(file)}:{line}"


def _line(file: str, line: int) -> str:
    return linecache.getline(file, line).strip() if line else ""


#: What to do about the kinds that have no aggregate.
_HINTS = {
    "CYCLE": "a field that does not decide its own next value; the loop folds it otherwise",
    "MAP": "the loop folds mappings",
    "MAPSUM": "the loop folds mappings",
    "SETKEY": "a set that only grows",
}


def explain(plan: Plan) -> Explanation:
    """The explanation of a plan."""
    model, file = plan.model.cls.__name__, plan.model.evolve.__code__.co_filename
    source = "" if plan.model.source is None else plan.model.source.cls.__name__
    if plan.refusal is not None:
        why = plan.refusal
        fields = tuple(FieldPlan(name, kind.declared, "?", None, "rows") for name, kind in plan.model.fields)
        where = place(why.file, why.line)
        hint = why.hint or "plain expressions of state and event"
        line = _line(why.file, why.line)
        return Explanation(model, "rows", fields, (), tuple(plan.kinds), why.why, where, line, hint, source=source)
    found = []
    refused, half = plan.not_lifted, plan.halves
    for path, leaf in plan.fields.leaves.items():
        apart = half is not None and plan.analysis.leaves[path].field not in half.of_loop
        looped = not apart if half is not None else path in refused
        no = None if apart else refused.get(path)
        found.append(
            FieldPlan(
                path.rstrip("?") + (" is there" if path.endswith("?") else ""),
                str(plan.analysis.leaves[path].type),
                leaf.kind,
                leaf.level,
                "loop" if looped else "lifted",
                tuple(sorted(leaf.reads)),
                "" if no is None else no.why,
                "" if no is None else no.file or file,
                0 if no is None else no.line,
                "" if no is None else no.hint or _HINTS.get(leaf.kind, ""),
            )
        )
    guards = tuple(
        dict.fromkeys(
            GuardPlan(name, effect.why, effect.file, effect.line)
            for name, event in plan.analysis.events.items()
            for effect in (*event.effects, *event.key_effects)
        )
    )
    loop = plan.loop if half is None else half.loop
    engine = "rows" if loop is None else "lifted + loop" if half is not None else "loop" if refused else "lifted"
    return Explanation(
        model, engine, tuple(found), guards, tuple(plan.kinds), sql=plan.last_sql, loop="" if loop is None else loop.text,
        source=source,
    )  # fmt: skip
