/* The explorer of positions. First the mathematics, which knows nothing of the page. */

/* ω_i = base^(-2i/C), one for each pair, as utils.positions.rope_angles has them. */
function frequencies(width, base) {
  return Array.from({ length: width / 2 }, (_, i) => base ** ((-2 * i) / width));
}

/* Pairs of a sine and a cosine: row `position` of utils.positions.sinusoidal. */
function sinusoid(position, width, base) {
  return frequencies(width, base).flatMap((w) => [Math.sin(w * position), Math.cos(w * position)]);
}

/* Turn the pair (i, i + D/2) by ω_i times the position, as utils.positions.rope_rotate. */
function turned(vector, position, base) {
  const half = vector.length / 2;
  const result = Array(vector.length);
  frequencies(vector.length, base).forEach((w, i) => {
    const [cos, sin] = [Math.cos(w * position), Math.sin(w * position)];
    result[i] = vector[i] * cos - vector[i + half] * sin;
    result[i + half] = vector[i] * sin + vector[i + half] * cos;
  });
  return result;
}

/* A query and a key of length 1: unit_pair in positions.py. */
function unitPair(width, kind) {
  const pair =
    kind === "alike"
      ? [Array(width).fill(1), Array(width).fill(1)]
      : [randomVector("query", width), randomVector("key", width)];
  return pair.map((vector) => vector.map((x) => x / norm(vector)));
}

/* ALiBi's slopes, as utils.positions.alibi_slopes. */
function slopesOf(heads) {
  const smaller = 2 ** Math.floor(Math.log2(heads));
  const slopes = Array.from({ length: smaller }, (_, i) => 2 ** ((-8 * (i + 1)) / smaller));
  for (let i = 1; slopes.length < heads; i += 2) slopes.push(2 ** ((-4 * i) / smaller));
  return slopes;
}

/* What a query at `query` and a key at `key` have to do with each other. */
function productOf(settings, query, key) {
  const { encoding, width, base, kind } = settings;
  if (encoding === "sinusoidal") return dot(sinusoid(query, width, base), sinusoid(key, width, base));
  if (encoding === "RoPE") {
    const [q, k] = unitPair(width, kind);
    return dot(turned(q, query, base), turned(k, key, base));
  }
  return -slopesOf(settings.heads)[settings.head - 1] * Math.abs(query - key);
}

/* ---- the page ---- */

const FAR = 1000; // how far on the same pair is looked at once more
const CLOCKS = 8;

const ABOUT = {
  sinusoidal:
    "Each position has a vector of waves, fast ones first, which is added to the token's embedding.",
  RoPE: "Queries and keys are turned, pair by pair, by an angle in proportion to their position. Here the key stands at t, the query at t + k, and both have length 1.",
  ALiBi: "Each head subtracts its own slope times the distance from the score. Here the key stands at t, the query at t + k.",
};

function render({ model, el }) {
  const data = model.get("data");
  const settings = {
    encoding: data.encoding,
    position: data.position,
    offset: data.offset,
    width: data.width,
    base: data.base,
    kind: "alike",
    heads: data.heads,
    head: 1,
  };
  const root = frame(el, "Explorer of positions");
  const says = liveRegion();
  const change = (name) => (value) => {
    settings[name] = value;
    update();
  };
  const whole = (name, label, min, max, step = 1) =>
    slider({ label, name, min, max, step, value: settings[name], decimals: 0, onchange: change(name) });
  const controls = {
    encoding: choice({
      label: "Encoding",
      name: "encoding",
      options: data.encodings,
      value: settings.encoding,
      onchange: change("encoding"),
    }),
    position: whole("position", "Position t of the first token", 0, data.farthest),
    offset: whole("offset", "Offset k to the second", 0, data.apart),
    width: whole("width", "Width d", 2, data.widest, 2),
    base: slider({
      label: "Base",
      name: "base",
      min: 0.5,
      max: 6,
      step: 0.25,
      value: Math.log10(settings.base),
      decimals: (x) => (x < 100 ? 1 : 0),
      show: (x) => 10 ** x,
      onchange: change("base"),
    }),
    kind: choice({
      label: "Query and key",
      name: "kind",
      options: [
        ["alike", "equal in every component"],
        ["random", "two random vectors"],
      ],
      value: settings.kind,
      onchange: change("kind"),
    }),
    heads: whole("heads", "Number of heads H", 1, data.mostHeads),
    head: whole("head", "Head h", 1, data.mostHeads),
  };
  settings.base = controls.base.value; // the nearest of the slider's steps
  const about = element("p", { class: "explorer-note" });
  const panels = element("div", { class: "position-panels" });
  root.append(
    element("div", { class: "explorer-controls" }, ...Object.values(controls).map((c) => c.element)),
    about,
    says.element,
    panels
  );

  function update() {
    const alibi = settings.encoding === "ALiBi";
    controls.width.element.hidden = controls.base.element.hidden = alibi;
    controls.kind.element.hidden = settings.encoding !== "RoPE";
    controls.heads.element.hidden = controls.head.element.hidden = !alibi;
    controls.head.input.max = settings.heads;
    controls.head.set(Math.min(settings.head, settings.heads));
    settings.head = controls.head.value;
    about.textContent = ABOUT[settings.encoding];
    const products = Array.from({ length: data.apart + 1 }, (_, k) => productOf(settings, k, 0));
    panels.replaceChildren(
      element("div", {}, samePlaces(), chart(products)),
      element("div", {}, ...(alibi ? fines() : waves()))
    );
    says.say(summary(products), !says.element.textContent);
  }

  const nameOf = { sinusoidal: "PE(t) · PE(t + k)", RoPE: "Query · key", ALiBi: "The fine" };

  /* The same distance at three places, and the formula without any place in it. */
  function samePlaces() {
    const { position: t, offset: k, encoding, width, base } = settings;
    const row = (words, value, name) =>
      element(
        "tr",
        {},
        element("th", { scope: "row", text: words }),
        numberIn("td", value, 4, { "data-name": name })
      );
    const rows = [
      row(`at ${t} and ${t + k}`, productOf(settings, t + k, t), "here"),
      row(`at 0 and ${k}`, productOf(settings, k, 0), "start"),
      row(`at ${t + FAR} and ${t + FAR + k}`, productOf(settings, t + FAR + k, t + FAR), "far"),
    ];
    const cosines = frequencies(width, base).reduce((sum, w) => sum + Math.cos(w * k), 0);
    if (encoding === "sinusoidal") rows.push(row("sum of all cos(ω k)", cosines, "formula"));
    if (encoding === "RoPE" && settings.kind === "alike")
      rows.push(row("mean of all cos(ω k)", (2 * cosines) / width, "formula"));
    if (encoding === "RoPE" && settings.kind === "random")
      rows.push(row("not turned at all", dot(...unitPair(width, "random")), "formula"));
    if (encoding === "ALiBi") {
      const slope = slopesOf(settings.heads)[settings.head - 1];
      rows.push(row(`slope m of head ${settings.head}`, slope, "slope"));
      rows.push(row("so the weight is multiplied by", Math.exp(-slope * k), "factor"));
    }
    return element(
      "div",
      {},
      element("h4", { text: `${nameOf[encoding]}, at the same offset` }),
      element("table", { class: "position-same" }, element("tbody", {}, ...rows))
    );
  }

  function chart(products) {
    const alibi = settings.encoding === "ALiBi";
    // What a head listens to if all dot products are equal: nearest key first.
    const values = alibi ? softmax(products) : products;
    const most = Math.max(...values.map(Math.abs));
    const high = alibi ? most : settings.encoding === "sinusoidal" ? settings.width / 2 : most > 0.5 ? 1 : 0.5;
    const low = alibi ? 0 : settings.encoding === "sinusoidal" ? -high / 2 : -high;
    const what = alibi ? "Weight, were all dot products equal" : nameOf[settings.encoding];
    const chart = lineChart({
      alt: `${what} for offsets from 0 to ${data.apart}; at ${settings.offset} it is ${shown(values[settings.offset], 3)}.`,
      values,
      mark: settings.offset,
      low,
      high,
      xName: alibi ? "distance" : "offset k",
      yName: what,
      decimals: alibi ? 2 : high < 1 ? 1 : 0,
    });
    chart.dataset.name = "curve";
    chart.dataset.values = values.map(exact).join(" ");
    return chart;
  }

  /* Clocks and the whole pattern, for sinusoids and rotations. */
  function waves() {
    const { position: t, offset: k, width, base, encoding } = settings;
    const omega = frequencies(width, base);
    const columns = data.farthest + data.apart + 1;
    const sines = encoding === "sinusoidal";
    const rows = sines ? width : width / 2;
    const value = sines
      ? (row, at) => (row % 2 ? Math.cos : Math.sin)(omega[Math.floor(row / 2)] * at)
      : (row, at) => Math.cos(omega[row] * at);
    const what = sines ? "components of PE" : "cosine of each pair's angle";
    const vectors = [t, t + k].map((at) => sinusoid(at, width, base));
    const pairs = Math.min(CLOCKS, omega.length);
    const chosen = Array.from({ length: pairs }, (_, i) =>
      pairs === 1 ? 0 : Math.round((i * (omega.length - 1)) / (pairs - 1))
    );
    return [
      element("h4", { text: `Clocks: a long hand for position ${t}, a short one for ${t + k}` }),
      element("p", { class: "explorer-note", text: "Below each clock, the number of tokens in which it goes once round." }),
      element("div", { class: "position-clocks" }, ...chosen.map((i) => clock(i, omega[i]))),
      element("h4", { text: `${what[0].toUpperCase()}${what.slice(1)} at positions 0 to ${columns - 1}` }),
      pattern({
        alt: `The ${what} for every position: rows at the top alternate quickly, those at the bottom slowly or not at all.`,
        rows,
        columns,
        value,
        marks: [
          [t, "first"],
          [t + k, "second"],
        ],
      }),
      element("div", { class: "explorer-axis", "aria-hidden": "true" }, element("span", { text: "0" }), element("span", { text: "position" }), element("span", { text: String(columns - 1) })),
      element(
        "details",
        { class: "explorer-details" },
        element("summary", { text: "Sines and cosines as numbers" }),
        heatmap({
          caption: `The first ${Math.min(16, width)} of ${width} numbers: sine and cosine of each pair in turn`,
          rows: [`at ${t}`, `at ${t + k}`],
          columns: vectors[0].slice(0, 16).map((_, i) => (i % 2 ? "cos " : "sin ") + Math.floor(i / 2)),
          values: vectors.map((vector) => vector.slice(0, 16)),
          low: -1,
          high: 1,
          scale: DIVERGING,
        })
      ),
    ];
  }

  function clock(i, w) {
    const { position: t, offset: k } = settings;
    const hand = (at, kind, length) =>
      drawn("path", {
        class: kind,
        d: `M50 50L${(50 + length * Math.cos(w * at)).toFixed(1)} ${(50 - length * Math.sin(w * at)).toFixed(1)}`,
      });
    const period = (2 * Math.PI) / w;
    const name = `pair ${i}`;
    return element(
      "figure",
      { class: "position-clock" },
      drawn(
        "svg",
        {
          viewBox: "0 0 100 100",
          role: "img",
          "aria-label": `${name}: once round in ${shown(period, 0)} tokens`,
        },
        drawn("circle", { cx: 50, cy: 50, r: 46 }),
        hand(t + k, "second", 26),
        hand(t, "first", 42)
      ),
      element("figcaption", {}, name, element("br"), shown(period, period < 100 ? 1 : 0))
    );
  }

  /* All heads' fines, as what is left of a weight. */
  function fines() {
    const slopes = slopesOf(settings.heads);
    return [
      element("h4", { text: `What is left of a weight at distances 0 to ${data.apart}, head by head` }),
      pattern({
        alt: `A row for each of ${settings.heads} heads: the factor exp(-m d) falls within a few tokens in the heads with large slopes and hardly at all in those with small ones.`,
        rows: slopes.length,
        columns: data.apart + 1,
        value: (row, distance) => Math.exp(-slopes[row] * distance),
        low: 0,
        high: 1,
        marks: [[settings.offset, "second"]],
        chosen: settings.head - 1,
      }),
      element("div", { class: "explorer-axis", "aria-hidden": "true" }, element("span", { text: "0" }), element("span", { text: "distance" }), element("span", { text: String(data.apart) })),
      heatmap({
        caption: "Slope of each head, and the distance at which the weight has halved (tokens)",
        rows: ["slope", "halved at"],
        columns: slopes.map((_, i) => `head ${i + 1}`),
        values: [slopes, slopes.map((m) => Math.LN2 / m)],
        scale: null,
        decimals: 3,
      }),
    ];
  }

  function summary(products) {
    const { encoding, position: t, offset: k, head } = settings;
    const value = shown(products[k], 3);
    if (encoding === "ALiBi")
      return `Head ${head} takes ${shown(-products[k], 3)} off the score of a key ${k} tokens back, wherever the two stand.`;
    return `${nameOf[encoding]} is ${value} for tokens at ${t} and ${t + k}, and for any other two that are ${k} apart.`;
  }

  update();
}

export default { render };
