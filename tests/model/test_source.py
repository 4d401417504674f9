"""A model's fingerprint changes with what its code does, and with nothing else: not with layout, seeds or processes."""

from __future__ import annotations

import importlib
import io
import linecache
import os
import random
import subprocess
import sys
import textwrap
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.model.models import model_of
from eventlab.model.source import capture, reached

ROOT = Path(__file__).resolve().parents[2]
Notebooks = Callable[..., Any]

#: A model that reaches code in every way there is.
SHOP = '''
"""A shop."""

import collections
import enum
import functools
import math
import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, NamedTuple

import eventlab as el

LIMIT = 15
SMALL = {"a", "b", "c", "d", "e", "f"}
RATES = {"N": Decimal("0.10"), "S": Decimal("0.20")}
rules = types.ModuleType("rules")
rules.SURCHARGE = 7


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"

    def bright(self) -> bool:
        return self is Colour.RED


@dataclass(frozen=True)
class Price:
    cents: int

    def plus(self, cents: int) -> "Price":
        return Price(self.cents + cents)


class Policy:
    bonus = 3

    def extra(self, n: int) -> int:
        return n + self.bonus


@dataclass(frozen=True)
class Discount:
    percent: int

    def of(self, n: int) -> int:
        return n * self.percent // 100


POLICY = Policy()
DISCOUNT = Discount(10)
discounted = DISCOUNT.of


@el.event
class Sold:
    """Something was sold."""

    n: int
    colour: Colour
    region: str = "N"

    def weight(self) -> int:
        return self.n * 11


@el.event
class Sent:
    """It left the house."""

    by: str
    n: int


def deeper(n: int) -> int:
    """How much more."""
    # A remark.
    return n + 1


def helper(n: int, step: int = LIMIT) -> int:
    return deeper(n) + step


@functools.cache
def cached(n: int) -> int:
    return n * 13


def twice(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        return function(*arguments) * 17

    return wrapper


@twice
def wrapped(n: int) -> int:
    return n - 19


def on_small(state: Any, n: int) -> int:
    return n + 23


def seen_by(state: Any, n: int) -> int:
    return state.counted(n)


HANDLERS = {"small": on_small, "large": lambda state, n: n + 29}
WEIGHED = dict(
    heavy=lambda n: n
    + 31,
)
added = functools.partial(pow, 2, mod=37)
WEIGHTS: dict[str, Any] = {}


def weighing(weight: Any) -> Any:
    def register(function: Any) -> Any:
        WEIGHTS[function.__name__] = weight
        return function

    return register


@weighing(lambda n: n + 97)
def stone() -> None: ...


@functools.singledispatch
def told(value: object) -> int:
    return 41


@told.register
def _(value: str) -> int:
    return 43


class Base:
    def evolve(self, event: Any) -> Any:
        return replace(self, first=event.n + 47)

    def shared(self, n: int) -> int:
        return n + 53


@el.aggregate
class Sale(Base):
    """A sale."""

    first: int = 0
    price: Price = Price(0)
    tags: frozenset[str] = frozenset({"x", "y", "z"})

    FACTOR = 59

    def decide(self, command: object) -> list[Sold]:
        return [Sold(61, Colour.RED)]

    @property
    def heavy(self) -> bool:
        return self.first > 67

    @staticmethod
    def rounded(n: int) -> int:
        return n // 71

    def counted(self, n: int) -> int:
        return n + 73

    def unused(self) -> int:
        return 79

    def evolve(self, event: Sold | Sent) -> "Sale":
        """The next state."""
        done = super().evolve(event)
        match event:
            case Sold(n=n, colour=colour) if n > LIMIT or self.heavy:
                m = helper(n) + cached(n) + wrapped(n) + HANDLERS["small"](self, n) + HANDLERS["large"](self, n)
                m = m + rules.SURCHARGE + math.floor(RATES["N"]) + POLICY.extra(n) + discounted(n) + added(n) + told(n)
                m += WEIGHED["heavy"](n) + WEIGHTS["stone"](n) + self.rounded(m) + self.shared(m) + self.FACTOR + seen_by(self, m)
                return replace(done, first=m, price=self.price.plus(event.weight()))
            case Sent(by, n) if by in SMALL:
                return replace(self, first=n + 83)
        return self


def unrelated(n: int) -> int:
    return n + 89
'''


def print_of(notebook: Notebooks, text: str) -> str:
    cells = notebook().run(text)
    return model_of(cells.Sale).fingerprint


@pytest.fixture
def as_it_is(notebook: Notebooks) -> str:
    return print_of(notebook, SHOP)


# -- what does not count -----------------------------------------------------------------------------------------------

SAME = {
    "a comment": ("    # A remark.\n", "    # Another one.\n    # And more.\n"),
    "no comment": ("    # A remark.\n", ""),
    "a docstring": ('    """How much more."""\n', '    """How much more,\n    said at length.\n    """\n'),
    "no docstring": ('        """The next state."""\n', ""),
    "a description of the model": ('    """A sale."""\n', '    """A sale, and its price."""\n'),
    "a description of an event": ('    """Something was sold."""\n', '    """Something was sold to someone."""\n'),
    "layout": ("return deeper(n) + step", "return (\n        deeper(\n            n,\n        )\n        + step\n    )"),
    "quotes": ('HANDLERS["small"](self', "HANDLERS['small'](self"),
    "empty lines": ("        done = super()", "\n\n        done = super()"),
    "spelling of a number": ("n + 83", "n + 0x53"),
    "annotations": ("def deeper(n: int) -> int:", "def deeper(n: Any) -> Any:"),
    "the order of a set": ('{"a", "b", "c", "d", "e", "f"}', '{"f", "e", "d", "c", "b", "a"}'),
    "the order of a dict": ('{"N": Decimal("0.10"), "S": Decimal("0.20")}', '{"S": Decimal("0.20"), "N": Decimal("0.10")}'),
    "the order of definitions": ("def deeper", "def first_of_all() -> None: ...\n\n\ndef deeper"),
    "decide": ("Sold(61, Colour.RED)", "Sold(62, Colour.RED)"),
    "a method that is not used": ("return 79", "return 80"),
    "a function that is not used": ("return n + 89", "return n + 90"),
    "an import that is not used": ("import collections\n", ""),
}


@pytest.mark.parametrize(("old", "new"), SAME.values(), ids=SAME)
def test_what_changes_no_state_changes_no_fingerprint(notebook: Notebooks, as_it_is: str, old: str, new: str):
    assert SHOP.count(old) == 1
    assert print_of(notebook, SHOP.replace(old, new)) == as_it_is


@given(st.integers(0, 2**32))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_remarks_and_empty_lines_anywhere_change_no_fingerprint(notebook: Notebooks, as_it_is: str, seed: int):
    chance = random.Random(seed)
    texts = [token for token in tokenize.generate_tokens(io.StringIO(SHOP).readline) if token.type == tokenize.STRING]
    inside = {line for token in texts for line in range(token.start[0], token.end[0])}
    lines = []
    for number, line in enumerate(SHOP.splitlines(), 1):
        lines.append(line)
        if number not in inside:
            lines[-1] += chance.choice(["", "", "  # why", "\n", f"\n{' ' * chance.randrange(20)}# what", "   "])
    assert print_of(notebook, "\n".join(lines)) == as_it_is


# -- what counts -------------------------------------------------------------------------------------------------------

CHANGED = {
    "evolve": ("n + 83", "n + 84"),
    "an operator": ("self.first > 67", "self.first >= 67"),
    "one and true": ("n + 83", "n + True"),
    "an integer and a float": ("n + 83", "n + 83.0"),
    "a constant": ("LIMIT = 15", "LIMIT = 16"),
    "a member of a set": ('"e", "f"}', '"e", "g"}'),
    "a value in a dict": ('Decimal("0.10")', 'Decimal("0.11")'),
    "an attribute of a module": ("rules.SURCHARGE = 7", "rules.SURCHARGE = 8"),
    "a default of a helper": ("step: int = LIMIT", "step: int = 14"),
    "a helper": ("deeper(n) + step", "deeper(n) - step"),
    "a helper of a helper": ("return n + 1\n", "return n + 2\n"),
    "a cached helper": ("n * 13", "n * 14"),
    "a decorated helper": ("n - 19", "n - 20"),
    "a decorator": ("* 17", "* 18"),
    "a function in a dict": ("n + 23", "n + 24"),
    "a lambda in a dict": ("n + 29", "n + 30"),
    "the second line of a lambda": ("+ 31", "+ 32"),
    "a lambda in a decorator": ("n + 97", "n + 98"),
    "an argument of a partial": ("mod=37", "mod=38"),
    "the function of a partial": ("partial(pow, 2", "partial(divmod, 2"),
    "a dispatched function": ("return 41", "return 42"),
    "a registered function": ("return 43", "return 44"),
    "a base's evolve": ("event.n + 47", "event.n + 48"),
    "a base's method": ("n + 53", "n + 54"),
    "a class attribute": ("FACTOR = 59", "FACTOR = 60"),
    "a property": ("> 67", "> 68"),
    "a static method": ("n // 71", "n // 72"),
    "a method that a helper calls": ("n + 73", "n + 74"),
    "a method of an object": ("n + self.bonus", "n - self.bonus"),
    "an attribute of an object's class": ("bonus = 3", "bonus = 4"),
    "a field of an object whose method is bound": ("Discount(10)", "Discount(11)"),
    "a method that is bound": ("// 100", "// 101"),
    "a method of a value in the state": ("Price(self.cents + cents)", "Price(self.cents - cents)"),
    "a method of an event": ("self.n * 11", "self.n * 12"),
    "a method of an enum in an event": ("self is Colour.RED", "self is Colour.BLUE"),
    "a value of an enum": ('BLUE = "blue"', 'BLUE = "navy"'),
    "the order of an event's fields": ("    by: str\n    n: int\n", "    n: int\n    by: str\n"),
    "a field of an event": ('region: str = "N"', 'region: str = "N"\n    more: int = 0'),
    "the default of a field of an event": ('region: str = "N"', 'region: str = "S"'),
    "the version of an event": ("@el.event\nclass Sent", "@el.event(version=2)\nclass Sent"),
    "the stored name of an event": ("@el.event\nclass Sent", "@el.event(name='Shipped')\nclass Sent"),
    "the default of a field of the state": ("first: int = 0", "first: int = 1"),
    "the type of a field of the state": ("first: int = 0", "first: float = 0"),
    "the order of the state's fields": (
        "    first: int = 0\n    price: Price = Price(0)\n", "    price: Price = Price(0)\n    first: int = 0\n",
    ),
    "another event": ("event: Sold | Sent", "event: Sold"),
    "the category": ("@el.aggregate\n", "@el.aggregate(name='sales')\n"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new"), CHANGED.values(), ids=CHANGED)
def test_what_may_change_a_state_changes_the_fingerprint(notebook: Notebooks, as_it_is: str, old: str, new: str):
    assert SHOP.count(old) == 1
    assert print_of(notebook, SHOP.replace(old, new)) != as_it_is


def test_a_key_counts_as_evolve_does(notebook: Notebooks):
    text = """
        import eventlab as el

        LENGTH = 2

        @el.event
        class Posted:
            by: str

        @el.projection
        class Sale:
            n: int = 0

            @staticmethod
            def key(event: Posted) -> str:
                return event.by[:LENGTH]

            def evolve(self, event: Posted) -> "Sale":
                return Sale(self.n + 1)
    """
    base = print_of(notebook, text)
    assert print_of(notebook, text) == base
    for old, new in (("LENGTH = 2", "LENGTH = 3"), ("[:LENGTH]", "[LENGTH:]"), ("-> str:\n", "-> str | None:  # or none\n")):
        assert (print_of(notebook, text.replace(old, new)) == base) == ("# or none" in new)


def test_two_helpers_that_change_places_change_the_fingerprint(notebook: Notebooks):
    text = """
        import eventlab as el

        def early(n):
            return late(n) + 1

        def late(n):
            return n + 2

        first, second = early, late

        @el.aggregate
        class Sale:
            n: int = 0

            def evolve(self, event: object) -> "Sale":
                return Sale(early(self.n) + first(self.n) - second(self.n))
    """
    assert print_of(notebook, text) != print_of(notebook, text.replace("= early, late", "= late, early"))


def test_a_list_that_holds_itself_does_not_trouble_the_fingerprint(notebook: Notebooks):
    text = """
        import eventlab as el

        LOOP = [1, 2]
        LOOP.append(LOOP)
        KNOT = {"loop": LOOP}
        KNOT["knot"] = KNOT

        @el.aggregate
        class Sale:
            n: int = 0

            def evolve(self, event: object) -> "Sale":
                return Sale(LOOP[0] + KNOT["loop"][1])
    """
    assert print_of(notebook, text) == print_of(notebook, text)
    assert print_of(notebook, text) != print_of(notebook, text.replace("[1, 2]", "[1, 3]"))


def test_what_libraries_hold_counts_by_name(notebook: Notebooks):
    text = """
        import math, textwrap
        import eventlab as el

        @el.aggregate
        class Sale:
            n: int = 0

            def evolve(self, event: object) -> "Sale":
                return Sale(math.floor(1.5) + len(textwrap.dedent("x")) + int(el.money(1)))
    """
    base = print_of(notebook, text)
    assert print_of(notebook, text.replace("math.floor", "math.ceil")) != base
    assert print_of(notebook, text.replace("textwrap.dedent", "textwrap.fill")) != base
    names = {name for name, _ in reached(notebook().run(text).Sale.evolve)}
    assert names >= {"math.floor", "textwrap.dedent", "el.money", "Sale"}


# -- everywhere the same -----------------------------------------------------------------------------------------------

PRINT = "from eventlab.model.models import model_of; print(model_of(Sale).fingerprint)"


def in_a_process(folder: Path, *command: str, seed: str, flags: tuple[str, ...] = ()) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]), "PYTHONHASHSEED": seed, "TZ": f"X{seed}"}
    done = subprocess.run(
        [sys.executable, "-B", *flags, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_fingerprint_is_the_same_in_every_process_as_a_script_a_module_or_a_notebook(tmp_path: Path, as_it_is: str):
    (tmp_path / "shop_module.py").write_text(SHOP)
    (tmp_path / "script.py").write_text(f"{SHOP}\n{PRINT}\n")
    package = tmp_path / "company" / "sales"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(SHOP.replace("def deeper", "from company.sales.deep import deeper\n\n\ndef unused"))
    (package / "deep.py").write_text("def deeper(n):\n    return n + 1\n")
    assert in_a_process(tmp_path, "script.py", seed="1") == as_it_is
    assert in_a_process(tmp_path, "-c", f"from shop_module import Sale; {PRINT}", seed="2") == as_it_is
    # Optimised, from a package in which the helper stands in a file of its own.
    assert in_a_process(tmp_path, "-c", f"from company.sales import Sale; {PRINT}", seed="3", flags=("-OO",)) == as_it_is


def test_the_models_own_package_is_no_library_wherever_it_is_installed(tmp_path: Path):
    installed = tmp_path / "site-packages"
    for helper in ("return n + 1", "return n + 2"):
        package = installed / helper.split()[-1] / "company"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "rules.py").write_text(f"def deeper(n):\n    {helper}\n")
        (package / "model.py").write_text(
            "import eventlab as el\nfrom company.rules import deeper\n\n@el.aggregate\nclass Sale:\n    n: int = 0\n\n"
            "    def evolve(self, event: object) -> 'Sale':\n        return Sale(deeper(self.n))\n"
        )
    prints = {in_a_process(installed / n, "-c", f"from company.model import Sale; {PRINT}", seed="1") for n in "12"}
    assert len(prints) == 2


# -- the text of today -------------------------------------------------------------------------------------------------


def test_the_code_that_runs_counts_though_its_file_was_edited_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shop = "\n\n" + SHOP  # no other test's code stands in these lines
    file = tmp_path / "edited_shop.py"
    file.write_text(shop)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("edited_shop")
    try:
        file.write_text(shop.replace("return n + 1\n", "return n + 2\n").replace("import enum", "import enum\n\n\n"))
        os.utime(file, (1, 1))
        linecache.checkcache()
        before = model_of(module.Sale).fingerprint
        importlib.invalidate_caches()
        importlib.reload(module)
        after = model_of(module.Sale).fingerprint
    finally:
        sys.modules.pop("edited_shop")
    assert before != after
    assert before == print_of_text(SHOP, "edited_shop_as_it_was", tmp_path)
    assert after == print_of_text(file.read_text(), "edited_shop_as_it_is", tmp_path)


def print_of_text(text: str, name: str, folder: Path) -> str:
    (folder / f"{name}.py").write_text(text)
    module = importlib.import_module(name)
    del sys.modules[name]
    return model_of(module.Sale).fingerprint


def test_a_function_without_text_is_told_by_its_bytecode():
    def define(text: str) -> str:
        names: dict[str, Any] = {"el": el, "__name__": "nowhere"}
        exec(compile(textwrap.dedent(text), "<nowhere>", "exec", dont_inherit=True), names)
        assert capture(names["Sale"].evolve).text is None
        return model_of(names["Sale"]).fingerprint

    text = """
        @el.aggregate
        class Sale:
            n: int = 0

            def evolve(self, event: object) -> 'Sale':
                return Sale(self.n + 1) if self.n in {"a", "b", "c"} else self
    """
    assert define(text) == define(text.replace("return", "# why\n                return"))
    assert define(text) != define(text.replace("+ 1", "+ 2"))
    assert define(text) != define(text.replace('"c"}', '"d"}'))


def test_a_captured_text_says_where_it_stands(notebook: Notebooks):
    cells = notebook().run(SHOP)
    source = capture(cells.Sale.evolve)
    assert source.text is not None
    assert source.text.startswith("def evolve(self, event: Sold | Sent)")
    assert source.file.startswith("<cell ")
    assert SHOP.splitlines()[source.line - 1].strip().startswith("def evolve(self, event: Sold | Sent)")
    # The text of a decorated function is its own, and not that of what it wraps.
    assert "function(*arguments) * 17" in (capture(cells.wrapped).text or "")
