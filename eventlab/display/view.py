"""What every live view has below it: a controller that takes gestures and gives a state, and needs no browser.

A gesture is a mapping with `do`; it comes to the method `on_<do>`. An error is told to whoever looks, and changes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from eventlab.errors import EventlabError, InvalidValue


class Controller:
    """Takes gestures, one at a time, whatever thread they come on."""

    def __init__(self) -> None:
        self._one = threading.RLock()
        self._replies: list[dict[str, Any]] = []
        self.error = ""

    def do(self, gesture: Mapping[str, Any]) -> bool:
        """Do what a person asked for; whether it was done. What was wrong with it is in `error`."""
        with self._one:
            self.error = ""
            what = getattr(self, f"on_{gesture.get('do')}", None)
            try:
                if what is None:
                    raise InvalidValue(f"there is no gesture {gesture.get('do')!r}")
                what(gesture)
            except EventlabError as why:
                self.error = f"{why.message}{f' ({why.hint})' if why.hint else ''}"
            except (KeyError, TypeError, ValueError, AttributeError) as why:
                self.error = f"{gesture.get('do')}: {type(why).__name__} {why}"
            return not self.error

    def on_hello(self, told: Mapping[str, Any]) -> None:
        """A view that was opened asks for the state."""

    def state(self) -> dict[str, Any]:
        """All that is drawn, as plain values."""
        return {"error": self.error}

    def code(self) -> str:
        """The Python that gives the same in the next cell."""
        raise NotImplementedError

    def html(self) -> str:
        """What is shown where nothing runs."""
        raise NotImplementedError

    def reply(self, message: dict[str, Any]) -> None:
        """Say something to the view beside the state."""
        self._replies.append(message)

    def taken(self) -> list[dict[str, Any]]:
        """The replies that were not taken yet."""
        with self._one:
            found, self._replies = self._replies, []
        return found
