// The events of a log: a list as long as the log, of which only what is seen is there.

const HIGH = 24, TALL = 430, LONGEST = 8_000_000;
const COLUMNS = ["position", "at", "stream", "version", "type", "text"];

function render({ model, el }) {
  let state = {}, chosen = 0, asked = null, wanting = null;
  let pages = new Map(); // the place a page begins at → its rows
  const tell = (what) => model.send(what);

  const text = make("input", { type: "text", "aria-label": "filter", placeholder: "filter: OrderPlaced | order-7 | events('A') & tag(customer='c9')" });
  const goto_ = make("input", { type: "text", "aria-label": "go to a place in the list", placeholder: "go to", style: "flex: 0 0 7em; min-width: 5em" });
  const back = button("Back", "Backspace: what was looked at before", () => tell({ do: "back" }));
  const bar = make("div", { class: "elv-bar" }, text, goto_, back, button("Refresh", "the log as it is now", () => tell({ do: "refresh" })));
  const facets = make("div", { class: "elv-side", "aria-label": "types" });
  const rows = make("div", { class: "elv-rows" });
  const filler = make("div");
  const list = make("div", { class: "elv-list", role: "listbox", tabindex: "0", "aria-label": "events" }, rows, filler);
  const detail = make("div", { class: "elv-detail", hidden: "", "aria-label": "the open event" });
  const [status, say] = speaker();

  const high = () => Math.min(state.count * HIGH, LONGEST) || HIGH;
  const lines = Math.floor(TALL / HIGH);
  const top_ = () => { // the first row that is seen
    const most = Math.max(1, high() - TALL), last = Math.max(0, state.count - lines);
    return Math.round(Math.min(1, list.scrollTop / most) * last);
  };
  const scrollTo = (index) => {
    const most = Math.max(1, high() - TALL), last = Math.max(1, state.count - lines);
    list.scrollTop = Math.round((Math.max(0, Math.min(index, last)) / last) * most);
  };

  function need(first) {
    for (const at of new Set([first, first + lines].map((of) => Math.floor(of / state.page) * state.page))) {
      if (at < state.count && !pages.has(at)) { ask(at); return; }
    }
  }
  // One page is asked for at a time: whoever scrolls fast sees the last place, and not every one on the way.
  function ask(at) {
    if (asked !== null) { wanting = at; return; }
    asked = at; wanting = null;
    tell({ do: "page", at, count: state.page });
  }

  function show() {
    const first = top_();
    rows.replaceChildren();
    for (let at = first; at < Math.min(first + lines, state.count); at += 1) {
      const page = Math.floor(at / state.page) * state.page, row = pages.get(page)?.[at - page];
      const node = make("div", { class: "elv-row", role: "option", "aria-selected": String(at === chosen), "data-at": at });
      for (const name of COLUMNS) {
        const value = row ? (name === "position" || name === "version" ? row[name].toLocaleString("en") : row[name]) : name === "position" ? "…" : "";
        node.append(make("span", { text: value, title: name === "text" || name === "stream" ? value : "", class: name === "text" ? "elv-text" : "" }));
      }
      node.addEventListener("click", (event) => { choose(at, false); open(event.shiftKey); });
      rows.append(node);
    }
    need(first);
  }

  const rowAt = (at) => { const page = Math.floor(at / state.page) * state.page; return pages.get(page)?.[at - page]; };
  function choose(at, scroll = true) {
    chosen = Math.max(0, Math.min(at, state.count - 1));
    const first = top_();
    if (scroll && chosen < first) scrollTo(chosen);
    if (scroll && chosen >= first + lines) scrollTo(chosen - lines + 1);
    show();
    list.setAttribute("aria-activedescendant", "");
    const row = rowAt(chosen);
    if (row) say(`${(chosen + 1).toLocaleString("en")} of ${state.count.toLocaleString("en")}: ${row.type}, ${row.stream}`);
  }
  function open(beside) {
    const row = rowAt(chosen);
    if (row) tell({ do: beside && state.opened ? "compare" : "open", position: row.position });
  }

  function draw(told) {
    const moved = told.turn_of !== state.turn_of;
    state = told;
    if (moved) { pages = new Map(); asked = wanting = null; chosen = 0; list.scrollTop = 0; }
    if (document.activeElement !== text || moved) text.value = state.text;
    filler.style.height = `${Math.max(0, high() - TALL)}px`;
    back.disabled = !state.back;
    say(state.error || `${state.place}: ${state.count.toLocaleString("en")} of ${state.head.toLocaleString("en")} events`, Boolean(state.error));
    facets.replaceChildren();
    for (const of of state.facets) {
      facets.append(make("button", { type: "button", class: "elv-facet", title: `only ${of.type}`, onclick: () => tell({ do: "type", type: of.type }) },
        make("span", { text: of.type }), make("span", { text: of.count.toLocaleString("en") })));
    }
    opened();
    show();
  }

  function opened() {
    detail.replaceChildren();
    detail.hidden = !state.opened;
    if (!state.opened) return;
    const follow = (what, label) => button(label, what, () => tell({ do: "follow", what }));
    detail.append(make("div", { class: "elv-bar" }, follow("stream", "Stream"), follow("correlation", "Conversation"), follow("cause", "Cause"),
      follow("effects", "Effects"), button("×", "Escape: close", () => tell({ do: "close" }))));
    if (state.other) {
      detail.append(make("b", { text: `${state.opened.position} beside ${state.other.position}` }),
        state.differs.length ? rowsOf(state.differs) : make("p", { text: "They say the same." }));
    }
    detail.append(rowsOf(state.opened.fields), make("hr"), rowsOf(state.opened.about));
  }

  model.on("msg:custom", (told) => {
    if (told.page === undefined || told.turn_of !== state.turn_of) return;
    if (pages.size > 60) pages = new Map();
    pages.set(told.page, told.rows);
    asked = null;
    if (wanting !== null && !pages.has(wanting)) ask(wanting);
    show();
  });
  let due = 0;
  list.addEventListener("scroll", () => { due ||= requestAnimationFrame(() => { due = 0; show(); }); });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter") tell({ do: "filter", text: text.value });
    if (event.key === "Escape") { text.value = state.text; list.focus(); }
  });
  goto_.addEventListener("keydown", (event) => {
    if (event.key === "Enter") { const at = Number.parseInt(goto_.value.replace(/\D/g, ""), 10); if (at) { scrollTo(at - 1); choose(at - 1); list.focus(); } }
  });

  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: lines, PageUp: -lines };
  return view(model, el, "elv-browser", [bar, make("div", { class: "elv-main" }, facets, list, detail), status], draw, (event) => {
    if (steps[event.key]) choose(chosen + steps[event.key]);
    else if (event.key === "Home") choose(0);
    else if (event.key === "End") choose(state.count - 1);
    else if (event.key === "Enter") open(event.shiftKey);
    else if (event.key === "c") open(true);
    else if (event.key === "/") text.focus();
    else if (event.key === "g") goto_.focus();
    else if (event.key === "Backspace") tell({ do: "back" });
    else if (event.key === "Escape") tell({ do: "close" });
    else return false;
    return true;
  });
}

export default { render };
