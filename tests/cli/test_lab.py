"""`eventlab lab`: a real JupyterLab that asks nothing of servers outside, on notebooks that are trusted where they are ours."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FIRST = ROOT / "notebooks" / "00_start_here.ipynb"


def settings(tmp_path: Path) -> dict[str, str]:
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "JUPYTER_DATA_DIR": "data"}
    return os.environ | {name: str(tmp_path / place) for name, place in places.items()}


def page_of(environment: dict[str, str], *arguments: str, folder: Path) -> dict[str, Any]:
    """What the page of a JupyterLab that was opened so is told."""
    program = Path(sys.executable).parent / "eventlab"
    command = [program, "lab", *arguments, "--no-browser", "--", "--allow-root", "--ip=127.0.0.1", "--port=0"]
    with (folder / "said.txt").open("w+") as said:
        streams: dict[str, Any] = {"stdout": said, "stderr": subprocess.STDOUT}
        server = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **streams)
        try:
            for _ in range(300):
                text = (folder / "said.txt").read_text()
                if found := re.search(r"http://127\.0\.0\.1:\d+/lab\S*token=\w+", text):
                    break
                assert server.poll() is None, text
                time.sleep(0.1)
            else:
                raise AssertionError(text)
            page = urllib.request.urlopen(found[0], timeout=20).read().decode()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait(10)
    config = re.search(r'<script id="jupyter-config-data" type="application/json">\s*(\{.*?\})\s*</script>', page, re.DOTALL)
    assert config, page[:500]
    return json.loads(config[1])


def trusted(notebook: Path, environment: dict[str, str]) -> bool:
    code = (
        "import sys, nbformat, nbformat.sign as s;"
        "print(s.NotebookNotary().check_signature(nbformat.read(sys.argv[1], as_version=4)))"
    )
    command = [sys.executable, "-c", code, notebook]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip() == "True"


@pytest.mark.parametrize("whose", ["ours", "another's"])
def test_the_notebooks_open_without_news_and_ours_are_trusted(whose: str, tmp_path: Path) -> None:
    environment = settings(tmp_path)
    notebook = FIRST if whose == "ours" else tmp_path / "mine.ipynb"
    if whose != "ours":
        shutil.copy(FIRST, notebook)
        # Another notebook than that which is signed: a signature is of what stands in it.
        notebook.write_text(notebook.read_text().replace("# Start here", "# Start there"))
    assert not trusted(notebook, environment)
    config = page_of(environment, str(notebook), folder=tmp_path)
    assert config["news"] == {"disabled": True}
    assert trusted(notebook, environment) == (whose == "ours")
    assert trusted(ROOT / "notebooks" / "09_trace_causes.ipynb", environment) == (whose == "ours")


@pytest.mark.parametrize(
    ("arguments", "said"), [(["nowhere.ipynb"], "there is no notebook nowhere.ipynb"), (["a", "b"], "a, b are several notebooks")]
)
def test_a_notebook_that_is_not_there_is_said(arguments: list[str], said: str, tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "eventlab"
    done = subprocess.run([program, "lab", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert said in done.stderr
