"""The other live views in a real JupyterLab: a million events scrolled and filtered, a debugger stepped, a slider moved."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from browser.jupyter import CHROMIUM, Page, opened

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("EVENTLAB_BROWSER"), reason="there is no chromium")
#: The cells of a notebook with every view; the log is that of the benchmarks, of so many events.
CELLS = [
    """import sys
import eventlab as el
sys.path.insert(0, {benchmarks!r})
from generate import Order, orders
lab = el.open("log", maintain=False)
done = lab.ingest(orders({events}).sources(), source="orders", recorded_at="occurred_at")
browser = el.browse(lab)
browser""",
    'stepper = el.step(lab.debug(Order, "00000058"))\nstepper',
    "slider = el.slide(lab, Order)\nslider",
    "inspector = el.inspect(lab, Order)\ninspector",
    """from generate import OrderPlaced
shop = el.scratch(seed=3)
shop.append("order-1", [OrderPlaced("shop")])
(begun,) = shop.read()
with shop.context(correlation_id=begun.event_id, causation_id=begun.event_id, actor="<b>ada</b>"):
    shop.append("order-2", [OrderPlaced("web")])
    shop.append("order-3", [OrderPlaced("web")])
follower = el.follow(shop, begun)
follower""",
    "done = lab.rebuild(Order)\nwatcher = el.watch(lab)\nwatcher",
]
#: What is seen of the list of events, once all of its rows are there.
ROWS = "[...document.querySelectorAll('.elv-row')].map((row) => [...row.children].map((cell) => cell.textContent))"
THERE = f"() => {{ const rows = {ROWS}; return rows.length > 5 && rows.every((row) => row[4]) && (%s); }}"


#: The cells of a notebook that show a live view.
LIVE = """() => [...window.jupyterapp.shell.currentWidget.content.model.cells].flatMap((cell, at) => cell.type === 'code' &&
  cell.sharedModel.getOutputs().some((output) => output.data?.['application/vnd.jupyter.widget-view+json']) ? [at] : [])"""


def cells(events: int) -> list[str]:
    benchmarks = str(Path(__file__).parents[1] / "benchmarks")
    return [CELLS[0].format(events=events, benchmarks=benchmarks), *CELLS[1:]]


def browse(page: Page, head: int) -> None:
    """Scroll, filter, open, compare, go back: by keyboard, and each time the rows are those of Python."""
    of = page.page
    of.wait_for_function(THERE % "rows[0][0] === '1'")
    of.locator(".elv-list").focus()
    of.keyboard.press("End")
    of.wait_for_function(THERE % f"rows.at(-1)[0] === '{head:,}'")
    of.keyboard.press("Home")
    of.wait_for_function(THERE % "rows[0][0] === '1'")
    of.keyboard.press("g")
    of.keyboard.type(str(head // 2))
    of.keyboard.press("Enter")
    of.wait_for_function(THERE % f"rows.some((row) => row[0] === '{head // 2:,}')")
    of.keyboard.press("/")
    of.keyboard.type("OrderCancelled")
    of.keyboard.press("Enter")
    of.wait_for_function(THERE % "rows.every((row) => row[4] === 'OrderCancelled')")
    page.becomes("print(browser.code())", "lab.read(el.events('OrderCancelled'))")
    of.locator(".elv-list").focus()
    of.keyboard.press("ArrowDown")
    of.keyboard.press("Enter")
    of.wait_for_selector(".elv-browser .elv-detail:not([hidden])")
    second = of.evaluate(f"{ROWS}[1]")
    page.becomes("print(browser.state['opened']['position'])", second[0].replace(",", ""))
    of.keyboard.press("ArrowDown")
    of.keyboard.press("c")
    of.wait_for_selector(".elv-browser .elv-detail b")
    of.get_by_role("button", name="Stream", exact=True).click()
    of.wait_for_function(THERE % f"rows.every((row) => row[2] === '{second[2]}')")
    of.locator(".elv-list").focus()
    of.keyboard.press("Backspace")
    of.wait_for_function(THERE % "rows.every((row) => row[4] === 'OrderCancelled')")
    of.locator(".elv-browser .elv-bar input").first.fill("events(")
    of.keyboard.press("Enter")
    of.wait_for_selector(".elv-browser .elv-wrong")


def step(page: Page) -> None:
    of = page.page
    of.locator(".elv-steps").focus()
    for _ in range(3):
        of.keyboard.press("ArrowRight")
    page.becomes("print(stepper.controller.debugger.at)", "3")
    of.keyboard.press("ArrowLeft")
    page.becomes("print(stepper.controller.debugger.at)", "2")
    of.locator("[aria-label='stop where a field changes']").select_option("status")
    page.becomes("print(stepper.controller.debugger.stops)", "['status changes']")
    of.locator(".elv-steps").focus()
    of.keyboard.press("Shift+ArrowRight")
    page.becomes("print(stepper.controller.debugger.state.status)", "placed")
    of.wait_for_function("document.querySelector('.elv-stepper tr.elv-changed th').textContent.includes('status')")
    of.keyboard.press("Home")
    page.becomes("print(stepper.controller.debugger.at)", "0")


def slide(page: Page, head: int) -> None:
    of = page.page
    of.locator(".elv-asof-view input[type=range]").fill(str(head // 2))
    page.becomes("print(slider.code())", f"lab.at(position={head // 2}).table(Order)")
    count = page.ask(f"print(format(len(lab.at(position={head // 2}).table(Order)), ','))")
    of.wait_for_function(f"document.querySelector('.elv-asof-view .elv-status').textContent.includes('{count} rows')")
    of.locator(".elv-inspector .elv-table").click(position={"x": 5, "y": 5})
    of.keyboard.press("ArrowRight")
    of.keyboard.press("b")
    of.wait_for_selector(".elv-inspector .elv-detail:not([hidden])")
    page.becomes("print(inspector.state['blamed']['field'])", "status")


def follow(page: Page) -> None:
    of = page.page
    of.locator(".elv-fall").focus()
    of.keyboard.press("ArrowDown")
    of.wait_for_function("document.querySelectorAll('.elv-fallen')[1].getAttribute('aria-selected') === 'true'")
    page.becomes("print(follower.state['opened']['position'])", "2")
    of.keyboard.press("ArrowLeft")
    page.becomes("print(follower.state['opened']['position'])", "1")
    of.keyboard.press("ArrowRight")
    page.becomes("print(follower.state['opened']['position'])", "2")
    of.keyboard.press("End")
    page.becomes("print(follower.state['at'])", "2")
    of.keyboard.press("ArrowRight")
    of.wait_for_selector(".elv-follow .elv-wrong")
    assert of.evaluate("document.querySelector('.elv-follow img').naturalWidth") > 0
    assert "<b>ada</b>" in of.locator(".elv-follow .elv-detail").inner_text()


def watch(page: Page, head: int) -> None:
    of = page.page
    page.ask("_ = lab.append('order-new', [OrderPlaced('shop')])")
    # Nobody asks: it looks by itself.
    of.wait_for_function(f"document.querySelector('.elv-watch .elv-status').textContent.startsWith('{head + 1:,} events')")
    of.wait_for_function("[...document.querySelectorAll('.elv-watch td')].some((cell) => cell.textContent === 'order')")
    assert of.evaluate("[...document.querySelectorAll('.elv-watch img')].every((image) => image.naturalWidth > 0)")
    of.locator(".elv-watch").focus()
    of.keyboard.press("p")
    of.wait_for_function("document.querySelector('.elv-watch .elv-status').textContent.endsWith('paused')")
    looks = page.ask("print(len(watcher.controller._looks))")
    page.page.wait_for_timeout(1_500)
    assert page.ask("print(len(watcher.controller._looks))") == looks


def test_every_view_is_worked_at_by_keyboard(tmp_path: Path) -> None:
    with opened(cells(20_000), tmp_path, size=(1400, 1800)) as page:
        page.run_all()
        browse(page, 20_000)
        step(page)
        slide(page, 20_000)
        follow(page)
        watch(page, 20_000)
        # While a cell runs nothing is lost: what is asked for comes.
        page.page.evaluate(
            "() => { const kernel = window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel;"
            " kernel.requestExecute({code: 'import time; time.sleep(2)'}); }"
        )
        page.page.locator(".elv-steps").focus()
        for _ in range(5):
            page.page.keyboard.press("ArrowRight")
        page.becomes("print(stepper.controller.debugger.at)", "5")
        assert (page.refused, page.complaints) == ([], [])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("01_storm_the_domain", marks=pytest.mark.browser), pytest.param("07_projections", marks=pytest.mark.browser),
        pytest.param("08_debug_a_replay", marks=pytest.mark.browser), "09_trace_causes",
    ],
)  # fmt: skip
def test_a_notebook_with_live_views_runs_in_jupyterlab(name: str, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (tmp_path / "data").symlink_to(root / "data")
    (tmp_path / "eventlab").symlink_to(root / "eventlab")
    with opened(root / "notebooks" / f"{name}.ipynb", tmp_path, size=(1400, 3000)) as page:
        # As it was committed, before anything runs: what it shows is HTML and pictures, and no view is asked for.
        page.page.wait_for_selector(".jp-OutputArea-output table, .jp-OutputArea-output img")
        assert page.page.locator(".elv, .elb").count() == 0
        page.run_all()
        live = page.page.evaluate(LIVE)
        assert live
        for cell in live:
            page.page.evaluate("(at) => window.jupyterapp.shell.currentWidget.content.scrollToItem(at)", cell)
            page.page.wait_for_selector(f".jp-Cell[data-windowed-list-index='{cell}'] :is(.elv, .elb)", state="attached")
        assert (page.refused, page.complaints) == ([], [])


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_views_are_read_in_light_and_dark(theme: str, tmp_path: Path) -> None:
    folder = Path(os.environ.get("EVENTLAB_SHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    with opened(cells(5_000), tmp_path, theme=theme, size=(1400, 4200)) as page:
        page.run_all()
        browse(page, 5_000)
        step(page)
        slide(page, 5_000)
        follow(page)
        watch(page, 5_000)
        page.page.screenshot(path=folder / f"views {theme.split()[-1].lower()}.png")
        assert page.refused == []


@pytest.mark.browser
def test_five_million_events_stay_fluid(tmp_path: Path) -> None:
    """`pytest -m browser -s tests/browser -k million` prints how long each gesture takes until it is seen."""
    with opened(cells(5_000_000), tmp_path, size=(1400, 1800)) as page:
        page.run_all()
        of = page.page
        of.wait_for_function(THERE % "rows[0][0] === '1'")
        took: dict[str, list[float]] = {}
        for share in (0.1, 0.9, 0.4, 0.6, 0.2):
            started = time.monotonic()
            move = "(share) => { const list = document.querySelector('.elv-list'); list.scrollTop = share * list.scrollHeight; }"
            of.evaluate(move, share)
            of.wait_for_function(THERE % f"Math.abs(Number(rows[0][0].replaceAll(',', '')) / 5e6 - {share}) < 0.05")
            took.setdefault("scroll far", []).append(time.monotonic() - started)
        for name in ("OrderCancelled", "OrderShipped", "ItemAdded"):
            started = time.monotonic()
            of.locator(".elv-browser .elv-bar input").first.fill(name)
            of.keyboard.press("Enter")
            of.wait_for_function(THERE % f"rows.every((row) => row[4] === '{name}')")
            took.setdefault("filter", []).append(time.monotonic() - started)
        for position in (1_000_000, 4_000_000, 2_500_000):
            started = time.monotonic()
            of.locator(".elv-asof-view input[type=range]").fill(str(position))
            of.wait_for_function(
                f"document.querySelector('.elv-asof-view .elv-moment').textContent.includes('{position:,},')", timeout=20_000
            )
            took.setdefault("slide", []).append(time.monotonic() - started)
        for what, seconds in took.items():
            shown = ", ".join(f"{of * 1000:.0f}" for of in seconds)
            print(f"\n{what}: {shown} ms until it is seen")
        assert page.refused == []
