"""Folds as modellers write them, of many businesses; each is folded by every engine on hostile logs in `test_gallery`."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Literal, NamedTuple, Self
from zoneinfo import ZoneInfo

import eventlab as el

BERLIN = ZoneInfo("Europe/Berlin")

# -- a bank account: a running balance that other fields read ---------------------------------------------------------------


@el.event
class Deposited:
    """Money came in."""

    amount: el.Money


@el.event
class Withdrawn:
    """Money went out."""

    amount: el.Money
    note: str | None = None


AccountEvent = Deposited | Withdrawn


@el.aggregate
class Account:
    balance: el.Money = el.money(0)
    movements: int = 0
    largest: el.Money | None = None
    last_note: str = ""

    def evolve(self, event: AccountEvent) -> Self:
        match event:
            case Deposited(amount=amount):
                largest = amount if self.largest is None else max(self.largest, amount)
                return replace(self, balance=self.balance + amount, movements=self.movements + 1, largest=largest)
            case Withdrawn(amount=amount, note=note):
                changed = replace(self, balance=self.balance - amount, movements=self.movements + 1)
                if note:
                    return replace(changed, last_note=note.strip())
                return changed
        return self


@el.aggregate(name="watched")
class WatchedAccount:
    """What the balance was decides: two strata."""

    balance: el.Money = el.money(0)
    lowest: el.Money = el.money(0)
    overdrawn: int = 0

    def evolve(self, event: AccountEvent) -> Self:
        amount = event.amount if isinstance(event, Deposited) else -event.amount
        balance = self.balance + amount
        return replace(
            self,
            balance=balance,
            lowest=min(self.lowest, balance),
            overdrawn=self.overdrawn + 1 if balance < 0 else self.overdrawn,
        )


# -- an order with a reset, and a shopping cart -----------------------------------------------------------------------------


class Channel(enum.Enum):
    WEB = "web"
    SHOP = "shop"
    PHONE = "phone"


@dataclass(frozen=True)
class Line:
    """One product of an order."""

    sku: str
    quantity: int
    price: el.Money


@el.event
class LineAdded:
    """A customer put a product in the order."""

    sku: str
    quantity: int
    price: el.Money


@el.event
class LineRemoved:
    """A customer took a product out again."""

    sku: str


@el.event
class OrderPlaced:
    """The customer committed to buy."""

    channel: Channel
    lines: tuple[Line, ...]


@el.event
class OrderCancelled:
    """The customer backed out."""

    reason: str | None


OrderEvent = LineAdded | LineRemoved | OrderPlaced | OrderCancelled


@el.aggregate
class Purchase:
    status: Literal["draft", "placed", "cancelled"] = "draft"
    total: el.Money = el.money(0)
    channel: Channel | None = None
    reason: str | None = "none yet"
    lines: int = 0
    placed_lines: int = 0

    def evolve(self, event: OrderEvent) -> Self:
        match event:
            case LineAdded(quantity=n, price=p):
                return replace(self, total=self.total + n * p, lines=self.lines + 1)
            case OrderPlaced(channel=channel, lines=lines):
                return replace(self, status="placed", channel=channel, placed_lines=len(lines))
            case OrderCancelled(reason=reason):
                return replace(self, status="cancelled", total=el.money(0), reason=reason)
        return self


@el.aggregate
class Cart:
    """A mapping with entries set, taken out, and cleared."""

    prices: dict[str, el.Money] = el.field(default_factory=dict)
    counts: dict[str, int] = el.field(default_factory=dict)
    seen: frozenset[str] = frozenset()

    def evolve(self, event: OrderEvent) -> Self:
        match event:
            case LineAdded(sku=sku, quantity=n, price=p):
                counts = {**self.counts, sku: self.counts.get(sku, 0) + n}
                return replace(self, prices={**self.prices, sku: p}, counts=counts, seen=self.seen | {sku})
            case LineRemoved(sku=sku):
                return replace(self, prices={k: v for k, v in self.prices.items() if k != sku})
            case OrderCancelled():
                return replace(self, prices={})
            case _:
                return self


@el.aggregate
class PriceList:
    """A mapping without a reset, and the set of what is on sale now."""

    prices: dict[str, el.Money] = el.field(default_factory=dict)
    on_sale: frozenset[str] = frozenset()

    def evolve(self, event: LineAdded | LineRemoved) -> Self:
        if isinstance(event, LineAdded):
            return replace(self, prices=self.prices | {event.sku: event.price}, on_sale=self.on_sale | {event.sku})
        return replace(self, on_sale=self.on_sale - {event.sku})


# -- an invoice: rates, rounding, helpers -----------------------------------------------------------------------------------

RATES = {"DE": Decimal("0.19"), "FR": Decimal("0.20"), "CH": Decimal("0.081")}
CENT = Decimal("0.01")


def tax(net: Decimal, country: str) -> Decimal:
    """The tax on an amount, rounded to cents."""
    return (net * RATES.get(country, Decimal(0))).quantize(CENT, rounding=ROUND_HALF_UP)


@el.event
class Invoiced:
    """An amount was put on the invoice."""

    net: el.Money
    country: str
    discount: bool = False


@el.event
class InvoicePaid:
    """The customer paid."""

    on: dt.date


@el.aggregate
class Invoice:
    net: el.Money = el.money(0)
    tax: el.Money = el.money(0)
    half: el.Money = el.money(0)
    paid_on: dt.date | None = None
    discounts: int = 0
    countries: tuple[str, ...] = ()

    @property
    def gross(self) -> Decimal:
        return self.net + self.tax

    def evolve(self, event: Invoiced | InvoicePaid) -> Self:
        if isinstance(event, InvoicePaid):
            return replace(self, paid_on=event.on)
        due = tax(event.net, event.country)
        return replace(
            self,
            net=self.net + event.net,
            tax=self.tax + due,
            half=round(event.net * Decimal("0.5"), 2),
            discounts=self.discounts + event.discount,
            countries=(*self.countries, event.country),
        )


# -- a ticket: timers, sets, firsts -----------------------------------------------------------------------------------------


class Priority(enum.Enum):
    LOW = 1
    HIGH = 2
    URGENT = 3


@el.event
class TicketOpened:
    """Someone asked for help."""

    by: str
    priority: Priority


@el.event
class TicketAssigned:
    """Someone takes care of it."""

    agent: str | None


@el.event
class TicketAnswered:
    """Someone answered."""

    agent: str
    at: dt.datetime
    words: int


@el.event
class TicketClosed:
    """It is done."""

    at: dt.datetime


TicketEvent = TicketOpened | TicketAssigned | TicketAnswered | TicketClosed


@el.aggregate
class Ticket:
    opened_by: str | None = None
    priority: Priority = Priority.LOW
    first_answer: dt.datetime | None = None
    last_answer: dt.datetime | None = None
    agents: frozenset[str] = frozenset()
    urgent: bool = False
    words: int = 0
    longest: int = 0
    day: dt.date | None = None

    def evolve(self, event: TicketEvent, meta: el.Meta) -> Self:
        match event:
            case TicketOpened(by=by, priority=priority):
                return replace(
                    self,
                    opened_by=by if self.opened_by is None else self.opened_by,
                    priority=priority,
                    urgent=self.urgent or priority is Priority.URGENT,
                    day=meta.occurred_at.date(),
                )
            case TicketAssigned(agent=agent) if agent is not None:
                return replace(self, agents=self.agents | {agent})
            case TicketAnswered(agent=agent, at=at, words=words):
                first = self.first_answer if self.first_answer is not None else at
                words_now = max(self.longest, words)
                return replace(
                    self,
                    first_answer=first,
                    last_answer=at,
                    agents=self.agents | {agent},
                    words=self.words + words,
                    longest=words_now,
                )
            case _:
                return self


@el.aggregate(name="timed_ticket")
class TimedTicket:
    """Durations between an event and the one before it."""

    last: dt.datetime | None = None
    waited: dt.timedelta = dt.timedelta(0)
    answers: int = 0

    def evolve(self, event: TicketAnswered | TicketClosed) -> Self:
        waited = event.at - self.last if self.last is not None else dt.timedelta(0)
        return replace(self, last=event.at, waited=waited, answers=self.answers + isinstance(event, TicketAnswered))


# -- a flight, a parcel with an address -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Address:
    """Where something is sent."""

    street: str
    city: str
    unit: int | None = None


@el.event
class ParcelSent:
    """It left the warehouse."""

    to: Address
    back_to: Address | None
    weight: float


@el.event
class ParcelRedirected:
    """It goes somewhere else."""

    to: Address | None


@el.event
class ParcelScanned:
    """A scanner saw it."""

    place: str
    at: dt.datetime


ParcelEvent = ParcelSent | ParcelRedirected | ParcelScanned


@el.aggregate
class Parcel:
    to: Address | None = None
    back_to: Address = Address("", "")
    weight: float = 0.0
    hops: tuple[str, ...] = ()
    cities: frozenset[str] = frozenset()
    last_seen: dt.datetime | None = None
    night_scans: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        match event:
            case ParcelSent(to=Address(city=city) as to, back_to=back, weight=weight):
                moved = replace(self, to=to, weight=weight, cities=self.cities | {city})
                return moved if back is None else replace(moved, back_to=back)
            case ParcelRedirected(to=None):
                return replace(self, to=None)
            case ParcelRedirected(to=to):
                return replace(self, to=to)
            case ParcelScanned(place=place, at=at):
                night = at.hour >= 22 or at.hour < 6
                return replace(self, hops=(*self.hops, place), last_seen=at, night_scans=self.night_scans + (1 if night else 0))
        return self


# -- a sensor: floats -------------------------------------------------------------------------------------------------------


@el.event
class Measured:
    """The sensor said something."""

    value: el.AnyFloat
    quality: int


@el.event
class Calibrated:
    """The sensor was set."""

    offset: float


@el.aggregate
class Sensor:
    sum: el.AnyFloat = 0.0
    count: int = 0
    last: el.AnyFloat | None = None
    bad: int = 0
    offset: float = 0.0
    best: int | None = None

    def evolve(self, event: Measured | Calibrated) -> Self:
        match event:
            case Calibrated(offset=offset):
                return replace(self, offset=offset)
            case Measured(value=value, quality=quality):
                best = quality if self.best is None or quality > self.best else self.best
                return replace(
                    self,
                    sum=self.sum + value,
                    count=self.count + 1,
                    last=value,
                    bad=self.bad + 1 if value < 0 or quality < 3 else self.bad,
                    best=best,
                )
        return self


# -- machines: a subscription, seats, stock ---------------------------------------------------------------------------------


@el.event
class PaymentTaken:
    """Money came in for a period."""

    months: int


@el.event
class PaymentFailed:
    """The bank said no."""


@el.event
class SubscriptionEnded:
    """It is over."""

    why: str


@el.aggregate
class Subscription:
    """A machine whose state decides its next state: a cycle."""

    status: Literal["new", "active", "late", "ended"] = "new"
    failures: int = 0
    months: int = 0

    def evolve(self, event: PaymentTaken | PaymentFailed | SubscriptionEnded) -> Self:
        match event:
            case PaymentTaken(months=n) if self.status != "ended":
                return replace(self, status="active", failures=0, months=self.months + n)
            case PaymentFailed() if self.status in ("active", "late"):
                failures = self.failures + 1
                return replace(self, status="ended" if failures >= 3 else "late", failures=failures)
            case SubscriptionEnded():
                return replace(self, status="ended")
        return self


@el.event
class StockReceived:
    """Goods came in."""

    sku: str
    count: int


@el.event
class StockReserved:
    """Goods were promised."""

    sku: str
    count: int


@el.aggregate
class Stock:
    """What is promised depends on what is there."""

    on_hand: int = 0
    reserved: int = 0
    refused: int = 0

    def evolve(self, event: StockReceived | StockReserved) -> Self:
        if isinstance(event, StockReceived):
            return replace(self, on_hand=self.on_hand + event.count)
        if event.count > self.on_hand - self.reserved:
            return replace(self, refused=self.refused + 1)
        return replace(self, reserved=self.reserved + event.count)


@el.event
class SeatTaken:
    """Someone sits there."""

    seat: str
    who: str


@el.event
class SeatFreed:
    """Nobody sits there any more."""

    seat: str


@el.aggregate
class Hall:
    """Who has which seat, and who wanted one that was taken."""

    seats: dict[str, str] = el.field(default_factory=dict)
    turned_away: tuple[str, ...] = ()

    def evolve(self, event: SeatTaken | SeatFreed) -> Self:
        match event:
            case SeatTaken(seat=seat, who=who):
                if seat in self.seats:
                    return replace(self, turned_away=(*self.turned_away, who))
                return replace(self, seats={**self.seats, seat: who})
            case SeatFreed(seat=seat):
                return replace(self, seats={k: v for k, v in self.seats.items() if k != seat})
        return self


# -- loyalty: tiers over a sum that starts again ----------------------------------------------------------------------------


@el.event
class PointsEarned:
    """The customer bought something."""

    points: int


@el.event
class YearClosed:
    """Points begin again."""


def tier(points: int) -> str:
    """What a customer with so many points is."""
    if points >= 1000:
        return "gold"
    return "silver" if points >= 100 else "basic"


@el.aggregate
class Loyalty:
    points: int = 0
    ever: int = 0
    years: int = 0
    best: int = 0

    def evolve(self, event: PointsEarned | YearClosed) -> Self:
        match event:
            case PointsEarned(points=n):
                return replace(self, points=self.points + n, ever=self.ever + n, best=max(self.best, n))
            case YearClosed():
                return replace(self, points=0, years=self.years + 1, best=0)
        return self


@el.aggregate(name="tiered")
class TieredLoyalty:
    points: int = 0
    tier: str = "basic"
    gold_purchases: int = 0

    def evolve(self, event: PointsEarned | YearClosed) -> Self:
        if isinstance(event, YearClosed):
            return replace(self, points=0)
        points = self.points + event.points
        return replace(
            self, points=points, tier=tier(points), gold_purchases=self.gold_purchases + (1 if self.tier == "gold" else 0)
        )


# -- a fold that raises, one that divides -----------------------------------------------------------------------------------


@el.event
class ShareBought:
    """Shares came into the depot."""

    count: int
    price: int


@el.event
class ShareSold:
    """Shares left the depot."""

    count: int


@el.aggregate
class Depot:
    shares: int = 0
    spent: int = 0
    average: int = 0

    def evolve(self, event: ShareBought | ShareSold) -> Self:
        match event:
            case ShareBought(count=n, price=p):
                if p < -5:
                    raise ValueError(f"a price of {p}")
                return replace(self, shares=self.shares + n, spent=self.spent + n * p, average=p // n)
            case ShareSold(count=n):
                return replace(self, shares=self.shares - n)
        return self


# -- inheritance, decisions by recorded metadata ----------------------------------------------------------------------------


@el.aggregate(name="base_log")
class BaseLog:
    entries: int = 0
    last_stream: str = ""

    def evolve(self, event: PointsEarned | YearClosed, meta: el.Meta) -> Self:
        return replace(self, entries=self.entries + 1, last_stream=meta.id)


@el.aggregate(name="audit_log")
class AuditLog(BaseLog):
    positions: tuple[int, ...] = ()
    actors: frozenset[str] = frozenset()

    def evolve(self, event: PointsEarned | YearClosed, meta: el.Meta) -> Self:
        after = super().evolve(event, meta)
        actors = self.actors | {meta.actor} if meta.actor is not None else self.actors
        return replace(after, positions=(*self.positions, meta.position), actors=actors)


# -- one field of every type ------------------------------------------------------------------------------------------------


@el.event
class EverythingNoted:
    """A value of every type there is."""

    yes: bool
    whole: int
    real: el.AnyFloat
    text: str
    raw: bytes
    mark: uuid.UUID
    wide: Decimal
    exact: el.ExactDecimal
    at: dt.datetime
    on: dt.date
    clock: dt.time
    lasted: dt.timedelta
    tags: list[str]
    numbers: frozenset[int]
    prices: dict[str, el.Money]
    moments: tuple[dt.datetime, ...]
    anything: Any
    maybe: dt.timedelta | None
    maybe_wide: Decimal | None = None


@el.aggregate(name="every_type")
class EveryType:
    yes: bool = False
    whole: int = 0
    real: el.AnyFloat = 0.0
    text: str = ""
    raw: bytes = b""
    mark: uuid.UUID | None = None
    wide: Decimal = Decimal(0)
    exact: el.ExactDecimal = Decimal(0)
    at: dt.datetime | None = None
    on: dt.date = dt.date(2020, 1, 1)
    clock: dt.time = dt.time(0)
    lasted: dt.timedelta = dt.timedelta(0)
    maybe: dt.timedelta | None = None
    maybe_wide: Decimal | None = None
    longest: dt.timedelta = dt.timedelta(hours=-1)
    latest: dt.date | None = None
    events: frozenset[uuid.UUID] = frozenset()
    same_day: int = 0

    def evolve(self, event: EverythingNoted, meta: el.Meta) -> Self:
        return replace(
            self,
            yes=event.yes,
            whole=event.whole,
            real=event.real,
            text=event.text,
            raw=event.raw,
            mark=event.mark,
            wide=event.wide,
            exact=event.exact,
            at=event.at,
            on=event.on,
            clock=event.clock,
            lasted=event.lasted,
            maybe=event.maybe,
            maybe_wide=event.maybe_wide,
            longest=max(self.longest, event.lasted),
            latest=event.on if self.latest is None or self.latest < event.on else self.latest,
            events=self.events | {meta.event_id},
            same_day=self.same_day + (event.at.date() == event.on),
        )


@el.aggregate(name="collector")
class Collector:
    """Collections of every sort, taken over from events."""

    tags: list[str] = el.field(default_factory=list)
    numbers: frozenset[int] = frozenset({1})
    prices: dict[str, el.Money] = el.field(default_factory=dict)
    moments: tuple[dt.datetime, ...] = ()
    anything: Any = None
    all_moments: tuple[dt.datetime, ...] = ()
    cheap: bool = False

    def evolve(self, event: EverythingNoted) -> Self:
        return replace(
            self,
            tags=event.tags,
            numbers=event.numbers,
            prices=event.prices,
            moments=event.moments,
            anything=event.anything,
            all_moments=(*self.all_moments, event.at),
            cheap=any(price < 5 for price in event.prices.values()) or len(event.tags) > 2,
        )


# -- projections ------------------------------------------------------------------------------------------------------------


@el.projection
class SkuSales:
    """Sales by product, whatever the order."""

    lines: int = 0
    pieces: int = 0
    revenue: el.Money = el.money(0)
    cheapest: el.Money | None = None

    @staticmethod
    def key(event: LineAdded) -> str | None:
        return event.sku or None

    def evolve(self, event: LineAdded) -> Self:
        cheapest = event.price if self.cheapest is None or event.price < self.cheapest else self.cheapest
        return replace(
            self, lines=self.lines + 1, pieces=self.pieces + event.quantity, revenue=self.revenue + event.price * event.quantity,
            cheapest=cheapest,
        )  # fmt: skip


class AgentDay(NamedTuple):
    agent: str | None
    day: dt.date


@el.projection
class AgentWork:
    """What each agent did on which day, in Berlin."""

    answers: int = 0
    words: int = 0
    last_ticket: str = ""

    @staticmethod
    def key(event: TicketAnswered | TicketAssigned, meta: el.Meta) -> AgentDay | None:
        if isinstance(event, TicketAssigned):
            return AgentDay(event.agent, meta.occurred_at.date())
        return AgentDay(event.agent, meta.occurred_at.astimezone(BERLIN).date()) if event.words > 0 else None

    def evolve(self, event: TicketAnswered | TicketAssigned, meta: el.Meta) -> Self:
        if isinstance(event, TicketAnswered):
            return replace(self, answers=self.answers + 1, words=self.words + event.words, last_ticket=meta.stream)
        return self


class MonthChannel(NamedTuple):
    month: str
    channel: Channel


@el.projection
class MonthlyOrders:
    placed: int = 0
    lines: int = 0
    expensive: bool = False

    @staticmethod
    def key(event: OrderPlaced, meta: el.Meta) -> MonthChannel:
        return MonthChannel(meta.occurred_at.strftime("%Y-%m"), event.channel)

    def evolve(self, event: OrderPlaced) -> Self:
        value = sum(line.quantity * line.price for line in event.lines)
        return replace(
            self, placed=self.placed + 1, lines=self.lines + len(event.lines), expensive=self.expensive or value > 1_000
        )


@el.projection
class CityBoard:
    """Which streets of a city get parcels."""

    parcels: int = 0
    streets: frozenset[str] = frozenset()
    heaviest: float = 0.0

    @staticmethod
    def key(event: ParcelSent) -> str:
        return f"{event.to.city.strip()}-{event.to.unit}"

    def evolve(self, event: ParcelSent) -> Self:
        return replace(self, parcels=self.parcels + 1, streets=self.streets | {event.to.street}, heaviest=event.weight)


@el.projection
class Everything:
    """Counts every event by its category: no annotation."""

    events: int = 0
    types: frozenset[str] = frozenset()

    @staticmethod
    def key(event, meta) -> str:  # type: ignore[no-untyped-def]
        return str(meta.category)

    def evolve(self, event, meta) -> Self:  # type: ignore[no-untyped-def]
        return replace(self, events=self.events + 1, types=self.types | {meta.type})


# -- keyed by the state of an aggregate ---------------------------------------------------------------------------------------


class Desk(NamedTuple):
    opened_by: str
    urgent: bool
    day: dt.date | None


@el.projection(source=Ticket)
class DeskWork:
    """Answers by who opened the ticket, and whether it had become urgent."""

    answers: int = 0
    words: int = 0
    last: dt.datetime | None = None

    @staticmethod
    def key(ticket: Ticket) -> Desk | None:
        return None if ticket.opened_by is None else Desk(ticket.opened_by, ticket.urgent, ticket.day)

    def evolve(self, event: TicketAnswered) -> Self:
        return replace(self, answers=self.answers + 1, words=self.words + event.words, last=event.at)


@el.projection(source=Parcel)
class CityScans:
    """Scans by the city that a parcel is on its way to then, and by how often it was seen."""

    scans: int = 0
    busiest: int = 0
    nights: int = 0

    @staticmethod
    def key(parcel: Parcel, event: ParcelScanned | ParcelRedirected) -> str | None:
        if parcel.to is None:
            return None
        return f"{parcel.to.city}-{len(parcel.hops) % 3}" if isinstance(event, ParcelScanned) else parcel.back_to.city

    def evolve(self, event: ParcelScanned | ParcelRedirected) -> Self:
        if isinstance(event, ParcelRedirected):
            return replace(self, scans=0)
        night = 1 if event.at.hour >= 22 else 0
        return replace(self, scans=self.scans + 1, busiest=max(self.busiest, self.scans + 1), nights=self.nights + night)


MODELS: tuple[type, ...] = (
    Account, WatchedAccount, Purchase, Cart, PriceList, Invoice, Ticket, TimedTicket, Parcel, Sensor, Subscription, Stock, Hall,
    Loyalty, TieredLoyalty, Depot, EveryType, Collector, BaseLog, AuditLog, SkuSales, AgentWork, MonthlyOrders, CityBoard,
    Everything, DeskWork, CityScans,
)  # fmt: skip
