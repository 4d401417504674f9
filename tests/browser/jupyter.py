"""A real JupyterLab in a real browser, both private to a test; what is asked for from outside is refused and written down."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--force-color-profile=srgb", "--hide-scrollbars",
]  # fmt: skip
#: The session context knows when the kernel is there; the toolbar says "idle" before it is.
_READY = """() => { const c = window.jupyterapp?.shell?.currentWidget?.context, s = c?.sessionContext;
  const kernel = s?.session?.kernel;
  return !!(c?.isReady && s?.isReady && kernel?.connectionStatus === 'connected' && kernel.status === 'idle'); }"""
_DONE = """() => { const w = window.jupyterapp.shell.currentWidget, k = w.context.sessionContext.session?.kernel;
  const cells = [...w.content.model.cells].filter(c => c.type === 'code' && c.sharedModel.getSource().trim());
  return k?.status === 'idle' && cells.every(c => c.executionCount !== null); }"""
_ERRORS = """() => [...window.jupyterapp.shell.currentWidget.content.model.cells].flatMap(c => c.type !== 'code' ? [] :
  c.sharedModel.getOutputs().filter(o => o.output_type === 'error').map(o => `${o.ename}: ${o.evalue}`))"""


@contextlib.contextmanager
def jupyterlab(folder: Path, scratch: Path, theme: str) -> Iterator[str]:
    """A server on a port of its own; its address with the token. It is ended when the test is, whatever happened."""
    settings = scratch / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "themes.jupyterlab-settings").write_text(json.dumps({"theme": theme}))
    quiet = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    places = {
        "JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "JUPYTER_DATA_DIR": "data", "IPYTHONDIR": "ipython",
        "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }  # fmt: skip
    environment = os.environ | {name: str(scratch / place) for name, place in places.items()}
    environment |= {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}", "--allow-root", "--LabApp.news_url=None",
        "--LabApp.collaborative=False", "--LabApp.extension_manager=readonly", "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    with (scratch / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            base = f"http://127.0.0.1:{port}"
            for _ in range(400):
                if server.poll() is not None:
                    raise AssertionError("JupyterLab ended: " + (scratch / "server.log").read_text()[-2000:])
                with contextlib.suppress(OSError):
                    if urllib.request.urlopen(f"{base}/api/status?token={token}", timeout=1).status == 200:
                        break
                time.sleep(0.2)
            else:
                raise AssertionError("JupyterLab did not answer")
            yield f"{base}/doc/tree/{{}}?reset&token={token}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)


class Page:
    """A notebook in the browser: `page` is Playwright's, `refused` what it wanted from elsewhere, `complaints` its errors."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.refused: list[str] = []
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.context.route("**/*", self._gate)

    def _gate(self, route: Any) -> None:
        url = route.request.url
        if url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")):
            route.continue_()
        else:
            self.refused.append(url)
            route.abort()

    def run_all(self) -> None:
        """Run every cell; none may end in an error."""
        self.page.evaluate(
            "() => { window.ran = null; window.jupyterapp.commands.execute('notebook:run-all-cells')"
            ".then(() => { window.ran = true; }, (e) => { window.ran = String(e); }); }"
        )
        self.page.wait_for_function("() => window.ran !== null", timeout=120_000)
        self.page.wait_for_function(_DONE, timeout=120_000)
        assert self.page.evaluate(_ERRORS) == []

    def ask(self, code: str) -> str:
        """What a cell prints that is run now: what Python has."""
        return str(self.page.evaluate(
            """async (code) => { const kernel = window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel;
            let text = ''; const future = kernel.requestExecute({code, store_history: false});
            future.onIOPub = (m) => { if (m.header.msg_type === 'stream') text += m.content.text;
              if (m.header.msg_type === 'error') text += m.content.ename + ': ' + m.content.evalue; };
            await future.done; return text.trim(); }""", code,
        ))  # fmt: skip

    def becomes(self, code: str, wanted: str, seconds: float = 10) -> None:
        """Wait until Python says this: messages of a view take a moment."""
        end, said = time.monotonic() + seconds, ""
        while time.monotonic() < end:
            said = self.ask(code)
            if said == wanted:
                return
            time.sleep(0.05)
        raise AssertionError(f"{code} is {said!r}, and should be {wanted!r}")


@contextlib.contextmanager
def opened(
    cells: list[str] | Path, folder: Path, *, theme: str = "JupyterLab Light", size: tuple[int, int] = (1400, 1000)
) -> Iterator[Page]:
    """A notebook of these cells, or one of a file, open in JupyterLab with its kernel running."""
    from playwright.sync_api import sync_playwright

    root, scratch = folder / "notebooks", folder / "jupyter"
    root.mkdir()
    scratch.mkdir()
    if isinstance(cells, Path):
        made = nbformat.read(cells, as_version=4)
    else:
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    # Without it JupyterLab asks which kernel is meant.
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, root / "it.ipynb")
    with jupyterlab(root, scratch, theme) as address, sync_playwright() as play:
        browser = play.chromium.launch_persistent_context(
            scratch / "browser", executable_path=CHROMIUM, headless=True, args=_FLAGS, reduced_motion="reduce",
            viewport={"width": size[0], "height": size[1]},
        )  # fmt: skip
        try:
            page = Page(browser.pages[0] if browser.pages else browser.new_page())
            page.page.goto(address.format("it.ipynb"), wait_until="domcontentloaded")
            page.page.wait_for_selector(".jp-NotebookPanel .jp-Notebook", timeout=60_000)
            page.page.wait_for_selector("#jupyterlab-splash", state="detached", timeout=60_000)
            page.page.wait_for_function(_READY, timeout=90_000)
            yield page
        finally:
            browser.close()
