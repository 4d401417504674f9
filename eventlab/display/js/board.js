// The board of an event storming: draws what Python says, and tells Python each gesture. No library, nothing fetched.
//
// Python has the truth: a gesture is a message ({do: "add", ...}), and the answer is a new `state`, drawn note by note. Only a drag
// is drawn before the answer. Text of notes is put as text, never as HTML.

const KEYS = { e: "event", c: "command", a: "actor", g: "aggregate", p: "policy", r: "read_model", s: "system", h: "hotspot", q: "question" };
const HELP = [
  ["E C A G P R S H Q", "a new event, command, actor, aggregate, policy, read model, system, hotspot, question"],
  ["Enter in the entry", "adds it; with Shift it is led to by the selected note"],
  ["arrows", "to the next note in that direction; with Alt, move the note"],
  ["Shift + ← →", "earlier or later on the timeline"],
  ["Enter, double click", "edit the note"],
  ["L, then Enter on another", "connect; or drag the dot of a note onto another"],
  ["Space, Shift + click", "select several"],
  ["X", "put what is selected into a context"],
  ["Delete", "remove what is selected"],
  ["Ctrl + Z, Ctrl + Y", "undo, redo"],
  ["+ − 0", "nearer, farther, as it was"],
  ["Escape", "leave what was begun"],
];
const [WIDE, HIGH] = [132, 84];
const SVG = "http://www.w3.org/2000/svg";

const spoken = (kind) => kind.replace("_", " ");
const broken = (name) => name.replace(/([a-z])([A-Z])/g, "$1\u200b$2");

function render({ model, el }) {
  const look = model.get("look");
  let state = model.get("state");
  const notes = new Map(); // id → {data, node}
  const lines = new Map(); // "a b" → path
  let selected = [];       // ids; the last one has the panel
  let from = null;         // a connection that was begun
  let zoom = 1;
  let wanted = null;       // "made": the note that is made next is selected once it is there
  let pending = 0;         // notes that were asked for and are not there yet

  const tell = (what) => model.send(what);

  // -- the parts of the view

  const entry = make("input", { class: "elb-entry", placeholder: "What happened?", "aria-label": "name of a new note" });
  const kinds = make("select", { "aria-label": "kind of a new note" });
  for (const kind of Object.keys(look)) kinds.append(make("option", { value: kind, text: `${look[kind].letter} ${spoken(kind)}` }));
  kinds.value = "event";
  const button = (text, title, act) => make("button", { type: "button", title, text, onclick: act });
  const undo = button("Undo", "Ctrl + Z", () => tell({ do: "undo" }));
  const redo = button("Redo", "Ctrl + Y", () => tell({ do: "redo" }));
  const reload = button("Reload", "from its file", () => tell({ do: "reload" }));
  const bar = make("div", { class: "elb-bar", role: "toolbar", "aria-label": "board" },
    kinds, entry, button("Add", "Enter", () => add(false)), undo, redo,
    button("Connect", "L", () => connect()), button("Context", "X", () => group()), button("Edit", "Enter", () => edit()),
    button("Remove", "Delete", () => remove()), button("Tidy", "every note where the timeline puts it", () => tell({ do: "tidy" })),
    button("−", "farther", () => scale(zoom / 1.2)), button("+", "nearer", () => scale(zoom * 1.2)),
    reload, button("?", "keys", () => { help.hidden = !help.hidden; }));
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("class", "elb-lines");
  drawing.setAttribute("aria-hidden", "true");
  const marker = document.createElementNS(SVG, "defs");
  const mark = `elb-${Math.random().toString(36).slice(2)}`;
  const arrow = document.createElementNS(SVG, "marker");
  for (const [name, value] of Object.entries({ id: mark, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" })) arrow.setAttribute(name, value);
  const head = document.createElementNS(SVG, "path");
  head.setAttribute("d", "M0 0 8 4 0 8z");
  head.setAttribute("fill", "#888");
  arrow.append(head); marker.append(arrow); drawing.append(marker);
  const contexts = make("div", { class: "elb-contexts", "aria-hidden": "true" });
  const plane = make("div", { class: "elb-plane" }, contexts, drawing);
  const canvas = make("div", { class: "elb-canvas", role: "group", "aria-label": "notes", tabindex: "0" }, plane);
  const panel = make("form", { class: "elb-panel", "aria-label": "the selected note", hidden: "" });
  const help = make("dl", { class: "elb-help", hidden: "" });
  for (const [keys, what] of HELP) help.append(make("dt", { text: keys }), make("dd", { text: what }));
  const status = make("div", { class: "elb-status", role: "status", "aria-live": "polite" });
  const said = make("details", { class: "elb-said" });
  const root = make("div", { class: "elb", "data-lm-suppress-shortcuts": "true" },
    bar, help, make("div", { class: "elb-main" }, canvas, panel), status, said);
  el.append(root);

  // -- drawing what Python says

  function draw() {
    const held = root.getRootNode().activeElement?.closest?.(".elb-note");
    const there = new Set();
    for (const data of state.notes) {
      there.add(data.id);
      const one = notes.get(data.id) ?? create(data.id);
      const before = one.data;
      one.data = data;
      if (JSON.stringify(before) !== JSON.stringify(data)) paint(one);
      if (plane.children[there.size + 1] !== one.node) plane.insertBefore(one.node, plane.children[there.size + 1] ?? null);
    }
    for (const [id, one] of notes) if (!there.has(id)) { one.node.remove(); notes.delete(id); }
    // A node that is put elsewhere, or away, loses the focus, and the keys would go to JupyterLab.
    if (held && root.getRootNode().activeElement !== held) (held.isConnected ? held : canvas).focus({ preventScroll: true });
    selected = selected.filter((id) => there.has(id));
    if (from && !there.has(from)) from = null;
    connectLines();
    outline();
    size();
    undo.disabled = !state.undo;
    redo.disabled = !state.redo;
    reload.hidden = !state.path;
    entry.placeholder = state.notes.length ? "What happened next?" : "What happened? Type it, and press Enter";
    say(state.error || (from ? `from ${named(from)} to …` : `${state.name}: ${state.notes.length} notes`), Boolean(state.error));
    findings();
    mark_();
    if (state.error) pending = 0;
    else if (state.made) pending = Math.max(0, pending - 1);
    // Whoever went on to another note in the meantime stays there.
    const active = root.getRootNode().activeElement;
    if (wanted === "made" && state.made && !active?.closest?.(".elb-note")) { select([state.made]); reveal(state.made, active === canvas); }
    if (!pending) wanted = null;
    if (!panel.hidden && !panel.contains(document.activeElement)) fill();
  }

  function create(id) {
    const kind = make("div", { class: "elb-kind" });
    const name = make("div", { class: "elb-name" });
    const about = make("div", { class: "elb-about" });
    const dot = make("div", { class: "elb-dot", title: "drag onto another note to connect" });
    const node = make("div", { class: "elb-note", tabindex: "-1", role: "button", "data-id": id }, kind, name, about, dot);
    node.addEventListener("pointerdown", (event) => grab(event, id));
    node.addEventListener("dblclick", (event) => { event.stopPropagation(); select([id]); edit(); });
    node.addEventListener("focus", () => { if (!selected.includes(id)) select([id]); });
    const one = { node, kind, name, about, data: null };
    notes.set(id, one);
    return one;
  }

  function paint(one) {
    const { data, node } = one;
    node.style.transform = `translate(${data.x}px, ${data.y}px)`;
    node.style.background = look[data.kind].colour;
    node.className = `elb-note elb-${data.kind}`;
    one.kind.textContent = `${look[data.kind].letter} ${spoken(data.kind)}${data.lane ? ` · ${data.lane}` : ""}`;
    one.name.textContent = broken(data.name);
    one.about.textContent = data.fields.map((of) => of.split(/[:=]/)[0].trim()).join(", ");
    node.title = [data.text, ...data.fields].filter(Boolean).join("\n");
    const leads = data.to.map((id) => state.notes.find((of) => of.id === id)?.name).filter(Boolean);
    node.setAttribute("aria-label", `${spoken(data.kind)} ${data.name}${leads.length ? `, leads to ${leads.join(", ")}` : ""}`);
  }

  function connectLines() {
    const there = new Set();
    for (const { data } of notes.values()) {
      for (const to of data.to) {
        if (!notes.has(to)) continue;
        const key = `${data.id} ${to}`;
        there.add(key);
        if (!lines.has(key)) {
          const path = document.createElementNS(SVG, "path");
          path.setAttribute("marker-end", `url(#${mark})`);
          drawing.append(path);
          lines.set(key, path);
        }
        run(key);
      }
    }
    for (const [key, path] of lines) if (!there.has(key)) { path.remove(); lines.delete(key); }
  }

  function run(key) {
    const [a, b] = key.split(" ").map((id) => notes.get(id).data);
    const [ax, ay, bx, by] = [a.x + WIDE / 2, a.y + HIGH / 2, b.x + WIDE / 2, b.y + HIGH / 2];
    const [dx, dy] = [bx - ax, by - ay];
    const share = Math.min(dx ? WIDE / 2 / Math.abs(dx) : 9, dy ? HIGH / 2 / Math.abs(dy) : 9, 0.5);
    lines.get(key).setAttribute("d", `M${ax + dx * share} ${ay + dy * share}L${bx - dx * share} ${by - dy * share}`);
  }

  function outline() {
    contexts.replaceChildren();
    const boxes = new Map();
    for (const { data } of notes.values()) {
      if (!data.context) continue;
      const box = boxes.get(data.context) ?? [Infinity, Infinity, -Infinity, -Infinity];
      boxes.set(data.context, [Math.min(box[0], data.x), Math.min(box[1], data.y), Math.max(box[2], data.x), Math.max(box[3], data.y)]);
    }
    for (const [name, [x, y, right, low]] of boxes) {
      const box = make("div", { class: "elb-context", text: name });
      Object.assign(box.style, { left: `${x - 10}px`, top: `${y - 18}px`, width: `${right - x + WIDE + 20}px`, height: `${low - y + HIGH + 28}px` });
      contexts.append(box);
    }
  }

  function size() {
    let [right, low] = [0, 0];
    for (const { data } of notes.values()) { right = Math.max(right, data.x); low = Math.max(low, data.y); }
    plane.style.width = `${right + WIDE + 240}px`;
    plane.style.height = `${low + HIGH + 120}px`;
  }

  function findings() {
    const open = said.open;
    said.replaceChildren(make("summary", { text: state.said.length ? `${state.said.length} to look at` : "nothing to say of it" }));
    const list = make("ul");
    for (const one of state.said) {
      const about = state.notes.find((of) => of.name === one.of);
      const go = () => about && reveal(about.id, true);
      list.append(make("li", {}, make("button", { type: "button", text: `${one.code} ${one.said}`, onclick: go }), ` ${one.hint}`));
    }
    said.append(list);
    said.open = open;
  }

  // -- selecting and moving about

  const named = (id) => notes.get(id)?.data.name ?? id;

  function say(text, wrong = false) {
    status.textContent = text;
    status.classList.toggle("elb-wrong", wrong);
  }

  function select(ids) {
    selected = ids;
    mark_();
    if (!panel.hidden) fill();
  }

  function mark_() {
    let first = true;
    for (const [id, { node }] of notes) {
      const is = selected.includes(id);
      node.classList.toggle("elb-selected", is);
      node.classList.toggle("elb-from", id === from);
      node.setAttribute("aria-pressed", String(is));
      // One note is in the order of the Tab key: the last selected, else the first.
      node.tabIndex = id === selected.at(-1) || (!selected.length && first) ? 0 : -1;
      first = false;
    }
    canvas.tabIndex = notes.size ? -1 : 0;
  }

  function reveal(id, focus) {
    const one = notes.get(id);
    if (!one) return;
    if (focus) { select([id]); one.node.focus({ preventScroll: true }); }
    const [x, y] = [one.data.x * zoom, one.data.y * zoom];
    if (x < canvas.scrollLeft) canvas.scrollLeft = x - 20;
    if (x + WIDE * zoom > canvas.scrollLeft + canvas.clientWidth) canvas.scrollLeft = x + WIDE * zoom - canvas.clientWidth + 20;
    if (y < canvas.scrollTop) canvas.scrollTop = y - 20;
    if (y + HIGH * zoom > canvas.scrollTop + canvas.clientHeight) canvas.scrollTop = y + HIGH * zoom - canvas.clientHeight + 20;
  }

  function go(dx, dy) {
    const here = notes.get(selected.at(-1))?.data;
    let best = null, least = Infinity;
    for (const { data } of notes.values()) {
      if (!here) { best = data.id; break; }
      const [x, y] = [data.x - here.x, data.y - here.y];
      const along = x * dx + y * dy, across = Math.abs(x * dy) + Math.abs(y * dx);
      if (along > 0 && along + 2.5 * across < least) { least = along + 2.5 * across; best = data.id; }
    }
    if (best) reveal(best, true);
  }

  function scale(to) {
    zoom = Math.min(2.5, Math.max(0.25, to));
    plane.style.transform = `scale(${zoom})`;
  }

  // -- gestures

  function add(linked, at) {
    const name = entry.value.trim();
    if (!name) { entry.focus(); return; }
    const last = selected.at(-1);
    const what = { do: "add", kind: kinds.value, name };
    // Whoever types fast links to a note that Python has not answered with yet.
    if (linked && (pending || last)) what.from = pending ? "@made" : last;
    if (at) Object.assign(what, at);
    wanted = "made";
    pending += 1;
    entry.value = "";
    place = null;
    tell(what);
  }
  let place = null; // where a double click wants the next note

  function begin(kind) {
    kinds.value = kind;
    entry.focus();
    entry.select();
    say(`a new ${spoken(kind)}: type its name, Enter adds it`);
  }

  function connect(to) {
    if (!from) {
      from = to ?? selected.at(-1) ?? null;
      say(from ? `from ${named(from)} to …: choose a note, Enter` : "select a note first", !from);
    } else if (to && to !== from) {
      tell({ do: "link", id: from, to });
      from = null;
    } else { from = null; say("not connected"); }
    mark_();
  }

  function remove() {
    if (selected.length) tell({ do: "remove", ids: selected });
  }

  function edit() {
    if (!selected.length) { say("select a note first", true); return; }
    panel.hidden = false;
    fill();
    panel.querySelector("[name=name]")?.focus();
  }

  function group() {
    if (!selected.length) { say("select notes first", true); return; }
    panel.hidden = false;
    fill();
    panel.querySelector("[name=context]")?.focus();
  }

  function close() {
    panel.hidden = true;
    notes.get(selected.at(-1))?.node.focus();
  }

  function fill() {
    const data = notes.get(selected.at(-1))?.data;
    panel.replaceChildren();
    if (!data) { panel.hidden = true; return; }
    const row = (label, field) => panel.append(make("label", {}, make("span", { text: label }), field));
    const input = (name, value) => { const field = make("input", { name }); field.value = value ?? ""; return field; };
    const area = (name, value, rows) => { const field = make("textarea", { name, rows }); field.value = value; return field; };
    const context = input("context", data.context);
    if (selected.length > 1) {
      panel.append(make("b", { text: `${selected.length} notes` }));
      row("context", context);
    } else {
      const kind = make("select", { name: "kind" });
      for (const of of Object.keys(look)) kind.append(make("option", { value: of, text: spoken(of) }));
      kind.value = data.kind;
      row("kind", kind);
      row("name", input("name", data.name));
      row("what it means", area("text", data.text, 3));
      row("fields, one a line: due: date = from where", area("fields", data.fields.join("\n"), 5));
      row("context", context);
      row("lane", input("lane", data.lane));
      if (data.kind === "policy") row("within, seconds", input("within", data.within));
      const list = make("ul");
      for (const to of data.to) {
        list.append(make("li", {}, `→ ${named(to)} `, make("button", {
          type: "button", title: "unlink", "aria-label": `no longer lead to ${named(to)}`, text: "×", onclick: () => tell({ do: "unlink", id: data.id, to }),
        })));
      }
      panel.append(list);
    }
    const ids = [...selected];
    panel.onsubmit = (event) => {
      event.preventDefault();
      const told = Object.fromEntries(new FormData(panel));
      tell(ids.length > 1 ? { do: "group", ids, context: told.context } : { do: "change", id: data.id, ...told });
      close();
    };
    panel.append(make("div", { class: "elb-buttons" }, make("button", { type: "submit", text: "Keep" }),
      make("button", { type: "button", text: "Close", onclick: close })));
  }

  function grab(event, id) {
    if (event.button !== 0) return;
    event.stopPropagation();
    const one = notes.get(id);
    if (from && from !== id) { event.preventDefault(); connect(id); return; }
    if (event.shiftKey) { event.preventDefault(); select(selected.includes(id) ? selected.filter((of) => of !== id) : [...selected, id]); return; }
    if (!selected.includes(id)) select([id]);
    else select([...selected.filter((of) => of !== id), id]);
    one.node.focus({ preventScroll: true });
    event.preventDefault();
    if (event.target.classList.contains("elb-dot")) pull(event, id);
    else drag(event, id);
  }

  function drag(event, id) {
    const start = [event.clientX, event.clientY];
    const moving = selected.map((of) => [notes.get(of), notes.get(of).data.x, notes.get(of).data.y]);
    const mine = [...lines.keys()].filter((key) => key.split(" ").some((of) => selected.includes(of)));
    const node = notes.get(id).node;
    let moved = false, due = 0;
    node.setPointerCapture(event.pointerId);
    const onmove = (now) => {
      const [dx, dy] = [(now.clientX - start[0]) / zoom, (now.clientY - start[1]) / zoom];
      if (!moved && Math.hypot(dx, dy) < 4) return;
      moved = true;
      for (const [one, x, y] of moving) {
        one.data = { ...one.data, x: Math.max(0, Math.round(x + dx)), y: Math.max(0, Math.round(y + dy)) };
      }
      due ||= requestAnimationFrame(() => {
        due = 0;
        for (const [one] of moving) one.node.style.transform = `translate(${one.data.x}px, ${one.data.y}px)`;
        for (const key of mine) if (lines.has(key)) run(key);
      });
    };
    const done = () => {
      node.removeEventListener("pointermove", onmove);
      if (moved) tell({ do: "move", to: moving.map(([one]) => [one.data.id, one.data.x, one.data.y]) });
    };
    node.addEventListener("pointermove", onmove);
    node.addEventListener("pointerup", done, { once: true });
    node.addEventListener("pointercancel", done, { once: true });
  }

  function pull(event, id) {
    const node = notes.get(id).node;
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", "elb-pull");
    drawing.append(path);
    node.setPointerCapture(event.pointerId);
    const { x, y } = notes.get(id).data;
    const onmove = (now) => {
      const box = plane.getBoundingClientRect();
      path.setAttribute("d", `M${x + WIDE} ${y + HIGH / 2}L${(now.clientX - box.left) / zoom} ${(now.clientY - box.top) / zoom}`);
    };
    const done = (now) => {
      node.removeEventListener("pointermove", onmove);
      path.remove();
      const under = root.getRootNode().elementsFromPoint(now.clientX, now.clientY).map((of) => of.closest?.(".elb-note")).find(Boolean);
      const to = under?.dataset.id;
      if (to && to !== id && notes.has(to)) tell({ do: "link", id, to });
    };
    node.addEventListener("pointermove", onmove);
    node.addEventListener("pointerup", done, { once: true });
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.target !== canvas && event.target !== plane && event.target !== drawing) return;
    if (!event.shiftKey) select([]);
  });
  canvas.addEventListener("dblclick", (event) => {
    if (event.target.closest(".elb-note")) return;
    const box = plane.getBoundingClientRect();
    place = { x: Math.round((event.clientX - box.left) / zoom - WIDE / 2), y: Math.round((event.clientY - box.top) / zoom - HIGH / 2) };
    begin("event");
  });
  entry.addEventListener("keydown", (event) => {
    if (event.key === "Enter") { event.preventDefault(); add(event.shiftKey, place); }
    if (event.key === "Escape") { place = null; ((!pending && notes.get(selected.at(-1))?.node) || canvas).focus(); }
  });
  panel.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) panel.requestSubmit();
  });
  root.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select");
    event.stopPropagation();
    if (typing) return;
    const key = event.key.toLowerCase();
    const arrows = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] }[key];
    const last = selected.at(-1);
    const onNote = event.target.closest(".elb-note");
    if ((event.ctrlKey || event.metaKey) && key === "z") tell({ do: event.shiftKey ? "redo" : "undo" });
    else if ((event.ctrlKey || event.metaKey) && key === "y") tell({ do: "redo" });
    else if (event.ctrlKey || event.metaKey) return;
    else if (arrows && event.altKey && last) {
      tell({ do: "move", to: selected.map((id) => { const { x, y } = notes.get(id).data; return [id, Math.max(0, x + 22 * arrows[0]), Math.max(0, y + 22 * arrows[1])]; }) });
    } else if (arrows && event.shiftKey && arrows[0] && last) tell({ do: "step", id: last, earlier: arrows[0] < 0 });
    else if (arrows) go(...arrows);
    else if (key === "enter" && onNote) { if (from) connect(onNote.dataset.id); else { select([onNote.dataset.id]); edit(); } }
    else if (key === " " && onNote) { const id = onNote.dataset.id; select(selected.includes(id) && selected.length > 1 ? selected.filter((of) => of !== id) : [...selected.filter((of) => of !== id), id]); }
    else if ((key === "delete" || key === "backspace") && !event.target.closest("button")) remove();
    else if (key === "l") connect(onNote?.dataset.id);
    else if (key === "x") group();
    else if (key === "+" || key === "=") scale(zoom * 1.2);
    else if (key === "-") scale(zoom / 1.2);
    else if (key === "0") scale(1);
    else if (key === "?") help.hidden = !help.hidden;
    else if (key === "escape") { from = null; select([]); say(""); }
    else if (KEYS[key] && !event.altKey) begin(KEYS[key]);
    else return;
    event.preventDefault();
  });

  const changed = () => { state = model.get("state"); draw(); };
  model.on("change:state", changed);
  draw();
  tell({ do: "hello" });
  return () => model.off("change:state", changed);
}

export default { render };
