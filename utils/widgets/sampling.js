/* The sampling playground: see sampling.py. */

/* ---- as in utils/generate.py ---- */

/* Divide by the temperature; 0 leaves the likeliest token alone, the first of several. */
function temper(logits, temperature) {
  if (temperature > 0) return logits.map((x) => x / temperature);
  const best = logits.indexOf(Math.max(...logits));
  return logits.map((_, i) => (i === best ? 0 : -Infinity));
}

/* The k likeliest tokens, and all that tie with the last of them. */
function keepTopK(logits, k) {
  const smallest = [...logits].sort((a, b) => b - a)[Math.min(k, logits.length) - 1];
  return logits.map((x) => (x < smallest ? -Infinity : x));
}

/* The smallest set of likeliest tokens whose probabilities reach p. */
function keepTopP(logits, p) {
  if (p === 1) return logits;
  const order = likeliestFirst(logits);
  const probs = softmax(order.map((i) => logits[i]));
  const kept = logits.map(() => -Infinity);
  let covered = 0;
  order.forEach((token, place) => {
    covered += probs[place];
    if (place === 0 || covered - probs[place] < p) kept[token] = logits[token];
  });
  return kept;
}

function likeliestFirst(logits) {
  return logits.map((_, i) => i).sort((a, b) => logits[b] - logits[a] || a - b);
}

function entropy(probs) {
  return -probs.reduce((sum, p) => (p > 0 ? sum + p * Math.log(p) : sum), 0);
}

/* Lay the probabilities end to end, and see where a number from 0 to 1 falls. */
function tokenAt(probs, point) {
  let covered = 0;
  for (const [token, p] of probs.entries()) {
    covered += p;
    if (p > 0 && point < covered) return token;
  }
  return probs.findLastIndex((p) => p > 0); // rounding has left the sum just below 1
}

/* Random numbers in [0, 1), the same for the same seed: "mulberry32", Tommy Ettinger's, in the
   public domain. */
function generatorOf(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/* Half the sum of the absolute differences: 0 for equal distributions, 1 for disjoint ones. */
function totalVariation(p, q) {
  return p.reduce((sum, x, i) => sum + Math.abs(x - q[i]), 0) / 2;
}

/* ---- the page ---- */

const ROWS = 12; // tokens with a row of their own
const MOST_DRAWS = 100000;

function visible(text) {
  return text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥");
}

function render({ model, el }) {
  const { contexts, tokens, ...start } = model.get("data");
  const logits = unpack(start.logits);
  const V = tokens.length;
  const root = frame(el, "Sampling playground");
  const state = {
    context: 0, temperature: start.temperature, topK: start.top_k, topP: start.top_p, seed: 0,
  };
  let before, after, order, random, counts, draws, lastPoint, lastToken;

  const controls = [
    choice({
      label: "The text so far", name: "context", value: 0,
      options: contexts.map((text, i) => [i, visible(text)]),
      onchange: (i) => change({ context: Number(i) }),
    }),
    slider({
      label: "Temperature", name: "temperature", min: 0, max: 3, step: 0.1, value: state.temperature,
      decimals: 1, onchange: (x) => change({ temperature: x }),
    }),
    slider({
      label: "Top-k", name: "top-k", min: 1, max: V, step: 1, value: state.topK,
      decimals: 0, onchange: (x) => change({ topK: x }),
    }),
    slider({
      label: "Top-p", name: "top-p", min: 0.05, max: 1, step: 0.05, value: state.topP,
      onchange: (x) => change({ topP: x }),
    }),
    slider({
      label: "Seed of the draws", name: "seed", min: 0, max: 20, step: 1, value: 0, decimals: 0,
      onchange: (x) => change({ seed: x }),
    }),
  ];
  const numbers = element("div");
  const strip = element("div", { class: "explorer-strip", "aria-hidden": "true" });
  const table = element("div", {
    class: "explorer-scroll", tabindex: "0", role: "region", "aria-label": "Probabilities and draws",
  });
  const drawing = element(
    "div",
    { class: "explorer-buttons" },
    button({ label: "Draw 1", name: "draw-1", onclick: () => draw(1) }),
    button({ label: "Draw 100", name: "draw-100", onclick: () => draw(100) }),
    button({ label: "Draw 10,000", name: "draw-10000", onclick: () => draw(10000) }),
    button({ label: "Start again", name: "again", onclick: () => change({}) })
  );
  const says = liveRegion();

  function change(settings) {
    Object.assign(state, settings);
    const row = logits[state.context];
    const tempered = temper(row, state.temperature);
    const kept = keepTopP(keepTopK(tempered, state.topK), state.topP);
    before = softmax(row);
    after = softmax(kept);
    order = likeliestFirst(row);
    random = generatorOf(state.seed);
    [counts, draws, lastPoint, lastToken] = [tokens.map(() => 0), 0, null, null];
    const probs = softmax(tempered);
    state.mass = probs.reduce((sum, p, i) => (kept[i] > -Infinity ? sum + p : sum), 0);
    state.kept = kept.filter((x) => x > -Infinity).length;
    show();
    const best = after.indexOf(Math.max(...after));
    says.say(
      `${state.kept} of ${V} tokens can come; the likeliest, ${visible(tokens[best])}, with ` +
        `probability ${shown(after[best])}.`,
      !says.element.textContent
    );
  }

  function draw(times) {
    for (let i = 0; i < times && draws < MOST_DRAWS; i += 1) {
      lastPoint = random();
      lastToken = tokenAt(after, lastPoint);
      counts[lastToken] += 1;
      draws += 1;
    }
    show();
    const full = draws === MOST_DRAWS ? " That is the most it does." : "";
    says.say(
      `The last of ${draws === 1 ? "1 draw" : draws + " draws"}: ${shown(lastPoint, 4)} falls on ` +
        `${visible(tokens[lastToken])}.${full}`,
      true
    );
  }

  function show() {
    const shares = counts.map((n) => n / draws);
    numbers.replaceChildren(
      facts([
        { name: "kept", label: "tokens that can come", value: state.kept, decimals: 0 },
        { name: "mass", label: "mass kept by the cuts", value: state.mass },
        { name: "entropy-before", label: "entropy, the model's", value: entropy(before), unit: " nats" },
        { name: "entropy-after", label: "entropy, reshaped", value: entropy(after), unit: " nats" },
        { name: "draws", label: "draws", value: draws, decimals: 0 },
        { name: "distance", label: "distance of the draws", value: draws ? totalVariation(shares, after) : NaN, decimals: 3 },
      ])
    );
    showStrip();
    showTable();
  }

  /* The probabilities laid end to end, in the order of the tokens' ids as when drawing. */
  function showStrip() {
    const parts = [...after.entries()].filter(([, p]) => p > 0);
    strip.replaceChildren(
      ...parts.map(([token, p], index) => {
        const part = element("span", {
          class: `tint-${index % 4}${token === lastToken ? " drawn" : ""}`,
          text: p > 0.04 ? visible(tokens[token]) : "",
        });
        part.style.width = `${100 * p}%`;
        return part;
      })
    );
    if (lastPoint === null) return;
    const mark = element("i");
    mark.style.left = `${100 * lastPoint}%`;
    strip.append(mark);
  }

  function showTable() {
    const listed = order.slice(0, ROWS);
    const others = order.slice(ROWS);
    const sum = (values) => others.reduce((total, i) => total + values[i], 0);
    const widest = Math.max(...before, ...after, sum(before), sum(after));
    const rows = listed.map((i) => line(visible(tokens[i]), before[i], after[i], counts[i], widest));
    if (others.length)
      rows.push(line(`${others.length} others`, sum(before), sum(after), sum(counts), widest));
    table.replaceChildren(
      element(
        "table",
        { class: "explorer-sampling", "aria-label": "The likeliest tokens" },
        element(
          "thead",
          {},
          element(
            "tr",
            {},
            ...["token", "", "model", "now", "drawn", "expected"].map((text) =>
              element("th", { scope: text ? "col" : null, text })
            )
          )
        ),
        element("tbody", {}, ...rows)
      )
    );
  }

  function line(name, p, q, count, widest) {
    const outline = element("b");
    outline.style.width = `${(100 * p) / widest}%`;
    const bars = bar(q / widest);
    bars.append(outline);
    return element(
      "tr",
      { class: q > 0 ? null : "cut" },
      element("th", { scope: "row", text: name }),
      element("td", { class: "bars" }, bars),
      numberIn("td", p, 3),
      numberIn("td", q, 3),
      element("td", { "data-value": count, text: count }),
      draws ? numberIn("td", draws * q, 1) : element("td", { "data-value": "0", text: "" })
    );
  }

  root.append(
    element("div", { class: "explorer-controls" }, ...controls.map((each) => each.element)),
    numbers, strip, drawing, says.element,
    element("p", {
      class: "explorer-caption",
      text: "Likeliest first. Outlined bars: the model's probability; filled bars: what is drawn from.",
    }),
    table
  );
  change({});
}

export default { render };
