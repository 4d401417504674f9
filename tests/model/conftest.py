"""A notebook without Jupyter: cells that are run one after another in one module, as often as one likes."""

from __future__ import annotations

import itertools
import linecache
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eventlab.model.events import COMMANDS, EVENTS
from eventlab.model.models import MODELS

_numbers = itertools.count(1)


class Notebook:
    """A module that grows by cells. What a cell defines is an attribute; text that is no cell any more is still found."""

    def __init__(self, name: str) -> None:
        self.module = types.ModuleType(name)
        sys.modules[name] = self.module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def run(self, text: str) -> Notebook:
        """Run a cell; its text is kept where `inspect` finds it, as IPython does. No `from __future__` of ours applies."""
        text = textwrap.dedent(text)
        file = f"<cell {next(_numbers)} of {self.module.__name__}>"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        exec(compile(text, file, "exec", dont_inherit=True), vars(self.module))
        return self

    def close(self) -> None:
        """As if this process had never seen it: its classes are not there for the next notebook."""
        name = self.module.__name__
        sys.modules.pop(name, None)
        for registry in (EVENTS, COMMANDS, MODELS):
            for place in [place for place in registry._places if place.startswith(f"{name}:")]:
                kind = registry._places.pop(place)
                del registry._kinds[kind.name][place]


@pytest.fixture
def notebook() -> Iterator[Callable[..., Notebook]]:
    """Makes notebooks; without a name each has a module name of its own."""
    made: list[Notebook] = []

    def make(name: str = "") -> Notebook:
        made.append(Notebook(name or f"notebook_{next(_numbers)}"))
        return made[-1]

    yield make
    for one in made:
        one.close()
