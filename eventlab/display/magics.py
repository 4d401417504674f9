"""Magics for notebooks, as sugar: `%load_ext eventlab`, then SQL in a cell of its own (`%%events`), as of a moment (`%at`)."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from typing import Any, Final

import polars as pl
from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class

from eventlab.errors import EventlabError, InvalidValue, UnknownType
from eventlab.lab import Lab
from eventlab.temporal.moment import instant

#: Texts, quoted names and comments, in which a dollar is a dollar; and outside of them the name of a parameter.
_NAME: Final = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|\$(?P<name>[A-Za-z_]\w*)""", re.DOTALL
)


@magics_class
class EventMagics(Magics):
    """What `%load_ext eventlab` brings."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self._space: dict[str, Any] = shell.user_ns
        #: What `%at` chose: nothing for the log as it is, a position, or a time.
        self.moment: int | str | None = None

    @line_magic
    def at(self, line: str) -> None:
        """`%at 2013-02-08T18:00Z`, `%at 1200` (a position), `%at now`: what `%%events` asks. `%at` says where it stands."""
        text = line.strip()
        if text == "now":
            self.moment = None
        elif text:
            chosen = int(text) if text.isdecimal() else text
            if isinstance(chosen, str):
                # Which lab is meant is said by each cell, and there may be several.
                _plainly(lambda: instant(chosen))
            self.moment = chosen
        print(f"as of {self._said()}")

    @cell_magic
    def events(self, line: str, cell: str) -> pl.DataFrame:
        """`%%events [NAME] [--lab VARIABLE]`: SQL over events, types and state; a Polars frame, also in the variable `NAME`.

        `$name` in the SQL is the variable of that name.
        """
        words, name, of = line.split(), "", ""
        while words:
            word = words.pop(0)
            if word == "--lab" and words:
                of = words.pop(0)
            elif word.isidentifier() and not keyword.iskeyword(word) and not name:
                name = word
            else:
                raise UsageError(f"%%events {line.strip()}: a name for the frame, and --lab VARIABLE, are all it takes")
        space = self._space
        named = {found: space[found] for match in _NAME.finditer(cell) if (found := match["name"]) in space}
        frame: pl.DataFrame = _plainly(lambda: self._reader(_lab(space, of), self.moment).sql(cell, **named))
        if name:
            space[name] = frame
        return frame

    def _reader(self, lab: Lab, moment: int | str | None) -> Any:
        if moment is None:
            return lab
        return lab.at(position=moment) if isinstance(moment, int) else lab.at(moment)

    def _said(self) -> str:
        if self.moment is None:
            return "now"
        return f"position {self.moment:,}" if isinstance(self.moment, int) else self.moment


def register(shell: Any) -> None:
    """Bring the magics to a shell; done again, the moment is that of now."""
    shell.register_magics(EventMagics(shell))


def _lab(space: dict[str, Any], name: str) -> Lab:
    """The lab that is meant: the variable of this name, or the only one there is."""
    if name:
        found = space.get(name)
        if not isinstance(found, Lab):
            raise UnknownType(f"there is no lab {name!r}", hint=f"{name} = el.open(…)")
        return found
    labs = {id(value): key for key, value in space.items() if isinstance(value, Lab) and not key.startswith("_")}
    if len(labs) != 1:
        said = f"there are {len(labs)} labs here: {', '.join(sorted(labs.values()))}" if labs else "there is no lab here"
        raise InvalidValue(said, hint="%%events --lab NAME" if labs else "lab = el.open(…)")
    (only,) = labs.values()
    lab: Lab = space[only]
    return lab


def _plainly(call: Callable[[], Any]) -> Any:
    """An error of eventlab in a line, without where in here it came from."""
    try:
        return call()
    except EventlabError as why:
        raise UsageError(f"{why.message}{f' ({why.hint})' if why.hint else ''}") from None
