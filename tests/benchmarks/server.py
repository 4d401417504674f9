"""UmaDB, an event store that is a server: started on a port of this machine over a folder, and asked by its Python client."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Final

import umadb

START_SECONDS: Final = 20.0


class Server:
    """The server that comes with the client's wheel, with its own settings, and one client of it."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        run = "import sys, umadb; umadb.run_server_from_args(['umadb', *sys.argv[1:]])"
        self._process = subprocess.Popen(
            [sys.executable, "-c", run, "--listen", self.address, "--db-path", str(folder)], stdout=subprocess.DEVNULL
        )
        try:
            self._client = self._connected()
        except BaseException:
            self.close()
            raise

    def _connected(self) -> umadb.Client:
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                client = umadb.Client(f"http://{self.address}")
                client.head()
            except umadb.TransportError:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return client

    def append(self, stream: str, payloads: list[tuple[Any, ...]], type: str) -> None:
        """One request, durable when it is answered; the stream is a tag."""
        said = [json.dumps(values, default=str).encode() for values in payloads]
        self._client.append([umadb.Event(type, data, tags=[stream], uuid=uuid.uuid4()) for data in said])

    def payloads(self) -> list[list[Any]]:
        """What every event says."""
        return [json.loads(bytes(found.event.data)) for found in self._client.read()]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(START_SECONDS)
