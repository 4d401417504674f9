// What every live view begins with: nodes whose text is text, and a root that keeps its keys from JupyterLab.

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "text") node.textContent = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const button = (text, title, act) => make("button", { type: "button", title, text, onclick: act });

// A status line: what was wrong is said there, and read out.
function speaker() {
  const node = make("div", { class: "elv-status", role: "status", "aria-live": "polite" });
  return [node, (text, wrong = false) => { node.textContent = text; node.classList.toggle("elv-wrong", wrong); }];
}

// A view under `el`, drawn again when Python says something new; `keys` hears what is typed outside of fields.
function view(model, el, name, parts, draw, keys) {
  const root = make("div", { class: `elv ${name}`, "data-lm-suppress-shortcuts": "true", tabindex: "-1" }, ...parts);
  el.append(root);
  root.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.target.closest("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("button") && (event.key === "Enter" || event.key === " ")) return;
    if (keys(event)) event.preventDefault();
  });
  const changed = () => draw(model.get("state"));
  model.on("change:state", changed);
  changed();
  model.send({ do: "hello" });
  return () => model.off("change:state", changed);
}

function rowsOf(pairs) {
  const table = make("table", { class: "elv-pairs" });
  for (const [name, ...values] of pairs) {
    table.append(make("tr", {}, make("th", { scope: "row", text: name }), ...values.map((value) => make("td", { text: value }))));
  }
  return table;
}
