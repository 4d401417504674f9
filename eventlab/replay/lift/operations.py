"""The table of operations: what may stand in a lifted fold, as data that both emitters and the tests read.

A row says what the operation means in Python, how it is written over lowered values in the loop and in SQL, when it must not
be trusted (the guards: there Python raises, or the lowered form is not exact), and between which bounds its result lies,
so that a query needs no guard where the data cannot trip it. In a template `{0}` is the first argument and `{v}` the
parameter. SQL is written so that it never raises: where a guard holds it gives NULL or anything else.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, ROUND_UP, Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from eventlab.model.types import DAY_ZERO, EPOCH, MICROSECOND, MOMENT_MAX, MOMENT_MIN

Bounds = tuple[float, float] | tuple[int, int] | None
HOUR_US: Final = 3_600_000_000
DAY_US: Final = 24 * HOUR_US
FLOAT_SAFE: Final = 2**53
#: What a decimal computation may reach: the digits of Python's default context.
DEC_LIMIT: Final = 10**28
DUR_LIMIT: Final = 86_399_999_999_999_999_999
DATE_MIN, DATE_MAX = (dt.date.min - DAY_ZERO).days, (dt.date.max - DAY_ZERO).days
#: What `str.strip` takes off.
_SPACE_CODES: Final = (*range(9, 14), *range(28, 33), 133, 160, 5760, *range(8192, 8203), 8232, 8233, 8239, 8287, 12288)
SPACES: Final = "".join(map(chr, _SPACE_CODES))
DATE_LIMITS: Final = (DATE_MIN, DATE_MAX)
MOMENT_LIMITS: Final = (MOMENT_MIN, MOMENT_MAX)


@dataclass(frozen=True)
class When:
    """A guard: the condition over lowered arguments, in both languages, and why. Python may be "" where it raises itself."""

    python: str
    sql: str
    why: str


@dataclass(frozen=True)
class Operation:
    """One row. `means` is what Python does; `takes` and `gives` name the types it is tested with."""

    name: str
    means: Callable[..., Any]
    takes: tuple[str, ...]
    gives: str
    python: str
    sql: str
    guards: tuple[When, ...] = ()
    #: The result must lie between these; checked on the result in the loop, in SQL where the bounds do not prove it.
    within: tuple[int, int] | None = None
    bounds: Callable[..., Bounds] | None = None
    #: Parameters it is tested with.
    values: tuple[Any, ...] = (None,)
    verdict: str = "exact"

    @property
    def guarded(self) -> bool:
        return bool(self.guards) or self.within is not None


# -- helpers that the generated loop calls --------------------------------------------------------------------------------


def quantized(x: int, step: int, mode: str) -> int:
    """A scaled integer without its last digits (`step` is a power of ten), rounded as `decimal` does."""
    q, r = divmod(abs(x), step)
    half = 2 * r - step
    up = {
        ROUND_HALF_EVEN: half > 0 or (half == 0 and q % 2 == 1),
        ROUND_HALF_UP: half >= 0,
        ROUND_HALF_DOWN: half > 0,
        ROUND_UP: r > 0,
        ROUND_DOWN: False,
        ROUND_FLOOR: r > 0 and x < 0,
        ROUND_CEILING: r > 0 and x > 0,
    }[mode]
    return (q + up) * (1 if x >= 0 else -1)


def quantized_sql(mode: str) -> str:
    """The same in SQL, over `{0}` and the step `{v[0]}`."""
    q, r = "(abs({0}) // {v[0]})", "(abs({0}) % {v[0]})"
    up = {
        ROUND_HALF_EVEN: f"(2 * {r} > {{v[0]}} OR (2 * {r} = {{v[0]}} AND {q} % 2 = 1))",
        ROUND_HALF_UP: f"2 * {r} >= {{v[0]}}",
        ROUND_HALF_DOWN: f"2 * {r} > {{v[0]}}",
        ROUND_UP: f"{r} > 0",
        ROUND_DOWN: "false",
        ROUND_FLOOR: f"({r} > 0 AND {{0}} < 0)",
        ROUND_CEILING: f"({r} > 0 AND {{0}} > 0)",
    }[mode]
    return f"(({q} + CASE WHEN {up} THEN 1 ELSE 0 END) * CASE WHEN {{0}} >= 0 THEN 1 ELSE -1 END)"


@functools.lru_cache(maxsize=65_536)
def day(days: int) -> dt.date:
    """The date of a day's number."""
    return DAY_ZERO + dt.timedelta(days)


def wall(us: int, zone: str) -> int:
    """The wall clock of a zone at a moment, in microseconds."""
    # Since 1970 clocks are changed on the minute.
    return us + (_offset(us // 60_000_000 * 60_000_000, zone) if us >= 0 else _offset.__wrapped__(us, zone))


@functools.lru_cache(maxsize=65_536)
def _offset(us: int, zone: str) -> int:
    local = (EPOCH + dt.timedelta(0, 0, us)).astimezone(ZoneInfo(zone))
    return (local.replace(tzinfo=dt.UTC) - EPOCH) // MICROSECOND - us


@functools.lru_cache(maxsize=65_536)
def written(days: int, how: str) -> str:
    """A day as `strftime` writes it."""
    return day(days).strftime(how)


def trip() -> Any:
    """Leave an event to the row fold."""
    raise Tripped


class Tripped(Exception):
    """A guard holds."""


#: Names that generated code may use.
HELPERS: Final[Mapping[str, Any]] = {
    "quantized": quantized, "day": day, "wall": wall, "written": written, "trip": trip, "Tripped": Tripped,
    "DAY_US": DAY_US, "HOUR_US": HOUR_US, "SPACES": SPACES,
}  # fmt: skip


# -- bounds ----------------------------------------------------------------------------------------------------------------


def _corners(combine: Callable[[int, int], int]) -> Callable[..., Bounds]:
    def of(a: Any, b: Any) -> Bounds:
        if a is None or b is None:
            return None
        found = [combine(x, y) for x in a for y in b]
        return min(found), max(found)

    return of


def _magnitude(a: Any) -> int:
    return int(max(abs(a[0]), abs(a[1])))


def _neg(a: Any) -> Bounds:
    return None if a is None else (-a[1], -a[0])


def _abs(a: Any) -> Bounds:
    return None if a is None else (0, _magnitude(a))


def _like_first(a: Any, *rest: Any) -> Bounds:
    return None if a is None else (-_magnitude(a) - 1, _magnitude(a) + 1)


def _like_second(a: Any, b: Any) -> Bounds:
    return None if b is None else (-_magnitude(b), _magnitude(b))


def _days(a: Any) -> Bounds:
    return DATE_LIMITS if a is None else (a[0] // DAY_US, a[1] // DAY_US)


def _zoned(a: Any) -> Bounds:
    return None if a is None else (a[0] - DAY_US, a[1] + DAY_US)


def _floored(a: Any) -> Bounds:
    return None if a is None else (a[0] - DAY_US, a[1])


def _constant(low: int, high: int) -> Callable[..., Bounds]:
    return lambda *_: (low, high)


_add, _sub, _mul = _corners(lambda x, y: x + y), _corners(lambda x, y: x - y), _corners(lambda x, y: x * y)
_most = _corners(max)
_least = _corners(min)

# -- the rows --------------------------------------------------------------------------------------------------------------

_FLOORED = "CASE WHEN {1} <> 0 THEN {0} // {1} - CASE WHEN {0} % {1} <> 0 AND ({0} < 0) <> ({1} < 0) THEN 1 ELSE 0 END END"
_MODULO = "CASE WHEN {1} <> 0 THEN (({0} % {1}) + {1}) % {1} END"
_ZERO = When("", "{1} = 0", "it divides by zero")
_BIG = When("not -9007199254740992 <= {0} <= 9007199254740992", "NOT {0} BETWEEN -9007199254740992 AND 9007199254740992",
            "an integer beyond 2**53 has no exact float")  # fmt: skip
_BIG_2 = When("not -9007199254740992 <= {1} <= 9007199254740992", "NOT {1} BETWEEN -9007199254740992 AND 9007199254740992",
              "an integer beyond 2**53 has no exact float")  # fmt: skip
_ASCII = When("not {0}.isascii()", "strlen({0}) <> length({0})", "text outside ASCII")
_DEC = (-DEC_LIMIT + 1, DEC_LIMIT - 1)
_DUR = (-DUR_LIMIT, DUR_LIMIT)
_DATE = "(DATE '1970-01-01' + ({0})::INTEGER)"


def _spaces_sql() -> str:
    return " || ".join(f"chr({ord(c)})" for c in SPACES)


def _floor_by(us: int, sql_of: str = "{0}") -> str:
    """Floor division by a positive constant."""
    return f"(({sql_of}) // {us} - CASE WHEN ({sql_of}) < 0 AND ({sql_of}) % {us} <> 0 THEN 1 ELSE 0 END)"


def _rest_by(us: int) -> str:
    return f"((({{0}}) % {us} + {us}) % {us})"


def _padded_sql() -> str:
    """An integer with zeros in front, up to `{v}` characters with its sign."""
    digits = "(abs(({0})::HUGEINT))::VARCHAR"
    sign = "CASE WHEN {0} < 0 THEN 1 ELSE 0 END"
    return (
        f"(CASE WHEN {{0}} < 0 THEN '-' ELSE '' END || "
        f"lpad({digits}, greatest({{v}} - ({sign}), length({digits}))::INTEGER, '0'))"
    )


def _rows() -> Sequence[Operation]:
    rows: list[Operation] = []

    def row(name: str, takes: str, gives: str, means: Callable[..., Any], python: str, sql: str, **more: Any) -> None:
        rows.append(Operation(name, means, tuple(takes.split()), gives, python, sql, **more))

    row("not", "bool", "bool", lambda a: not a, "(not {0})", "(NOT {0})")
    row("and", "bool bool", "bool", lambda a, b: a and b, "({0} and {1})", "({0} AND {1})")
    row("or", "bool bool", "bool", lambda a, b: a or b, "({0} or {1})", "({0} OR {1})")
    row("isnull", "int?", "bool", lambda a: a is None, "({0} is None)", "({0} IS NULL)")
    row("sure", "int", "int", lambda a: a, "{0}", "{0}", bounds=lambda a: a)
    row("some", "int?", "int", lambda a: a + 0, "{0}", "{0}", bounds=lambda a: a,
        guards=(When("{0} is None", "{0} IS NULL", "it may be None here"),))  # fmt: skip
    row("eq", "int? int?", "bool", lambda a, b: a == b, "({0} == {1})", "({0} IS NOT DISTINCT FROM {1})")
    row("same", "int int", "bool", lambda a, b: a == b, "({0} == {1})", "({0} = {1})")
    row("feq", "float? float?", "bool", lambda a, b: a == b, "({0} == {1})",
        "(({0} IS NULL AND {1} IS NULL) OR coalesce({0} = {1} AND NOT isnan({0}), false))")  # fmt: skip
    for name, sign in (("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")):
        means = eval(f"lambda a, b: a {sign} b")
        row(name, "int int", "bool", means, f"({{0}} {sign} {{1}})", f"({{0}} {sign} {{1}})")
        row(f"f{name}", "float float", "bool", means, f"({{0}} {sign} {{1}})",
            f"({{0}} {sign} {{1}} AND NOT isnan({{0}}) AND NOT isnan({{1}}))")  # fmt: skip
        row(f"str.{name}", "str str", "bool", means, f"({{0}} {sign} {{1}})", f"({{0}} {sign} {{1}})")
    row("max", "int int", "int", max, "max({0}, {1})", "greatest({0}, {1})", bounds=_most)
    row("min", "int int", "int", min, "min({0}, {1})", "least({0}, {1})", bounds=_least)
    row("str.max", "str str", "str", max, "max({0}, {1})", "greatest({0}, {1})")
    row("str.min", "str str", "str", min, "min({0}, {1})", "least({0}, {1})")
    row("fmax", "float float", "float", max, "max({0}, {1})",
        "CASE WHEN {1} > {0} AND NOT isnan({0}) AND NOT isnan({1}) THEN {1} ELSE {0} END")  # fmt: skip
    row("fmin", "float float", "float", min, "min({0}, {1})",
        "CASE WHEN {1} < {0} AND NOT isnan({0}) AND NOT isnan({1}) THEN {1} ELSE {0} END")  # fmt: skip

    row("int.add", "int int", "int", lambda a, b: a + b, "({0} + {1})", "({0} + {1})", bounds=_add)
    row("int.sub", "int int", "int", lambda a, b: a - b, "({0} - {1})", "({0} - {1})", bounds=_sub)
    row("int.mul", "int int", "int", lambda a, b: a * b, "({0} * {1})", "({0} * {1})", bounds=_mul)
    row("int.neg", "int", "int", lambda a: -a, "(-{0})", "(-{0})", bounds=_neg)
    row("int.abs", "int", "int", abs, "abs({0})", "abs({0})", bounds=_abs)
    row("int.floordiv", "int int", "int", lambda a, b: a // b, "({0} // {1})", _FLOORED, guards=(_ZERO,), bounds=_like_first)
    row("int.mod", "int int", "int", lambda a, b: a % b, "({0} % {1})", _MODULO, guards=(_ZERO,), bounds=_like_second)
    row("int.truediv", "int int", "float", lambda a, b: a / b, "({0} / {1})",
        "CASE WHEN {1} <> 0 THEN ({0})::DOUBLE / ({1})::DOUBLE END", guards=(_ZERO, _BIG, _BIG_2))  # fmt: skip
    row("int.float", "int", "float", float, "float({0})", "({0})::DOUBLE", guards=(_BIG,))
    row("bool.int", "bool", "int", int, "(1 if {0} else 0)", "CASE WHEN {0} THEN 1 ELSE 0 END", bounds=_constant(0, 1))

    row("float.add", "float float", "float", lambda a, b: a + b, "({0} + {1})", "({0} + {1})")
    row("float.sub", "float float", "float", lambda a, b: a - b, "({0} - {1})", "({0} - {1})")
    row("float.mul", "float float", "float", lambda a, b: a * b, "({0} * {1})", "({0} * {1})")
    row("float.neg", "float", "float", lambda a: -a, "(-{0})", "(-{0})")
    row("float.abs", "float", "float", abs, "abs({0})", "abs({0})")
    row("float.div", "float float", "float", lambda a, b: a / b, "({0} / {1})", "CASE WHEN {1} <> 0 THEN {0} / {1} END",
        guards=(_ZERO,))  # fmt: skip
    row("float.truth", "float", "bool", bool, "({0} != 0.0)", "({0} <> 0)")

    for name, combine, sign in (("add", _add, "+"), ("sub", _sub, "-")):
        row(f"dec.{name}", "dec2 dec2", "dec2", eval(f"lambda a, b: a {sign} b"), f"({{0}} {sign} {{1}})",
            f"({{0}} {sign} {{1}})", within=_DEC, bounds=combine, verdict="exact to 28 digits")  # fmt: skip
    row("dec.mul", "dec2 dec2", "dec4", lambda a, b: a * b, "({0} * {1})", "({0} * {1})", within=_DEC, bounds=_mul,
        verdict="exact to 28 digits")  # fmt: skip
    row("dec.neg", "dec2", "dec2", lambda a: -a, "(-{0})", "(-{0})", within=_DEC, bounds=_neg)
    row("dec.abs", "dec2", "dec2", abs, "abs({0})", "abs({0})", within=_DEC, bounds=_abs)
    row("dec.rescale", "dec2", "dec4", lambda a: a, "({0} * {v})", "({0} * {v})", values=(100,),
        bounds=lambda a, v: None if a is None else (a[0] * v, a[1] * v))  # fmt: skip
    row("dec.int", "dec2", "int", int, "quantized({0}, {v}, 'ROUND_DOWN')", "({0} // {v})", values=(100,), bounds=_like_first)
    row("dec.float", "dec2", "float", float, "({0} / {v})", "({0})::DOUBLE / {v}::DOUBLE", values=(100,), guards=(_BIG,))
    for mode in (ROUND_HALF_EVEN, ROUND_HALF_UP, ROUND_HALF_DOWN, ROUND_UP, ROUND_DOWN, ROUND_FLOOR, ROUND_CEILING):
        row(f"dec.quantize.{mode}", "dec4", "dec2", _quantize(mode), f"quantized({{0}}, {{v[0]}}, '{mode}')",
            quantized_sql(mode), values=((100,),), within=_DEC, bounds=_like_first)  # fmt: skip

    row("str.cat", "str str", "str", lambda a, b: a + b, "({0} + {1})", "({0} || {1})")
    row("str.len", "str", "int", len, "len({0})", "length({0})", bounds=_constant(0, 1 << 32))
    row("str.upper", "str", "str", str.upper, "{0}.upper()", "upper({0})", guards=(_ASCII,), verdict="exact in ASCII")
    row("str.lower", "str", "str", str.lower, "{0}.lower()", "lower({0})", guards=(_ASCII,), verdict="exact in ASCII")
    row("str.strip", "str", "str", str.strip, "{0}.strip()", f"trim({{0}}, {_spaces_sql()})")
    row("str.lstrip", "str", "str", str.lstrip, "{0}.lstrip()", f"ltrim({{0}}, {_spaces_sql()})")
    row("str.rstrip", "str", "str", str.rstrip, "{0}.rstrip()", f"rtrim({{0}}, {_spaces_sql()})")
    row("str.startswith", "str str", "bool", str.startswith, "{0}.startswith({1})", "starts_with({0}, {1})")
    row("str.endswith", "str str", "bool", str.endswith, "{0}.endswith({1})", "suffix({0}, {1})")
    row("str.in", "str str", "bool", lambda a, b: a in b, "({0} in {1})", "contains({1}, {0})")
    row("str.head", "str", "str", lambda a: a[:3], "{0}[:{v}]", "left({0}, {v})", values=(3,))
    row("str.tail", "str", "str", lambda a: a[3:], "{0}[{v}:]", "substr({0}, {v} + 1)", values=(3,))
    row("str.split", "str", "str", lambda a: a.split("-")[0], "{0}.split({v!r})[0]", "split_part({0}, {v!s}, 1)", values=("-",))
    row("int.str", "int", "str", str, "str({0})", "({0})::VARCHAR")
    row("int.padded", "int", "str", lambda a: f"{a:03d}", "'%0*d' % ({v}, {0})", _padded_sql(), values=(3,))
    row("bool.str", "bool", "str", str, "str({0})", "CASE WHEN {0} THEN 'True' ELSE 'False' END")
    row("date.str", "date", "str", str, "day({0}).isoformat()", f"strftime({_DATE}, '%Y-%m-%d')",
        guards=(When("{0} < -354285", "{0} < -354285", "a year before 1000 is written otherwise"),))  # fmt: skip

    row("ts.diff", "ts ts", "dur", lambda a, b: a - b, "({0} - {1})", "({0} - {1})", bounds=_sub)
    row("ts.add", "ts dur", "ts", lambda a, b: a + b, "({0} + {1})", "({0} + {1})", within=MOMENT_LIMITS, bounds=_add)
    row("ts.sub", "ts dur", "ts", lambda a, b: a - b, "({0} - {1})", "({0} - {1})", within=MOMENT_LIMITS, bounds=_sub)
    row("ts.date", "ts", "date", dt.datetime.date, "({0} // DAY_US)", _floor_by(DAY_US), bounds=_days)
    for part, unit, of in (("hour", HOUR_US, 24), ("minute", 60_000_000, 60), ("second", 1_000_000, 60)):
        row(f"ts.{part}", "ts", "int", lambda a, part=part: getattr(a, part), f"({{0}} // {unit} % {of})",
            f"({_rest_by(unit * of)} // {unit})", bounds=_constant(0, of))  # fmt: skip
    row("ts.floor", "ts", "ts", lambda a: a.replace(minute=0, second=0, microsecond=0), "({0} - {0} % {v})",
        "({0} - (({0}) % {v} + {v}) % {v})", values=(HOUR_US,), bounds=_floored)  # fmt: skip
    row("ts.wall", "ts", "wall", lambda a: a.astimezone(ZoneInfo("Europe/Berlin")), "wall({0}, {v!r})",
        "epoch_us(make_timestamptz(({0})::BIGINT) AT TIME ZONE {v!s})", values=("Europe/Berlin",), bounds=_zoned,
        guards=(When("not -8299411200000000 <= {0} <= 11676096000000000",
                     "NOT {0} BETWEEN -8299411200000000 AND 11676096000000000", "zones are compared for 1707 to 2339"),),
        verdict="exact where tzdata and ICU agree")  # fmt: skip
    row("date.diff", "date date", "dur", lambda a, b: a - b, "(({0} - {1}) * DAY_US)", f"(({{0}} - {{1}}) * {DAY_US})",
        bounds=_constant(-(DATE_MAX - DATE_MIN) * DAY_US, (DATE_MAX - DATE_MIN) * DAY_US))  # fmt: skip
    row("date.add", "date dur", "date", lambda a, b: a + b, "({0} + {1} // DAY_US)", f"({{0}} + {_floor_by(DAY_US, '{1}')})",
        within=DATE_LIMITS, bounds=lambda a, b: _add(a, _days(b)))  # fmt: skip
    row("date.sub", "date dur", "date", lambda a, b: a - b, "({0} - {1} // DAY_US)", f"({{0}} - {_floor_by(DAY_US, '{1}')})",
        within=DATE_LIMITS, bounds=lambda a, b: _sub(a, _days(b)))  # fmt: skip
    for part in ("year", "month", "day"):
        row(f"date.{part}", "date", "int", lambda a, part=part: getattr(a, part), f"day({{0}}).{part}", f"{part}({_DATE})",
            bounds=_constant(1, 9999))  # fmt: skip
    row("date.weekday", "date", "int", dt.date.weekday, "(({0} + 3) % 7)", "((({0} + 3) % 7 + 7) % 7)", bounds=_constant(0, 6))
    row("date.iso_year", "date", "int", lambda a: a.isocalendar().year, "day({0}).isocalendar()[0]", f"isoyear({_DATE})",
        bounds=_constant(1, 9999))  # fmt: skip
    row("date.iso_week", "date", "int", lambda a: a.isocalendar().week, "day({0}).isocalendar()[1]", f"weekofyear({_DATE})",
        bounds=_constant(1, 53))  # fmt: skip
    row("date.month_start", "date", "date", lambda a: a.replace(day=1), "({0} - day({0}).day + 1)",
        f"({{0}} - day({_DATE}) + 1)", bounds=_constant(*DATE_LIMITS))  # fmt: skip
    row("date.strftime", "date", "str", lambda a: a.strftime("%Y-%m"), "written({0}, {v!r})",
        f"strftime({_DATE}, {{v!s}})", values=("%Y-%m",),
        guards=(When("{0} < -354285", "{0} < -354285", "a year before 1000 is written otherwise"),))  # fmt: skip

    row("dur.add", "dur dur", "dur", lambda a, b: a + b, "({0} + {1})", "({0} + {1})", within=_DUR, bounds=_add)
    row("dur.sub", "dur dur", "dur", lambda a, b: a - b, "({0} - {1})", "({0} - {1})", within=_DUR, bounds=_sub)
    row("dur.mul", "dur int", "dur", lambda a, b: a * b, "({0} * {1})", "({0} * {1})", within=_DUR, bounds=_mul)
    row("dur.neg", "dur", "dur", lambda a: -a, "(-{0})", "(-{0})", within=_DUR, bounds=_neg)
    row("dur.seconds", "dur", "float", dt.timedelta.total_seconds, "({0} / 1000000)", "({0})::DOUBLE / 1000000::DOUBLE",
        guards=(_BIG,))  # fmt: skip
    row("dur.days", "dur", "int", lambda a: a.days, "({0} // DAY_US)", _floor_by(DAY_US), bounds=_like_first)
    row("dur.floordiv", "dur dur", "int", lambda a, b: a // b, "({0} // {1})", _FLOORED, guards=(_ZERO,), bounds=_like_first)
    row("dur.truediv", "dur dur", "float", lambda a, b: a / b, "({0} / {1})",
        "CASE WHEN {1} <> 0 THEN ({0})::DOUBLE / ({1})::DOUBLE END", guards=(_ZERO, _BIG, _BIG_2))  # fmt: skip

    row("list.len", "list", "int", len, "len({0})", "len({0})", bounds=_constant(0, 1 << 40))
    row("list.in", "int list", "bool", lambda a, b: a in b, "({0} in {1})", "list_contains({1}, {0})")
    row("list.cat", "list list", "list", lambda a, b: a + b, "({0} + {1})", "list_concat({0}, {1})")
    row("set.in", "int set", "bool", lambda a, b: a in b, "({0} in {1})", "list_contains({1}, {0})")
    row("set.union", "set set", "set", lambda a, b: a | b, "({0} | {1})", "list_distinct(list_concat({0}, {1}))")
    row(
        "set.diff", "set set", "set", lambda a, b: a - b, "({0} - {1})", "list_filter({0}, lambda _x: NOT list_contains({1}, _x))"
    )
    row("map.in", "str map", "bool", lambda a, b: a in b, "({0} in {1})", "map_contains({1}, {0})")
    row("map.get", "map str small", "int", lambda m, k, d: m.get(k, d), "{0}.get({1}, {2})",
        "CASE WHEN map_contains({0}, {1}) THEN {0}[{1}] ELSE {2} END")  # fmt: skip
    row("map.at", "map str", "int", lambda m, k: m[k], "{0}[{1}]", "{0}[{1}]",
        guards=(When("", "NOT map_contains({0}, {1})", "the key is not in the map"),))  # fmt: skip
    row("map.put", "map str small", "map", lambda m, k, v: {**m, k: v}, "{{**{0}, {1}: {2}}}",
        "map_concat({0}, MAP {{{1}: {2}}})")  # fmt: skip
    row("map.drop", "map str", "map", lambda m, k: {a: b for a, b in m.items() if a != k},
        "{{_a: _b for _k in ({1},) for _a, _b in {0}.items() if _a != _k}}",
        "map_from_entries(list_filter(map_entries({0}), lambda _e: _e.key <> {1}))")  # fmt: skip
    return rows


def _quantize(mode: str) -> Callable[[Decimal], Decimal]:
    return lambda a: a.quantize(Decimal("0.01"), rounding=mode)


OPERATIONS: Final[Mapping[str, Operation]] = {row.name: row for row in _rows()}
#: What the emitters write themselves, for it has no fixed number of arguments, or chooses between them.
STRUCTURAL: Final = frozenset({"cond", "list.of", "set.of", "rec.of", "rec.get", "each"})
