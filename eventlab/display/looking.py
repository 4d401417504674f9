"""A model at a moment that is slid along the log, and a read model looked into: rows, checkpoint, plan, and who made a cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from eventlab.display.html import table
from eventlab.display.stepping import flat
from eventlab.display.view import Controller
from eventlab.errors import InvalidValue
from eventlab.lab import Lab
from eventlab.model.models import model_of
from eventlab.store.words import many

#: Rows of a table at a moment.
SHOWN: Final = 20
#: Rows of a page of a read model, at most.
PAGE: Final = 100


class AsOf(Controller):
    """A model of a log, of one key or of all, as of a position that is chosen."""

    def __init__(self, lab: Lab, model: type[Any], id: str | None = None) -> None:
        super().__init__()
        self._lab, self._model, self._id = lab, model, id
        self.position = self.head = lab.head
        self._before: dict[str, str] = {}
        self._show(self.head)

    def __repr__(self) -> str:
        of = f" {self._id!r}" if self._id is not None else ""
        return f"AsOf({self._model.__name__}{of} at position {self.position:,} of {self.head:,})"

    def code(self) -> str:
        """The Python that gives what is shown."""
        verb = f"load({self._model.__name__}, {self._id!r})" if self._id is not None else f"table({self._model.__name__})"
        return f"lab.at(position={self.position}).{verb}"

    def state(self) -> dict[str, Any]:
        """All that is drawn."""
        return {
            **super().state(), "position": self.position, "head": self.head, "name": self._model.__name__, "id": self._id,
            "columns": self._columns, "rows": self._rows, "count": self._count, "when": self._when, "event": self._event,
        }  # fmt: skip

    def html(self) -> str:
        """The table or the state at the moment."""
        when = f", {self._when}" if self._when else ""
        heading = f"{self._model.__name__} as of position {self.position:,} of {self.head:,}{when}"
        rows = [row[:-1] for row in self._rows]
        return table(heading, self._columns, rows, one_line=True)

    def on_to(self, told: Mapping[str, Any]) -> None:
        """To a position."""
        self._show(int(told["position"]))

    def on_by(self, told: Mapping[str, Any]) -> None:
        """By so many events; of one key, by so many of its own."""
        count = int(told["count"])
        if self._id is not None:
            mine = [event.position for event in self._lab.debug(self._model, self._id).events]
            at = sum(of <= self.position for of in mine) + count
            self._show(0 if at <= 0 else mine[min(at, len(mine)) - 1])
        else:
            self._show(self.position + count)

    def on_time(self, told: Mapping[str, Any]) -> None:
        """To a time, as it was known then."""
        self._show(self._lab.at(str(told["time"])).head)

    def on_refresh(self, told: Mapping[str, Any]) -> None:
        """To the log as it is now."""
        self._show(self._lab.head)

    def _show(self, position: int) -> None:
        head = self._lab.head
        position = min(max(position, 0), head)
        moment = self._lab.at(position=position)
        rows: list[tuple[Any, ...]]
        if self._id is not None:
            values = dict(flat(moment.load(self._model, self._id)))
            rows = [(name, value, self._before.get(name, value) != value) for name, value in values.items()]
            columns, count, self._before = ["field", "value"], 1, values
        else:
            frame = moment.table(self._model)
            columns, count = list(frame.columns), len(frame)
            rows = [(*map(_cell, row), False) for row in frame.head(SHOWN).rows()]
        self._when, self._event = "", ""
        for event in moment.read(after=position - 1, until=position):
            self._when = f"{event.recorded_at.replace(tzinfo=None)} UTC"
            self._event = f"{event.type} of {event.stream}"
        self.position, self.head, self._columns, self._rows, self._count = position, head, columns, rows, count


class Inspector(Controller):
    """A model's table and what it rests on: its rows by page, the code and the plan, the checkpoint, what stopped."""

    def __init__(self, lab: Lab, model: type[Any]) -> None:
        super().__init__()
        self._lab, self._model = lab, model
        self._sorted: tuple[str, bool] | None = None
        self._find = ""
        self._blamed: dict[str, Any] | None = None
        self._turn = 0
        self._look()

    def __repr__(self) -> str:
        return f"Inspector({self._model.__name__}: {many(len(self._frame), 'row')})"

    def code(self) -> str:
        """The Python that gives the table as it is shown."""
        text = f"lab.table({self._model.__name__})"
        if self._sorted is not None:
            text += f".sort({self._sorted[0]!r}{', descending=True' if self._sorted[1] else ''})"
        if self._blamed is not None:
            text = f"lab.blame({self._model.__name__}, {self._blamed['key']!r}, {self._blamed['field']!r})"
        return text

    def state(self) -> dict[str, Any]:
        """All that is drawn, but for pages."""
        return {
            **super().state(), "name": self._model.__name__, "columns": self._frame.columns, "count": len(self._frame),
            "all": len(self._whole), "facts": self._facts, "sorted": self._sorted, "find": self._find, "page": PAGE,
            "blamed": self._blamed, "turn_of": self._turn,
        }  # fmt: skip

    def html(self) -> str:
        """What it rests on, and the first rows."""
        facts = table(f"{self._model.__name__}: {many(len(self._whole), 'row')}", ("", ""), self._facts, whole={0})
        rows = [tuple(map(_cell, row)) for row in self._frame.head(SHOWN).rows()]
        return facts + table("", self._frame.columns, rows)

    def on_page(self, told: Mapping[str, Any]) -> None:
        """A page is told as a message of its own."""
        at = max(int(told["at"]), 0)
        rows = [tuple(map(_cell, row)) for row in self._frame[at : at + PAGE].rows()]
        self.reply({"page": at, "turn_of": self._turn, "rows": rows})

    def on_sort(self, told: Mapping[str, Any]) -> None:
        """By a column; once more the other way round, and once more not at all."""
        column = str(told["column"])
        if column not in self._whole.columns:
            raise InvalidValue(f"there is no column {column!r}", hint=", ".join(self._whole.columns))
        now = self._sorted
        self._sorted = (column, False) if now is None or now[0] != column else (column, True) if not now[1] else None
        self._arrange()

    def on_find(self, told: Mapping[str, Any]) -> None:
        """Rows whose key has this text."""
        self._find = str(told["text"]).strip()
        self._arrange()

    def on_blame(self, told: Mapping[str, Any]) -> None:
        """The events that made one cell what it is."""
        row, field = int(told["row"]), str(told["field"])
        if not 0 <= row < len(self._frame):
            raise InvalidValue(f"there is no row {row:,}")
        keys = [self._frame[row, name] for name in self._keys]
        key = keys[0] if len(keys) == 1 else tuple(keys)
        frame = self._lab.blame(self._model, key, field).head(50)
        listed = [
            (str(of["when"].replace(tzinfo=None)), of["event"], f"{of['position']:,}", _cell(of["value"]))
            for of in frame.to_dicts()
        ]
        self._blamed = {"key": key, "field": field, "rows": listed}

    def on_close(self, told: Mapping[str, Any]) -> None:
        """The blame is put away."""
        self._blamed = None

    def on_refresh(self, told: Mapping[str, Any]) -> None:
        """The log as it is now."""
        self._look()

    def _look(self) -> None:
        model = model_of(self._model)
        self._whole, self._keys = self._lab.table(self._model), list(model.key_names)
        status = self._lab.status()
        mine = status.filter(pl.col("name") == model.name).to_dicts() if len(status) else []
        plan = self._lab.explain(self._model)
        parked = self._lab.parked(self._model) if mine else None
        self._facts = [("head of the log", f"{self._lab.head:,}"), ("code", model.fingerprint[:12]), ("plan", plan.verdict)]
        for of in mine:
            lag = self._lab.head - of["position"]
            self._facts.append((f"read model, {of['state']}", f"checkpoint {of['position']:,}, {many(lag, 'event')} behind"))
        if not mine:
            self._facts.append(("read model", "none is stored: it is folded when it is asked for"))
        if parked is not None and len(parked):
            for of in parked.to_dicts()[:20]:
                self._facts.append((f"stopped: {of['key']}", f"{of['type']} at {of['position']:,}: {of['error']}"))
        self._arrange()

    def _arrange(self) -> None:
        frame = self._whole
        if self._find:
            found = pl.any_horizontal(pl.col(name).cast(pl.String).str.contains(self._find, literal=True) for name in self._keys)
            frame = frame.filter(found)
        if self._sorted is not None:
            frame = frame.sort(self._sorted[0], descending=self._sorted[1], maintain_order=True)
        self._frame = frame
        self._turn += 1


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 120 else text[:119] + "…"
