"""Old code against new code: what changes, for how many keys, and by which event first; and goldens that tell why."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import pytest

import eventlab as el

SCRIPT = Path(sys.executable).parent / "eventlab"
OLD = '''
"""Scoops of ice cream."""
from dataclasses import replace
from typing import Self
import eventlab as el

@el.event
class ScoopSold:
    """Somebody bought scoops."""
    flavour: str
    scoops: int

@el.aggregate
class Van:
    """An ice cream van."""
    sold: int = 0
    most: int = 0
    last: str = ""
    def evolve(self, event: ScoopSold) -> Self:
        return replace(self, sold=self.sold + event.scoops, most=max(self.most, event.scoops), last=event.flavour)

@el.projection
class Flavours:
    """By flavour."""
    times: int = 0
    @staticmethod
    def key(event: ScoopSold) -> str | None:
        return event.flavour
    def evolve(self, event: ScoopSold) -> Self:
        return replace(self, times=self.times + 1)
'''
#: From four scoops on the fourth is for free; plain ice is not counted; and a field came.
NEW = (
    OLD.replace("sold=self.sold + event.scoops", "sold=self.sold + event.scoops - event.scoops // 4")
    .replace("return event.flavour\n", 'return event.flavour if event.flavour != "plain" else None\n')
    .replace('last: str = ""', 'last: str = ""\n    days: int = 0')
)
SALES = [("a", "plain", 1), ("b", "lemon", 2), ("a", "lemon", 3), ("b", "plain", 4), ("c", "nut", 1), ("a", "nut", 9)] * 3


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def eventlab(folder: Path, *arguments: str) -> tuple[int, Any]:
    done = subprocess.run([SCRIPT, *arguments, "--json"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository whose last commit is the old code and whose tree is the new, with a log beside."""
    repository = tmp_path / "repository"
    (repository / "parlour").mkdir(parents=True)
    module = repository / "parlour" / "scoops.py"
    module.write_text(OLD)
    git(repository, "init", "-q", "-b", "main")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "old")
    module.write_text(NEW)
    program = f"""
    import sys; sys.path.insert(0, {str(repository)!r})
    import eventlab as el
    from parlour.scoops import ScoopSold
    with el.open({str(tmp_path / "log")!r}, maintain=False) as lab:
        for van, flavour, scoops in {SALES!r}:
            lab.append(f"van-{{van}}", [ScoopSold(flavour, scoops)])
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)
    return repository


def test_each_kind_of_change_has_its_keys_and_the_first_event_responsible(repository: Path) -> None:
    code, told = eventlab(repository, "replay-diff", "--base", "HEAD", "--store", "../log", "--models", "parlour.scoops")
    assert (code, told["ok"]) == (1, False)
    van, flavours = (next(one for one in told["models"] if one["model"] == name) for name in ("van", "flavours"))
    # Brute force: the first sale of four scoops or more, and the keys that had one.
    most = [(at, name) for at, (name, _, scoops) in enumerate(SALES, 1) if scoops >= 4]
    (sold,) = van["changes"]
    assert (sold["field"], sold["keys"], sold["position"]) == ("sold", len({name for _, name in most}), most[0][0])
    assert (sold["stream"], sold["event"], sold["key"]) == ("van-b", "ScoopSold", "a")
    before = sum(scoops for name, _, scoops in SALES if name == "a")
    assert (sold["before"], sold["after"]) == (str(before), str(before - sum(s // 4 for n, _, s in SALES if n == "a")))
    assert van["fields"] == ["days: only in the new code"]
    (removed,) = flavours["changes"]
    assert (removed["field"], removed["key"], removed["position"]) == ("_removed", "plain", 1)
    assert flavours["keys"] == [3, 2]


def test_accepted_changes_are_named_with_their_reason_until_they_expire(repository: Path) -> None:
    accepted = repository / "accepted.toml"
    entries = '[[accepted]]\nmodel = "van"\nfield = "sold"\nreason = "the fourth is for free"\n{}'
    entries += '[[accepted]]\nmodel = "flavours"\nfield = "_removed"\nreason = "plain is no flavour"\n'
    arguments = ("replay-diff", "--base", "main", "--store", "../log", "--models", "parlour.scoops", "--accepted", accepted.name)
    accepted.write_text(entries.format(""))
    code, told = eventlab(repository, *arguments)
    assert (code, told["ok"]) == (0, True)
    assert {change["reason"] for one in told["models"] for change in one["changes"]} == {
        "the fourth is for free", "plain is no flavour",
    }  # fmt: skip
    accepted.write_text(entries.format("until = 2020-01-01\n"))
    assert eventlab(repository, *arguments)[0] == 1
    accepted.write_text('[[accepted]]\nmodel = "van"\nfield = "sold"\n')
    done = subprocess.run([SCRIPT, *arguments], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "entry 1 has no model, field and reason" in done.stderr


def test_the_same_code_gives_the_same_rows_from_a_revision_a_wheel_or_a_folder(repository: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "parlour-1-py3-none-any.whl", "w") as wheel:
        wheel.write(repository / "parlour" / "scoops.py", "parlour/scoops.py")
    for base in (tmp_path / "parlour-1-py3-none-any.whl", repository):
        code, told = eventlab(repository, "replay-diff", "--base", str(base), "--store", "../log", "--models", "parlour.scoops")
        assert (code, [one["same"] for one in told["models"]]) == (0, [True, True])
    done = subprocess.run(
        [SCRIPT, "replay-diff", "--base", "v9", "--store", "../log", "--models", "parlour.scoops"],
        cwd=repository, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "'v9' is no wheel, no folder, and no git revision" in done.stderr


# -- goldens


def test_a_golden_tells_the_code_the_engine_and_the_events_apart(repository: Path, tmp_path: Path) -> None:
    arguments = ("goldens", "golden", "--store", "../log", "--models", "parlour.scoops:Van")
    module, kept = repository / "parlour" / "scoops.py", repository / "golden" / "van.json"
    module.write_text(OLD)
    assert verdicts(repository, *arguments) == (1, ["new"])
    assert verdicts(repository, *arguments, "--accept")[0] == 0
    assert verdicts(repository, *arguments) == (0, ["same"])
    # Comments and layout are no change; another field is, even where the values agree: the table is another one.
    module.write_text(OLD.replace("self.most, event.scoops", "self.most,  # the most\n            event.scoops"))
    assert verdicts(repository, *arguments) == (0, ["same"])
    module.write_text(NEW.replace("\n    days: int = 0", ""))
    code, told = eventlab(repository, *arguments)
    (held,) = told["models"]
    assert (code, held["verdict"]) == (1, "the code changed")
    assert [row["field"] for row in held["rows"]] == ["sold", "sold"]
    assert "sold in 2 rows" in held["about"]
    module.write_text(OLD)
    golden = json.loads(kept.read_text())
    kept.write_text(json.dumps(golden | {"table": "3-0", "engines": golden["engines"] | {"duckdb": "0.1"}}))
    code, told = eventlab(repository, *arguments)
    assert (code, told["models"][0]["verdict"]) == (1, "the engine changed")
    assert "duckdb 0.1 → " in told["models"][0]["about"]
    kept.write_text(json.dumps(golden | {"table": "3-0"}))
    assert verdicts(repository, *arguments) == (1, ["same code, different result"])
    kept.write_text(json.dumps(golden | {"events": "18-0"}))
    assert verdicts(repository, *arguments) == (1, ["other events"])
    kept.write_text("{")
    done = subprocess.run([SCRIPT, *arguments], cwd=repository, capture_output=True, text=True, check=False)
    assert (done.returncode, "is no golden" in done.stderr) == (3, True)


def verdicts(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    code, told = eventlab(folder, *arguments)
    return code, [one["verdict"] for one in told["models"]]


@el.event
class ConeSold:
    """Somebody bought a cone."""

    price: el.Money


@el.aggregate
class Kiosk:
    """A kiosk."""

    earned: el.Money = el.money(0)

    def evolve(self, event: ConeSold) -> Kiosk:
        return Kiosk(self.earned + event.price)


def test_a_golden_holds_at_its_position_while_the_log_grows_and_is_compacted(tmp_path: Path) -> None:
    with el.open(tmp_path / "log", maintain=False) as lab:
        for i in range(20):
            lab.append(f"kiosk-{i % 3}", [ConeSold(el.money(i))])
        assert lab.keep_goldens(tmp_path / "golden", Kiosk)[0].verdict == "new"
        lab.append("kiosk-0", [ConeSold(el.money(99))])
        lab.seal()
        lab.compact(all=True)
        (held,) = lab.goldens(tmp_path / "golden", Kiosk)
        assert held.ok
        assert held.found.position == 20
        (before,) = lab.keep_goldens(tmp_path / "golden", Kiosk)
        assert before.ok
        assert lab.goldens(tmp_path / "golden", Kiosk)[0].found.position == 21
    with el.scratch() as other:
        other.append("kiosk-0", [ConeSold(el.money(1))])
        with pytest.raises(el.EventlabError, match="kept at position 21, and the log ends at 1"):
            other.goldens(tmp_path / "golden", Kiosk)
