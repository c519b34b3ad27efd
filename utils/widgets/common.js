/* What every explorer's script begins with. The widget's own file follows in the same module and
   ends in `export default { render }`. Nothing here knows of a kernel or a network.

   Numbers that a test reads stand in the page with 6 significant digits, as `data-value`; what a
   reader sees is shorter. All controls are the browser's own, each with a label. */

/* ---- elements ---- */

const CONTROLS = new Set(["input", "select", "textarea", "button", "summary"]);

/* Make an element: element("p", {class: "x", onclick: f, text: "hi"}, child, ...). */
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "text") node.textContent = value;
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  // JupyterLab would take arrows and letters for its own commands, and move to another cell. It
  // looks for this on what has the focus, not around it.
  if (CONTROLS.has(tag) || "tabindex" in attributes)
    node.setAttribute("data-lm-suppress-shortcuts", "true");
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/* The same for drawings. */
function drawn(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes))
    if (name === "text") node.textContent = value;
    else if (value !== undefined && value !== null) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

let serial = 0;
/* A name that no other element of the page has; labels need one. */
function freshId(stem) {
  serial += 1;
  return `explorer-${stem}-${serial}-${Math.random().toString(36).slice(2, 8)}`;
}

/* The frame of an explorer: a named group, emptied first, since it may be drawn again. */
function frame(el, title) {
  const root = element("div", { class: "explorer", role: "group", "aria-label": title });
  el.replaceChildren(root);
  return root;
}

/* ---- numbers ---- */

/* For tests and for machines: 6 significant digits. */
function exact(x) {
  return Number.isFinite(x) ? String(Number(x.toPrecision(6))) : String(x);
}

/* For readers: so many decimals, a true minus sign, commas from 10,000 on. */
function shown(x, decimals = 2) {
  if (x === -Infinity) return "−∞";
  if (!Number.isFinite(x)) return "–";
  const text = x.toFixed(decimals);
  const [whole, part] = text.replace("-", "").split(".");
  const grouped = whole.length > 4 ? whole.replace(/\B(?=(\d{3})+$)/g, ",") : whole;
  return (Number(text) < 0 ? "−" : "") + grouped + (part ? `.${part}` : "");
}

/* An element that shows a number and carries it for a test. */
function numberIn(tag, x, decimals = 2, attributes = {}) {
  return element(tag, { "data-value": exact(x), text: shown(x, decimals), ...attributes });
}

/* ---- controls: each returns { element, get value, set(value) } ---- */

/* A slider with its number beside it. `show` turns the slider's position into what is shown and
   used, for scales that are not linear: show: (x) => 10 ** x. */
function slider({ label, min, max, step, value, unit = "", decimals = 2, name, show, onchange }) {
  const id = freshId("slider");
  const real = show || ((x) => x);
  const output = element("output", { for: id });
  const input = element("input", { type: "range", id, min, max, step, "data-name": name });
  input.value = value; // after min, max and step, which bound it
  const update = () => {
    const x = real(Number(input.value));
    const text = shown(x, typeof decimals === "function" ? decimals(x) : decimals) + unit;
    output.textContent = text;
    output.dataset.value = exact(x);
    input.setAttribute("aria-valuetext", text);
  };
  input.addEventListener("input", () => {
    update();
    onchange(real(Number(input.value)));
  });
  update();
  return {
    element: element(
      "div",
      { class: "explorer-control explorer-slider" },
      element("label", { for: id, text: label }),
      output,
      input
    ),
    input,
    get value() {
      return real(Number(input.value));
    },
    set(position) {
      input.value = position;
      update();
    },
  };
}

function checkbox({ label, checked = false, name, onchange }) {
  const id = freshId("check");
  const input = element("input", { type: "checkbox", id, "data-name": name });
  input.checked = checked;
  input.addEventListener("change", () => onchange(input.checked));
  return {
    element: element(
      "label",
      { class: "explorer-control explorer-check", for: id },
      input,
      element("span", { text: label })
    ),
    input,
    get value() {
      return input.checked;
    },
    set(on) {
      input.checked = on;
    },
  };
}

/* A list to choose from; options are [value, text] pairs. */
function choice({ label, options, value, name, onchange }) {
  const id = freshId("choice");
  const input = element(
    "select",
    { id, "data-name": name },
    ...options.map(([each, text]) => element("option", { value: each, text }))
  );
  input.value = value;
  input.addEventListener("change", () => onchange(input.value));
  return {
    element: element(
      "div",
      { class: "explorer-control explorer-choice" },
      element("label", { for: id, text: label }),
      input
    ),
    input,
    get value() {
      return input.value;
    },
    set(each) {
      input.value = each;
    },
  };
}

/* A line of text, or several with `rows`. */
function textField({ label, value = "", name, rows = 1, maxlength = 200, onchange }) {
  const id = freshId("text");
  const tag = rows > 1 ? "textarea" : "input";
  const input = element(tag, {
    id,
    maxlength,
    type: rows > 1 ? null : "text",
    rows: rows > 1 ? rows : null,
    spellcheck: "false",
    autocomplete: "off",
    "data-name": name,
  });
  input.value = value;
  input.addEventListener("input", () => onchange(input.value));
  return {
    element: element(
      "div",
      { class: "explorer-control explorer-text" },
      element("label", { for: id, text: label }),
      input
    ),
    input,
    get value() {
      return input.value;
    },
    set(text) {
      input.value = text;
    },
  };
}

function button({ label, name, title, onclick }) {
  return element("button", {
    type: "button",
    class: "explorer-button",
    "data-name": name,
    title,
    text: label,
    onclick,
  });
}

/* One of several, as a row of words: radio buttons, so that click, touch and arrow keys work.
   `update(labels, chosen)` replaces the words, and the focus stays in the row. */
function chooser({ legend, name, onchange }) {
  const group = freshId("chooser");
  const row = element("div", { class: "explorer-chips" });
  const box = element(
    "fieldset",
    { class: "explorer-chooser", "data-name": name },
    element("legend", { text: legend }),
    row
  );
  let inputs = [];
  return {
    element: box,
    update(labels, chosen) {
      const focused = row.contains(document.activeElement);
      inputs = [];
      row.replaceChildren(
        ...labels.map((label, index) => {
          const input = element("input", { type: "radio", name: group, value: String(index) });
          input.checked = index === chosen;
          input.addEventListener("change", () => onchange(index));
          inputs.push(input);
          return element("label", { class: "explorer-chip" }, input, element("span", { text: label }));
        })
      );
      if (focused && inputs[chosen]) inputs[chosen].focus();
    },
    choose(index) {
      inputs.forEach((input, each) => (input.checked = each === index));
    },
  };
}

/* What a screen reader says after a change, and everybody may read: one sentence. It waits until
   the reader's hand rests, so that a dragged slider is not read out at every step. */
function liveRegion() {
  const region = element("p", { class: "explorer-says", role: "status", "aria-live": "polite" });
  let timer;
  return {
    element: region,
    say(text, now = false) {
      clearTimeout(timer);
      if (now) region.textContent = text;
      else timer = setTimeout(() => (region.textContent = text), 250);
    },
  };
}

/* ---- colours: their own ground, so they read on light and dark pages ---- */

const VIRIDIS = [
  [68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
  [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37],
];
/* Blue for less than zero, pale for zero, vermillion for more: Okabe and Ito's. */
const DIVERGING = [[0, 114, 178], [126, 180, 214], [246, 246, 242], [234, 160, 118], [213, 94, 0]];

/* The colour at a fraction from 0 to 1 of a scale, as [red, green, blue]. */
function colourAt(scale, fraction) {
  const at = Math.min(1, Math.max(0, fraction)) * (scale.length - 1);
  const low = Math.min(Math.floor(at), scale.length - 2);
  return scale[low].map((c, i) => Math.round(c + (at - low) * (scale[low + 1][i] - c)));
}

/* Black or white, whichever is easier to read on a colour (WCAG 2's relative luminance). */
function inkOn(rgb) {
  const [r, g, b] = rgb
    .map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
}

function paint(cell, scale, fraction) {
  const rgb = colourAt(scale, fraction);
  cell.style.backgroundColor = `rgb(${rgb.join(", ")})`;
  cell.style.color = inkOn(rgb);
}

/* ---- pictures ---- */

/* A matrix as a table of coloured cells, which a screen reader can walk through.
   rows, columns: names; values: an array of rows, where null or -Infinity is a hidden cell;
   low, high: the ends of the colour scale, null for no colours; chosen: a row to outline;
   onchoose(row): its name becomes a button. The table scrolls within its own box. */
function heatmap({
  caption, rows, columns, values, low = 0, high = 1, scale = VIRIDIS, decimals = 2,
  chosen, onchoose, corner = "",
}) {
  const head = element(
    "tr",
    {},
    element(corner ? "th" : "td", { scope: corner ? "col" : null, text: corner }),
    ...columns.map((name) => element("th", { scope: "col", text: name }))
  );
  const body = values.map((row, index) => {
    const name = onchoose
      ? element("button", { type: "button", tabindex: "-1", text: rows[index], onclick: () => onchoose(index) })
      : document.createTextNode(rows[index]);
    return element(
      "tr",
      { class: index === chosen ? "chosen" : null },
      element("th", { scope: "row" }, name),
      ...row.map((x) => {
        if (x === null || x === -Infinity)
          return element("td", { class: "hidden", "data-value": "hidden", text: "·", title: "hidden by the mask" });
        const cell = numberIn("td", x, decimals);
        if (scale) paint(cell, scale, (x - low) / (high - low));
        return cell;
      })
    );
  });
  return element(
    "div",
    { class: "explorer-picture" },
    element("p", { class: "explorer-caption", "aria-hidden": "true", text: caption }),
    element(
      "div",
      { class: "explorer-scroll", tabindex: "0", role: "region", "aria-label": caption },
      element(
        "table",
        { class: "explorer-heat", "aria-label": caption },
        element("thead", {}, head),
        element("tbody", {}, ...body)
      )
    )
  );
}

/* Columns and rows of colour, too many for a table: value(row, column) from low to high.
   marks: [[column, kind], ...] draws upright lines, which explorer.css colours by their kind;
   chosen: a row to outline. */
function pattern({
  alt, rows, columns, value, low = -1, high = 1, scale = VIRIDIS, marks = [], chosen,
}) {
  const canvas = element("canvas", { width: columns, height: rows, role: "img", "aria-label": alt });
  const pixels = canvas.getContext("2d").createImageData(columns, rows);
  for (let row = 0; row < rows; row += 1)
    for (let column = 0; column < columns; column += 1) {
      const rgb = colourAt(scale, (value(row, column) - low) / (high - low));
      pixels.data.set([...rgb, 255], 4 * (row * columns + column));
    }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  const lines = marks.map(([column, kind]) => {
    const line = element("span", { class: `explorer-mark ${kind}` });
    line.style.left = `${(100 * (column + 0.5)) / columns}%`;
    return line;
  });
  if (chosen !== undefined) {
    const outline = element("span", { class: "explorer-outline" });
    outline.style.top = `${(100 * chosen) / rows}%`;
    outline.style.height = `${100 / rows}%`;
    lines.push(outline);
  }
  return element("div", { class: "explorer-pattern" }, canvas, ...lines);
}

/* A curve over 0, 1, 2, ..., with a dot at one place. The names stand beside it in the page's own
   letters, so that they stay legible at any width. */
function lineChart({ alt, values, mark, low, high, xName, yName, decimals = 1 }) {
  const last = values.length - 1;
  const x = (i) => ((100 * i) / last).toFixed(2);
  const y = (value) => (100 - (100 * (value - low)) / (high - low)).toFixed(2);
  const svg = drawn(
    "svg",
    { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img", "aria-label": alt },
    ...(low < 0 && high > 0 ? [drawn("path", { class: "zero", d: `M0 ${y(0)}H100` })] : []),
    drawn("path", { class: "at", d: `M${x(mark)} 0V100` }),
    drawn("path", { class: "curve", d: `M${values.map((v, i) => `${x(i)} ${y(v)}`).join("L")}` }),
    drawn("path", { class: "dot", d: `M${x(mark)} ${y(values[mark])}h0` })
  );
  const name = (kind, text) => element("span", { class: kind, text, "aria-hidden": "true" });
  return element(
    "div",
    { class: "explorer-chart" },
    name("y-name", yName),
    name("y-high", shown(high, decimals)),
    name("y-low", shown(low, decimals)),
    svg,
    name("x-low", "0"),
    name("x-name", xName),
    name("x-high", String(last))
  );
}

/* A bar of a fraction from 0 to 1; the number stands beside it, so it needs no name. */
function bar(fraction, kind = "") {
  const inside = element("span", { class: "explorer-bar-fill " + kind });
  inside.style.width = `${Math.max(0, Math.min(1, fraction)) * 100}%`;
  return element("span", { class: "explorer-bar", "aria-hidden": "true" }, inside);
}

/* ---- mathematics that several explorers need ---- */

/* Weights from scores, as utils.attention.softmax: minus infinity gets none, and a row of nothing
   but minus infinity is all zero. */
function softmax(scores) {
  const highest = Math.max(...scores);
  if (highest === -Infinity) return scores.map(() => 0);
  const exponentials = scores.map((x) => Math.exp(x - highest));
  const total = exponentials.reduce((sum, x) => sum + x, 0);
  return exponentials.map((x) => x / total);
}

function dot(a, b) {
  return a.reduce((sum, x, i) => sum + x * b[i], 0);
}

/* The array that `pack` of base.py has written: rows of numbers if it has two axes. */
function unpack({ shape, step, int16 }) {
  const bytes = Uint8Array.from(atob(int16), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const flat = Array.from({ length: bytes.length / 2 }, (_, i) => view.getInt16(2 * i, true) * step);
  if (shape.length === 1) return flat;
  const width = shape[1];
  return Array.from({ length: shape[0] }, (_, row) => flat.slice(row * width, (row + 1) * width));
}

function add(...vectors) {
  return vectors[0].map((_, i) => vectors.reduce((sum, vector) => sum + vector[i], 0));
}

/* A row vector times a matrix. */
function times(vector, matrix) {
  return matrix[0].map((_, column) => vector.reduce((sum, x, row) => sum + x * matrix[row][column], 0));
}

/* ---- for explorers that go through steps or show a few results ---- */

/* A slider over the steps 0 to count, with a button on either side. Arrow keys step on the buttons
   as they do on the slider; the buttons stay enabled at the ends, where a disabled one would drop
   the keyboard's focus. describe(step) is what is shown and read out beside the label. */
function stepper({ label, name, back, next, describe, onchange }) {
  let count = 0;
  const id = freshId("stepper");
  const output = element("output", { for: id });
  const input = element("input", { type: "range", id, min: 0, max: 0, step: 1, "data-name": name });
  const show = () => {
    const step = Number(input.value);
    output.textContent = describe(step, count);
    output.dataset.value = String(step);
    input.setAttribute("aria-valuetext", output.textContent);
    buttons[0].setAttribute("aria-disabled", String(step === 0));
    buttons[1].setAttribute("aria-disabled", String(step === count));
  };
  const go = (step) => {
    const before = input.value;
    input.value = Math.min(count, Math.max(0, step));
    show();
    if (input.value !== before) onchange(Number(input.value));
  };
  const by = (change) => go(Number(input.value) + change);
  const buttons = [
    button({ label: back, name: `${name}-back`, onclick: () => by(-1) }),
    button({ label: next, name: `${name}-next`, onclick: () => by(1) }),
  ];
  const keys = {
    ArrowLeft: () => by(-1),
    ArrowRight: () => by(1),
    Home: () => go(0),
    End: () => go(count),
  };
  for (const each of buttons)
    each.addEventListener("keydown", (event) => {
      if (!keys[event.key] || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      keys[event.key]();
    });
  input.addEventListener("input", () => {
    show();
    onchange(Number(input.value));
  });
  return {
    element: element(
      "div",
      { class: "explorer-stepper" },
      element(
        "div",
        { class: "explorer-control explorer-slider" },
        element("label", { for: id, text: label }),
        output,
        input
      ),
      element("div", { class: "explorer-buttons" }, ...buttons)
    ),
    get value() {
      return Number(input.value);
    },
    /* Offer another number of steps, and go to one of them; nobody is told. */
    update(newCount, step) {
      count = newCount;
      input.max = count;
      input.value = step;
      show();
    },
  };
}

/* A few results, each a number under its name: [{ name, label, value, decimals, unit }]. */
function facts(list) {
  return element(
    "div",
    { class: "explorer-facts" },
    ...list.map(({ name, label, value, decimals = 2, unit = "" }) =>
      element(
        "p",
        {},
        element("span", { text: `${label} ` }),
        element("b", { "data-name": name, "data-value": exact(value), text: shown(value, decimals) + unit })
      )
    )
  );
}

/* Gaussian numbers that depend on the name alone; random_vector in base.py explains. */
function randomVector(name, width) {
  let state = 2166136261;
  for (const byte of new TextEncoder().encode(name)) state = Math.imul(state ^ byte, 16777619);
  state = state >>> 0 || 1;
  const uniform = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return (state + 0.5) / 4294967296;
  };
  const numbers = [];
  while (numbers.length < width) {
    const radius = Math.sqrt(-2 * Math.log(uniform()));
    const angle = 2 * Math.PI * uniform();
    numbers.push(radius * Math.cos(angle), radius * Math.sin(angle));
  }
  return numbers.slice(0, width);
}

function norm(vector) {
  return Math.sqrt(dot(vector, vector));
}
