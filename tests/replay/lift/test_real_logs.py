"""Real logs by every engine: flights of a month, the histories of two repositories, metered usage."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Self

import polars as pl
from replay.lift.hostile import agree

import eventlab as el
from eventlab.domains import flights
from eventlab.domains.nycflights13 import FlightFrames, load
from eventlab.model.models import model_of

UTC = dt.UTC


def test_a_month_of_flights_by_every_engine(tmp_path: Path) -> None:
    frames = load()
    end = dt.datetime(2013, 1, 11, tzinfo=UTC)
    few = FlightFrames(
        *(getattr(frames, name).filter(pl.col("at") < end) for name in ("scheduled", "departed", "arrived", "cancelled"))
    )
    with el.open(tmp_path / "flights") as lab:
        lab.ingest(flights.sources(few), source="nycflights13", recorded_at="occurred_at")
        cut = lab.store.cut()
        for model in flights.MODELS:
            for until in (cut.head, cut.position_at(int(dt.datetime(2013, 1, 5, 12, tzinfo=UTC).timestamp()) * 1_000_000)):
                assert len(agree(model_of(model), cut, "default", until, ("loop", "lifted"))) > 0


@el.event
class PathAdded:
    """A commit brought a new file."""

    path: str
    blob: str


@el.event
class PathModified:
    """A commit changed a file."""

    path: str
    blob: str


@el.event
class PathDeleted:
    """A commit took a file away."""

    path: str
    old_blob: str | None


@el.event
class ChangeCommitted:
    """Somebody committed."""

    author: str
    authored_at: int
    committed_at: int


PathEvent = PathAdded | PathModified | PathDeleted


@el.projection
class Blob:
    """What lies at each path, and how often it changed."""

    blob: str | None = None
    changes: int = 0
    blobs: frozenset[str] = frozenset()
    first_seen: dt.datetime | None = None

    @staticmethod
    def key(event: PathEvent) -> str:
        return event.path

    def evolve(self, event: PathEvent, meta: el.Meta) -> Self:
        seen = self.first_seen or meta.occurred_at
        match event:
            case PathAdded(blob=blob) | PathModified(blob=blob):
                return replace(self, blob=blob, changes=self.changes + 1, blobs=self.blobs | {blob}, first_seen=seen)
            case PathDeleted():
                return replace(self, blob=None, changes=self.changes + 1, first_seen=seen)
        return self


@el.aggregate(name="repo")
class Repo:
    """The map of a repository's files, a cycle-free mapping, and its pace."""

    files: dict[str, str] = el.field(default_factory=dict)
    commits: int = 0
    authors: frozenset[str] = frozenset()
    last: dt.datetime | None = None
    longest_pause: dt.timedelta = dt.timedelta(0)

    def evolve(self, event: PathEvent | ChangeCommitted, meta: el.Meta) -> Self:
        match event:
            case PathAdded(path=path, blob=blob) | PathModified(path=path, blob=blob):
                return replace(self, files={**self.files, path: blob})
            case PathDeleted(path=path):
                return replace(self, files={k: v for k, v in self.files.items() if k != path})
            case ChangeCommitted(author=author):
                pause = meta.occurred_at - self.last if self.last is not None else dt.timedelta(0)
                longest = max(self.longest_pause, pause)
                return replace(
                    self, commits=self.commits + 1, authors=self.authors | {author}, last=meta.occurred_at, longest_pause=longest
                )
        return self


class AuthorMonth(NamedTuple):
    author: str
    month: str


@el.projection
class Pace:
    """Commits of each author by month."""

    commits: int = 0
    rewritten: int = 0

    @staticmethod
    def key(event: ChangeCommitted, meta: el.Meta) -> AuthorMonth:
        return AuthorMonth(event.author, meta.occurred_at.strftime("%Y-%m"))

    def evolve(self, event: ChangeCommitted) -> Self:
        return replace(self, commits=self.commits + 1, rewritten=self.rewritten + (event.authored_at != event.committed_at))


def test_the_histories_of_two_repositories_by_every_engine(real_data: Path) -> None:
    classes = {
        "FileAdded": PathAdded,
        "FileModified": PathModified,
        "FileDeleted": PathDeleted,
        "CommitRecorded": ChangeCommitted,
    }
    with el.scratch() as lab:
        for name in ("attrs", "sqlite-utils"):
            for line in map(json.loads, (real_data / "git-events" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()):
                cls = classes[line["type"]]
                event = cls(**{f: line[f] for f in cls.__dataclass_fields__})
                lab.append(f"repo-{name}", [el.new(event, occurred_at=dt.datetime.fromtimestamp(line["committed_at"], UTC))])
        cut = lab.store.cut()
        assert cut.head == 6_674 + 3_904
        for model in (Blob, Pace):
            agree(model_of(model), cut, "default", cut.head, ("loop", "lifted"))
        for until in (cut.head, 5_000):
            agree(model_of(Repo), cut, "default", until)
        year = dt.datetime(2024, 1, 1, tzinfo=UTC)
        known = [e for e in lab.read(el.stream("repo-attrs")) if e.occurred_at <= year]
        found = agree(model_of(Repo), cut, "default", known[-1].position).to_pylist()
        (files,) = (dict(row["files"]) for row in found if row["_id"] == "attrs")
        assert (
            hashlib.sha256("\n".join(sorted(f"{p}\t{b}" for p, b in files.items())).encode()).hexdigest()[:16]
            == "bf62bf58e5fb11fa"
        )


@el.event
class PlanBought:
    """A customer subscribed to a plan."""

    included: int


@el.event
class UnitsUsed:
    """A program used some of the included quantity."""

    quantity: int


@el.aggregate(name="usage_meter")
class UsageMeter:
    """What is left of the included quantity, or what was used beyond it: a machine."""

    left: int = 0
    used: int = 0
    beyond: int = 0

    def evolve(self, event: PlanBought | UnitsUsed) -> Self:
        match event:
            case PlanBought(included=included):
                return replace(self, left=included, used=0, beyond=0)
            case UnitsUsed(quantity=n) if n <= self.left:
                return replace(self, left=self.left - n, used=self.used + n)
            case UnitsUsed(quantity=n):
                return replace(self, left=0, used=self.used + n, beyond=self.beyond + n - self.left)
        return self


def test_metered_usage_by_every_engine(real_data: Path) -> None:
    folder = real_data / "metered-billing" / "RefreshIncludedQuantities"
    with el.scratch() as lab:
        known = []
        for number, file in enumerate(sorted(folder.glob("*--event--*"))):
            message = json.loads(file.read_text(encoding="utf-8-sig"))
            if message["type"] == "SubscriptionPurchased":
                (of,) = message["value"]["subscription"]["plan"]["billingDimensions"].values()
                lab.append("usage_meter-0", [PlanBought(of["included"])])
            elif message["type"] == "UsageReported":
                lab.append("usage_meter-0", [UnitsUsed(message["value"]["quantity"])])
            else:
                break
            state = json.loads((folder / f"{number:03d}--state.json").read_text(encoding="utf-8-sig"))
            (of,) = state["meters"][0]["subscription"]["plan"]["billingDimensions"].values()
            known.append(of["meter"])
        cut, model = lab.store.cut(), model_of(UsageMeter)
        assert len(known) == 5
        for position, meter in enumerate(known, 1):
            (row,) = agree(model, cut, "default", position).to_pylist()
            if "included" in meter:
                assert (row["left"], row["used"]) == (meter["included"]["quantity"], meter["included"]["consumed"])
            else:
                assert (row["left"], row["beyond"]) == (0, meter["consumed"]["consumedQuantity"])
