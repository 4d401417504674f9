// What goes on in a store: charts that are pictures, a table beside, and a look each second while somebody sees it.

function render({ model, el }) {
  let state = {}, asked = false, paused = false;
  const tell = (what) => { asked = true; model.send(what); };
  const pause = button("Pause", "P: look no more, or look again", () => { paused = !paused; show(); });
  const bar = make("div", { class: "elv-bar" }, pause, button("Refresh", "R: count the whole log anew", () => tell({ do: "refresh" })));
  const pictures = ["rate", "lag", "history"].map((name) => make("img", { "data-of": name, style: "max-width: 100%; display: block" }));
  const titles = { rate: "events a second", lag: "events behind", history: "the whole log, by when its events were recorded" };
  const shown = make("div", { class: "elv-charts" }, ...pictures.map((picture) => make("figure", { style: "margin: 6px 8px" },
    make("figcaption", { text: titles[picture.dataset.of], style: "font-weight: 600" }), picture)));
  const rows = make("div", { class: "elv-table" });
  const [status, say] = speaker();
  const NAMES = ["", "reader", "what", "state", "position", "behind", "parked", "error"];

  function show() {
    pause.textContent = paused ? "Go on" : "Pause";
    say(state.error || `${state.head.toLocaleString("en")} events, ${state.per_second.toLocaleString("en")} a second${paused ? ", paused" : ""}`, Boolean(state.error));
  }

  function draw(told) {
    state = told;
    asked = false;
    for (const picture of pictures) {
      picture.src = `data:image/svg+xml,${encodeURIComponent(state[picture.dataset.of])}`;
      picture.alt = titles[picture.dataset.of];
    }
    const head = make("tr", {}, ...NAMES.map((name) => make("th", { scope: "col", text: name })));
    const body = state.readers.map((row) => make("tr", {}, ...row.map((value) => make("td", { text: value }))));
    rows.replaceChildren(state.readers.length ? make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)) : make("p", { text: "Nobody reads: there is no read model and no consumer." }));
    show();
  }

  // An answer is awaited before the next look, so that a busy kernel has one to answer and not a hundred.
  const timer = setInterval(() => { if (!paused && !asked && !document.hidden && el.isConnected) tell({ do: "look" }); }, 1000);
  const forget = view(model, el, "elv-watch", [bar, make("div", { class: "elv-main", style: "flex-wrap: wrap" }, shown, rows), status], draw, (event) => {
    if (event.key === "p") pause.click();
    else if (event.key === "r") tell({ do: "refresh" });
    else return false;
    return true;
  });
  return () => { clearInterval(timer); forget(); };
}

export default { render };
