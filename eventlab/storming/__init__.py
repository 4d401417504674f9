"""Which events are there, and which should be: boards of what is meant, logs of what happens, and how far the two agree.

`board` is the value: notes on a timeline, examples, flows; `origins` draws it from code or from a log. `review` reads it as
a colleague would, `drawing` shows it, `scaffold` makes code of it, `simulation` a log. `discovery` reads a log and gives what
happens in it, `process` is the way of one category, and `against` holds a log against a board.
"""

from eventlab.storming.board import Board, Example, Fact, Field, Layout, Note
from eventlab.storming.drawing import markdown, mermaid
from eventlab.storming.review import review
from eventlab.storming.scaffold import scaffold, write
from eventlab.storming.simulation import simulate

__all__ = [
    "Board", "Example", "Fact", "Field", "Layout", "Note", "markdown", "mermaid", "review", "scaffold", "simulate", "write",
]  # fmt: skip
