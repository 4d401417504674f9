// A conversation: a waterfall whose lines are events, who caused whom as a picture, and the event at hand.

function render({ model, el }) {
  let state = {};
  const tell = (what) => model.send(what);
  const bar = make("div", { class: "elv-bar" }, button("Cause", "←: to what caused it", () => tell({ do: "cause" })),
    button("Effect", "→: to what it caused", () => tell({ do: "effect" })), button("Refresh", "R: the log as it is now", () => tell({ do: "refresh" })));
  const list = make("div", { class: "elv-fall", role: "listbox", tabindex: "0", "aria-label": "events of the conversation" });
  const detail = make("div", { class: "elv-detail", "aria-label": "the event at hand" });
  const graph = make("img", { alt: "who caused whom; the waterfall says the same", style: "max-width: 100%; padding: 6px 8px; box-sizing: border-box" });
  const [status, say] = speaker();

  function draw(told) {
    state = told;
    list.replaceChildren(...state.rows.map((row, at) => {
      const line = make("span", { class: "elv-line" }, make("span", { text: row.command ? "■" : "●", style: `left: calc(${(row.share * 100).toFixed(2)}% - ${(row.share * 0.9).toFixed(2)}em)` }));
      const said = [row.gap ? "a wait before it" : "", row.command ? "caused from outside" : ""].filter(Boolean).join("; ");
      return make("div", { class: "elv-fallen", role: "option", "aria-selected": String(at === state.at), onclick: () => tell({ do: "to", at }) },
        make("span", { text: row.position.toLocaleString("en") }), line, make("span", { text: row.after }),
        make("span", { text: `${"\u2003".repeat(Math.min(row.depth, 8))}${row.depth ? "↳ " : ""}${row.type}`, title: row.type }),
        make("span", { text: row.stream, title: row.stream }), make("span", { text: row.actor }), make("span", { text: said }));
    }));
    list.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
    graph.src = `data:image/svg+xml,${encodeURIComponent(state.graph)}`;
    detail.replaceChildren(...(state.opened ? [rowsOf(state.opened.about), make("p", { text: "It says:", style: "margin: 6px 0 2px" }), rowsOf(state.opened.fields)] : [make("p", { text: "There is no event." })]));
    say(state.error || state.said, Boolean(state.error));
  }

  return view(model, el, "elv-follow", [bar, make("div", { class: "elv-main" }, list, detail), graph, status], draw, (event) => {
    if (event.key === "ArrowDown" && state.at + 1 < state.rows.length) tell({ do: "to", at: state.at + 1 });
    else if (event.key === "ArrowUp" && state.at > 0) tell({ do: "to", at: state.at - 1 });
    else if (event.key === "Home") tell({ do: "to", at: 0 });
    else if (event.key === "End") tell({ do: "to", at: state.rows.length - 1 });
    else if (event.key === "ArrowLeft") tell({ do: "cause" });
    else if (event.key === "ArrowRight") tell({ do: "effect" });
    else if (event.key === "r") tell({ do: "refresh" });
    else return false;
    return true;
  });
}

export default { render };
