"""Run notebooks again and keep what they print: `python tests/notebooks/execute.py [notebook …]`, all of them by default.

Each runs from top to bottom in a fresh kernel, in its own folder, and is written back so that the same code gives the same
bytes: no times, no widgets, no ids or metadata of chance, one kernel and language, streams in one piece, pictures without
the version of the library that drew them. A notebook with a cell that raises or warns is not written.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOKS: Final = Path(__file__).resolve().parents[2] / "notebooks"
METADATA: Final = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
WIDGET: Final = "application/vnd.jupyter.widget-view+json"
#: What a cell keeps of its metadata: tags, and the text that stands for its picture; the rest is left by programs.
KEPT: Final = ("alt", "tags")
SECONDS_A_CELL: Final = 180
_PICTURES: Final = "--InlineBackend.print_figure_kwargs={'bbox_inches': 'tight', 'metadata': {'Software': None}}"


class Refused(Exception):
    """A cell raised or warned, so what it printed is not worth keeping."""


def execute(path: Path) -> bool:
    """Run one notebook and write it back; whether its bytes changed."""
    notebook = read(path)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=SECONDS_A_CELL,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        extra_arguments=[_PICTURES, "--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except CellExecutionError as why:
        raise Refused(f"{path.name}: {why}") from None
    if complaints := list(_complaints(notebook)):
        raise Refused(f"{path.name}: " + "\n".join(complaints))
    before, after = path.read_bytes(), settled(notebook).encode()
    if before != after:
        path.write_bytes(after)
    return before != after


def read(path: Path) -> Any:
    """A notebook whose cells keep their ids; one that is missing or repeated is made of the cell's place and text."""
    # Not nbformat.read, which checks what it reads and gives such cells ids of chance.
    notebook = nbformat.v4.reads(path.read_text(encoding="utf-8"))
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen: set[str] = set()
    for i, cell in enumerate(notebook.cells):
        if cell.get("id", "") in seen | {""}:
            cell.id = hashlib.sha256(f"{i} {cell.source}".encode()).hexdigest()[:8]
        seen.add(cell.id)
    return notebook


def settled(notebook: Any) -> str:
    """The text of a notebook without what differs from run to run and from program to program."""
    notebook = nbformat.from_dict(notebook)
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({name: cell.metadata[name] for name in KEPT if name in cell.metadata})
        cell.source = "\n".join(line.rstrip() for line in cell.source.splitlines()).strip("\n")
    for cell in code_cells(notebook):
        cell.outputs = _outputs(cell.outputs)
    return str(nbformat.writes(notebook, version=nbformat.NO_CONVERT)) + "\n"


def code_cells(notebook: Any) -> list[Any]:
    """The cells with code in them."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _outputs(outputs: Sequence[Any]) -> list[Any]:
    """Outputs without widgets and their metadata, and the pieces of a stream as one."""
    kept: list[Any] = []
    streams: dict[str, Any] = {}
    for output in outputs:
        if output.output_type == "stream":
            # How a kernel cuts a stream is a matter of time; nbval joins the pieces in the same way.
            if output.name in streams:
                streams[output.name].text += output.text
                continue
            streams[output.name] = output
        elif WIDGET in output.get("data", {}):
            if "text/html" not in output.data:
                continue
            # A live view says in HTML what it shows: that is kept.
            del output.data[WIDGET]
        kept.append(output)
    return kept


def _complaints(notebook: Any) -> Iterator[str]:
    """What must not be kept: an error, or a warning in the stream of errors."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"{output.ename}: {output.evalue}\nin the cell\n{cell.source}"
            elif output.output_type == "stream" and output.name == "stderr":
                yield f"a warning, {output.text.strip()}\nin the cell\n{cell.source}"


def main(arguments: Sequence[str]) -> int:
    """Execute the notebooks named, or all; 1 when one was refused, 2 when one is not there."""
    paths = [Path(name).resolve() for name in arguments] or sorted(NOTEBOOKS.glob("*.ipynb"))
    if missing := [str(path) for path in paths if path.suffix != ".ipynb" or not path.is_file()]:
        print(__doc__, f"There is no notebook {', '.join(missing)}.", sep="\n", file=sys.stderr)
        return 2
    # A bar is a widget, and how far it got is a matter of time. The kernel inherits both.
    os.environ |= {"EVENTLAB_PROGRESS": "off", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    refused = 0
    for path in paths:
        try:
            print(f"{path.name}: {'written' if execute(path) else 'the same'}")
        except Refused as why:
            refused = 1
            print(f"not written: {why}", file=sys.stderr)
    return refused


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
