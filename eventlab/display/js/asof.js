// A model as of a moment: a slider along the log, and the table or the state there.

function render({ model, el }) {
  let state = {}, asked = false, wanted = null;
  const tell = (what) => { asked = true; model.send(what); };
  const slider = make("input", { type: "range", min: 0, step: 1, "aria-label": "position in the log" });
  const moment = make("span", { class: "elv-moment" });
  const time = make("input", { type: "text", placeholder: "as of a time: 2013-02-08T18:00Z", "aria-label": "as of a time", style: "flex: 0 1 16em" });
  const bar = make("div", { class: "elv-bar" }, button("◀", "←: one event back", () => tell({ do: "by", count: -1 })), slider,
    button("▶", "→: one event on", () => tell({ do: "by", count: 1 })), moment, time, button("Now", "the log as it is now", () => tell({ do: "refresh" })));
  const shown = make("div", { class: "elv-table" });
  const [status, say] = speaker();

  // While an answer is awaited, only the last place of the slider counts.
  function slide() {
    moment.textContent = `position ${Number(slider.value).toLocaleString("en")}`;
    if (asked) { wanted = Number(slider.value); return; }
    tell({ do: "to", position: Number(slider.value) });
  }
  slider.addEventListener("input", slide);
  time.addEventListener("keydown", (event) => { if (event.key === "Enter") tell({ do: "time", time: time.value }); });

  function draw(told) {
    state = told;
    asked = false;
    slider.max = state.head;
    if (wanted !== null && wanted !== state.position) { const to = wanted; wanted = null; tell({ do: "to", position: to }); } else {
      wanted = null;
      slider.value = state.position;
    }
    moment.textContent = `position ${state.position.toLocaleString("en")}${state.when ? `, ${state.when}` : ""}`;
    const head = make("tr", {}, ...state.columns.map((name) => make("th", { scope: "col", text: name })));
    const rows = state.rows.map((row) => make("tr", { class: row.at(-1) ? "elv-changed" : "" }, ...row.slice(0, -1).map((value) => make("td", { text: value }))));
    shown.replaceChildren(make("table", { class: "elv-asof" }, make("thead", {}, head), make("tbody", {}, ...rows)));
    const count = state.id === null ? `${state.count.toLocaleString("en")} rows${state.count > state.rows.length ? `, the first ${state.rows.length}` : ""}` : state.id;
    say(state.error || `${state.name}: ${count}${state.event ? ` · the last event: ${state.event}` : ""}`, Boolean(state.error));
  }

  return view(model, el, "elv-asof-view", [bar, shown, status], draw, (event) => {
    if (event.key === "ArrowRight") tell({ do: "by", count: event.shiftKey ? 100 : 1 });
    else if (event.key === "ArrowLeft") tell({ do: "by", count: event.shiftKey ? -100 : -1 });
    else if (event.key === "Home") tell({ do: "to", position: 0 });
    else if (event.key === "End") tell({ do: "to", position: state.head });
    else return false;
    return true;
  });
}

export default { render };
