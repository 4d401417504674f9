// The debugger: the events of one key beside its state, stepped through in both directions.

function render({ model, el }) {
  let state = {}, playing = 0;
  const tell = (what) => model.send(what);
  const play = button("Play", "P: a step each half second", () => toggle());
  const bar = make("div", { class: "elv-bar" },
    button("|◀", "Home: before the first event", () => tell({ do: "to", step: 0 })), button("◀◀", "Shift + ←: back to a stop", () => tell({ do: "run", back: true })),
    button("◀", "←: one back", () => tell({ do: "step", by: -1 })), button("▶", "→: one on", () => tell({ do: "step", by: 1 })),
    button("▶▶", "Shift + →: on to a stop", () => tell({ do: "run" })), button("▶|", "End: the last event", () => tell({ do: "to", step: state.count })), play);
  const types = make("select", { "aria-label": "stop at a type of event" });
  const fields = make("select", { "aria-label": "stop where a field changes" });
  types.addEventListener("change", () => { if (types.value) tell({ do: "stop", type: types.value }); types.value = ""; });
  fields.addEventListener("change", () => { if (fields.value) tell({ do: "stop", changed: fields.value }); fields.value = ""; });
  const clear = button("Clear", "take all stops away", () => tell({ do: "clear" }));
  const stops = make("span");
  bar.append(types, fields, clear, stops);
  const events = make("div", { class: "elv-steps", role: "listbox", "aria-label": "events", tabindex: "0" });
  const tree = make("div", { class: "elv-table", style: "flex: 1" });
  const [status, say] = speaker();

  function toggle() {
    if (playing) { clearInterval(playing); playing = 0; } else {
      playing = setInterval(() => { if (state.at >= state.count || state.raised) toggle(); else tell({ do: "step", by: 1 }); }, 500);
    }
    play.textContent = playing ? "Pause" : "Play";
  }

  function options(select, first, names) {
    if (select.options.length === names.length + 1) return;
    select.replaceChildren(make("option", { value: "", text: first }), ...names.map((name) => make("option", { value: name, text: name })));
  }

  function draw(told) {
    state = told;
    options(types, "stop at type …", state.types);
    options(fields, "stop where … changes", state.fields);
    stops.textContent = state.stops.join(", ");
    clear.disabled = !state.stops.length;
    events.replaceChildren(...[{ step: 0, position: "", type: "before the first event", text: "" }, ...state.events]
      .filter((of) => of.step > 0 || state.at < 20).map((of) => make("div", {
        class: "elv-step", role: "option", "aria-selected": String(of.step === state.at), title: of.text, onclick: () => tell({ do: "to", step: of.step }),
      }, make("span", { text: of.step }), make("span", { text: of.type }), make("span", { class: "elv-text", text: of.text }))));
    events.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
    const table = rowsOf(state.tree.map(([path, value, changed, old]) => [`${changed ? "● " : ""}${path}`, value, changed ? `was ${old || "not there"}` : ""]));
    state.tree.forEach(([, , changed], at) => table.rows[at].classList.toggle("elv-changed", changed));
    tree.replaceChildren(table);
    const where = `${state.name}: step ${state.at} of ${state.count}${state.when ? `, ${state.when} UTC` : ""}`;
    say(state.error || state.raised || [where, state.parted].filter(Boolean).join(" · "), Boolean(state.error || state.raised));
  }

  const off = view(model, el, "elv-stepper", [bar, make("div", { class: "elv-main" }, events, tree), status], draw, (event) => {
    if (event.key === "ArrowRight") tell(event.shiftKey ? { do: "run" } : { do: "step", by: 1 });
    else if (event.key === "ArrowLeft") tell(event.shiftKey ? { do: "run", back: true } : { do: "step", by: -1 });
    else if (event.key === "ArrowDown") tell({ do: "step", by: 1 });
    else if (event.key === "ArrowUp") tell({ do: "step", by: -1 });
    else if (event.key === "Home") tell({ do: "to", step: 0 });
    else if (event.key === "End") tell({ do: "to", step: state.count });
    else if (event.key === "p" || event.key === " ") toggle();
    else return false;
    return true;
  });
  return () => { clearInterval(playing); off(); };
}

export default { render };
