"""Every error eventlab raises, in one tree split by what the reader does next.

* `TryAgain`: nothing is wrong with the call; load and decide again, or wait.
* `Refused`: the call is wrong and nothing was stored; fix the call, the query or the input.
* `ModelError`: the model's code is wrong or does not fit the log; fix the code.
* `StoreError`: the folder, the disk or the data need attention.

A message says what happened, where, and the numbers; `hint` says the way out; the numbers are attributes too.
"""

from __future__ import annotations

from typing import Any


class EventlabError(Exception):
    """The root of the tree: a message, a hint, and the facts as attributes.

    >>> error = Conflict("cannot append to 'order-7'", hint="load and decide again", stream="order-7", at=5)
    >>> print(error)
    cannot append to 'order-7'
    Hint: load and decide again
    >>> error.stream, error.facts["at"]
    ('order-7', 5)
    """

    def __init__(self, message: str, *, hint: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts = facts

    def __getattr__(self, name: str) -> Any:
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.facts)

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message


def _rebuild(kind: type[EventlabError], message: str, hint: str, facts: dict[str, Any]) -> EventlabError:
    return kind(message, hint=hint, **facts)


# -- try again ---------------------------------------------------------------------------------------------------------


class TryAgain(EventlabError):
    """Nothing is wrong with the call; the world moved, or is busy."""


class Conflict(TryAgain):
    """The stream is not at the expected version; `events` holds what came in between."""


class Busy(TryAgain):
    """Another process holds the write lock for longer than the time allowed."""


class Outrun(TryAgain):
    """A read model or a consumer was moved on by someone else in between."""


class Behind(TryAgain):
    """An inline read model is too far behind the log to be moved on within an append."""


class HandledBefore(TryAgain):
    """A command was handled under this id already, by someone else at the same time."""


class Late(TryAgain):
    """What was waited for did not happen within the time allowed."""


# -- fix the call ------------------------------------------------------------------------------------------------------


class Refused(EventlabError):
    """The call is wrong; nothing was stored."""


class Rejected(Refused):
    """A `decide` said no: the command breaks a rule of the business. What is given is the reason, as the user reads it."""

    def __init__(self, message: object = "the command was rejected, without a reason", *, hint: str = "", **facts: Any) -> None:
        super().__init__(str(message), hint=hint, **facts)


class NotHandled(Refused):
    """The model's `decide` does not list this command."""


class InvalidValue(Refused):
    """A value does not fit the declared type of its field."""


class InvalidName(Refused):
    """A stream, category, tenant or tag is not spelled as it must be."""


class DuplicateEvent(Refused):
    """Some of these event ids are in the log already, or carry other content."""


class IngestRefused(Refused):
    """A row, a column or the order of an ingest is wrong; nothing was stored."""


class QueryRefused(Refused):
    """The SQL writes, reads other files, holds several statements, or does not parse."""


class UnknownType(Refused):
    """No event type, model or category of this name is known here."""


class UnknownStream(Refused):
    """The stream has no events (at this moment)."""


class Unsupported(Refused):
    """This cannot be done here, and the message says what can."""


class SourceMissing(Refused):
    """A package or a file that the call reads from is not there."""


# -- fix the model -----------------------------------------------------------------------------------------------------


class ModelError(EventlabError):
    """The model's code is wrong, or does not fit the log."""


class StaleType(ModelError):
    """An instance of a class that was redefined since; make it again from the new class."""


class SchemaConflict(ModelError):
    """A type differs from what the store knows under the same name and version."""


class EvolveFailed(ModelError):
    """An `evolve` (or `key`) raised, or gave back something that is not its state; the event is named."""


class UpcastFailed(ModelError):
    """An `@el.upcast` or `@el.downcast` function raised, or gave what its version of the event does not take."""


class UnknownValue(ModelError):
    """A stored value that the class of today does not know, such as a removed enum member."""


class NotLiftable(ModelError):
    """Some field of the model does not lift to a query, and engine="lifted" was asked for; the line and the reason are named."""


# -- see to the data ---------------------------------------------------------------------------------------------------


class StoreError(EventlabError):
    """The folder, the disk or the data need attention."""


class NoStore(StoreError):
    """There is no store in this folder, or the folder belongs to another program."""


class NewerFormat(StoreError):
    """The store was written by a newer eventlab."""


class OlderFormat(StoreError):
    """The store was written by an older eventlab, and is not brought up to date by surprise."""


class UnsafeDisk(StoreError):
    """The folder lies on a file system whose locks or fsync cannot be trusted."""


class ReadOnly(StoreError):
    """The store was opened for reading, or its folder cannot be written."""


class DiskFull(StoreError):
    """The disk has no room left; what was acknowledged is safe."""


class Poisoned(StoreError):
    """A write to the disk failed half way; open the store again before writing."""


class Damaged(StoreError):
    """Stored bytes are not what was written."""
