"""Drawing for people: progress in a terminal or notebook, and HTML for Jupyter. The only place that knows either.

`register` hooks both in from above when a lab is first opened; the layers below keep their plain, stable `repr`.
"""

from __future__ import annotations

from eventlab import lab
from eventlab.display import html, progress


def register() -> None:
    """Show progress where someone looks, and draw labs and reports in Jupyter."""
    lab.default_progress = progress.open_bar
    html.register()
