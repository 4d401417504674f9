// A read model looked into: what it rests on, its rows, and who made a cell.

function render({ model, el }) {
  let state = {}, at = 0, chosen = [0, 0];
  let pages = new Map();
  const tell = (what) => model.send(what);
  const find = make("input", { type: "text", placeholder: "a key", "aria-label": "find rows by their key" });
  const facts = make("div", { class: "elv-side", style: "width: 270px" });
  const shown = make("div", { class: "elv-table", style: "flex: 1", tabindex: "0", role: "grid", "aria-label": "rows" });
  const blamed = make("div", { class: "elv-detail", hidden: "" });
  const earlier = button("Earlier", "Page up", () => page(-1)), later = button("Later", "Page down", () => page(1));
  const bar = make("div", { class: "elv-bar" }, find, earlier, later, button("Blame", "B: who made the chosen cell", () => blame()),
    button("Refresh", "the log as it is now", () => tell({ do: "refresh" })));
  const [status, say] = speaker();

  function page(by) {
    const to = at + by * state.page;
    if (to < 0 || to >= Math.max(state.count, 1)) return;
    at = to; chosen = [at, chosen[1]];
    need();
  }
  function need() {
    if (pages.has(at) || !state.count) show(); else tell({ do: "page", at });
  }
  function blame() { tell({ do: "blame", row: chosen[0], field: state.columns[chosen[1]] }); }

  function show() {
    const head = state.columns.map((name) => make("th", { scope: "col" }, button(
      `${name}${state.sorted?.[0] === name ? (state.sorted[1] ? " ▼" : " ▲") : ""}`, "sort", () => tell({ do: "sort", column: name }))));
    for (const of of head) of.firstChild.className = "elv-link";
    const rows = (pages.get(at) ?? []).map((row, i) => make("tr", {}, ...row.map((value, j) => {
      const is = chosen[0] === at + i && chosen[1] === j;
      const cell = make("td", { text: value, role: "gridcell", "aria-selected": String(is), onclick: () => { chosen = [at + i, j]; show(); }, ondblclick: blame });
      if (is) cell.style.outline = "2px solid var(--jp-brand-color1, #1976d2)";
      return cell;
    })));
    shown.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows)));
    shown.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
    earlier.disabled = at === 0;
    later.disabled = at + state.page >= state.count;
    const rest = state.count === state.all ? "" : ` of ${state.all.toLocaleString("en")}`;
    say(state.error || `${state.name}: rows ${Math.min(at + 1, state.count).toLocaleString("en")} to ${Math.min(at + state.page, state.count).toLocaleString("en")} of ${state.count.toLocaleString("en")}${rest}`, Boolean(state.error));
  }

  function draw(told) {
    const moved = told.turn_of !== state.turn_of;
    state = told;
    if (moved) { pages = new Map(); at = 0; chosen = [0, 0]; }
    facts.replaceChildren(rowsOf(state.facts));
    blamed.hidden = !state.blamed;
    if (state.blamed) {
      blamed.replaceChildren(make("b", { text: `${state.blamed.field} of ${state.blamed.key}` }),
        state.blamed.rows.length ? rowsOf(state.blamed.rows) : make("p", { text: "No event changed it." }), button("×", "Escape: close", () => tell({ do: "close" })));
    }
    need();
  }

  model.on("msg:custom", (told) => {
    if (told.page === undefined || told.turn_of !== state.turn_of) return;
    pages.set(told.page, told.rows);
    show();
  });
  find.addEventListener("keydown", (event) => { if (event.key === "Enter") tell({ do: "find", text: find.value }); });
  const steps = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] };
  return view(model, el, "elv-inspector", [bar, make("div", { class: "elv-main" }, facts, shown, blamed), status], draw, (event) => {
    const step = steps[event.key];
    if (step) {
      const [row, column] = [chosen[0] + step[0], chosen[1] + step[1]];
      if (row >= at && row < Math.min(at + state.page, state.count) && column >= 0 && column < state.columns.length) { chosen = [row, column]; show(); }
    } else if (event.key === "PageDown") page(1);
    else if (event.key === "PageUp") page(-1);
    else if (event.key === "b" || event.key === "Enter") blame();
    else if (event.key === "/") find.focus();
    else if (event.key === "Escape") tell({ do: "close" });
    else return false;
    return true;
  });
}

export default { render };
