/* The attention explorer. First the mathematics, which knows nothing of the page; then the page. */

/* ---- words and their queries, keys and values ---- */

const WORD = /[\p{L}\p{N}]+(?:['’-][\p{L}\p{N}]+)*/gu;

function wordsOf(sentence, longest) {
  const words = sentence.match(WORD) || [];
  return { words: words.slice(0, longest), left: words.slice(longest) };
}

const lowered = (token) => (token.startsWith("[") ? token : token.toLowerCase());

/* Features chosen by hand, times three matrices; what nobody has described is zero. */
function byHand(tokens, hand) {
  const nothing = hand.features.map(() => 0);
  const X = tokens.map((token) => hand.words[token.toLowerCase()] || nothing);
  const seen = (role) => X.map((x) => times(x, hand.matrices[role]));
  return { queries: seen("query"), keys: seen("key"), values: seen("value") };
}

function atRandom(tokens, width) {
  const drawnFor = (role) => tokens.map((t) => randomVector(`${role}:${t.toLowerCase()}`, width));
  return { queries: drawnFor("query"), keys: drawnFor("key"), values: drawnFor("value") };
}

/* A head of the encoder's first layer; export.py has the formula. */
function byEncoder(tokens, encoder, head) {
  const ids = tokens.map((token) => encoder.ids.get(lowered(token)) ?? encoder.ids.get("[UNK]"));
  const spread = ids.map((id, t) =>
    Math.sqrt(
      encoder.wordSquare[id] + encoder.placeSquare[t] + encoder.product[id][t] + encoder.epsilon
    )
  );
  const seen = ({ word, place, constant }) =>
    ids.map((id, t) => constant.map((c, i) => (word[id][i] + place[t][i]) / spread[t] + c));
  const parts = encoder.heads.get(head);
  return { queries: seen(parts.query), keys: seen(parts.key), values: seen(parts.value) };
}

function unpackEncoder(packed) {
  const opened = (part) =>
    Object.fromEntries(Object.entries(part).map(([name, each]) => [name, unpack(each)]));
  return {
    ids: new Map(packed.words.map((word, id) => [word, id])),
    epsilon: packed.epsilon,
    ...opened({
      wordSquare: packed.wordSquare,
      placeSquare: packed.placeSquare,
      product: packed.product,
    }),
    heads: new Map(
      packed.heads.map(({ head, query, key, value }) => [
        `head ${head}`,
        { query: opened(query), key: opened(key), value: opened(value) },
      ])
    ),
  };
}

/* ---- attention ---- */

/* softmax(Q Kᵀ · scale) V with a mask: mask(t, s) says whether query t may look at key s. */
function attend({ queries, keys, values }, scale, mask) {
  const products = queries.map((q) => keys.map((k) => dot(q, k)));
  const scores = products.map((row, t) => row.map((x, s) => (mask(t, s) ? x * scale : -Infinity)));
  const weights = scores.map(softmax);
  const outputs = weights.map((row) =>
    values[0].map((_, i) => row.reduce((sum, weight, s) => sum + weight * values[s][i], 0))
  );
  return { products, scores, weights, outputs };
}

/* In nats; 0 where all weight is on one key. */
function entropy(weights) {
  return -weights.reduce((sum, p) => (p > 0 ? sum + p * Math.log(p) : sum), 0);
}

/* Everything that is shown, from the settings and the data. */
function computed(settings, data) {
  const { words, left } = wordsOf(settings.sentence, data.longest);
  const pads = settings.padding === "none" ? [] : Array(data.padding).fill("[PAD]");
  const marked = settings.source.startsWith("head");
  const tokens = [...(marked ? ["[CLS]", ...words, "[SEP]"] : words), ...pads];
  const known = (word) =>
    marked ? data.encoder.ids.has(word.toLowerCase()) : word.toLowerCase() in data.hand.words;
  const unknown = settings.source === "random" ? [] : words.filter((word) => !known(word));
  if (!words.length) return { tokens: [], unknown, left };
  const vectors =
    settings.source === "hand"
      ? byHand(tokens, data.hand)
      : settings.source === "random"
        ? atRandom(tokens, settings.width)
        : byEncoder(tokens, data.encoder, settings.source);
  const d = vectors.queries[0].length;
  const real = tokens.length - (settings.padding === "hidden" ? pads.length : 0);
  const mask = (t, s) => s < real && (!settings.causal || s <= t);
  const scale = 1 / ((settings.scaled ? Math.sqrt(d) : 1) * settings.temperature);
  return { tokens, unknown, left, d, scale, ...vectors, ...attend(vectors, scale, mask) };
}

/* ---- the page ---- */

const ROW = 36; // pixels: the height of a row of the look-up, as in explorer.css
const SHOWN = 32; // components of a vector

function render({ model, el }) {
  const given = model.get("data");
  const data = { ...given, encoder: unpackEncoder(given.encoder) };
  const settings = {
    sentence: data.sentence,
    query: data.query,
    source: data.source,
    temperature: data.temperature,
    width: 16,
    scaled: true,
    causal: false,
    padding: "none",
  };
  const root = frame(el, "Attention explorer");
  const says = liveRegion();
  let result;

  const change = (name) => (value) => {
    settings[name] = value;
    update();
  };
  const sentence = textField({
    label: `A sentence of up to ${data.longest} words`,
    value: settings.sentence,
    name: "sentence",
    onchange: change("sentence"),
  });
  const examples = choice({
    label: "Or one of these",
    name: "example",
    options: [["", "choose …"], ...data.examples.map(([text], i) => [String(i), text])],
    value: "",
    onchange(index) {
      if (index === "") return;
      const [text, word] = data.examples[index];
      settings.sentence = text;
      sentence.set(text);
      result = computed(settings, data);
      settings.query = result.tokens.lastIndexOf(word);
      update();
    },
  });
  const source = choice({
    label: "Vectors",
    name: "source",
    options: data.sources,
    value: settings.source,
    onchange: change("source"),
  });
  const width = slider({
    label: "Width d of the random vectors",
    name: "width",
    min: 0,
    max: 8,
    step: 1,
    value: 4,
    decimals: 0,
    show: (x) => 2 ** x,
    onchange: change("width"),
  });
  const temperature = slider({
    label: "Temperature",
    name: "temperature",
    min: -1,
    max: 1.5,
    step: 0.05,
    value: Math.log10(settings.temperature),
    show: (x) => 10 ** x,
    onchange: change("temperature"),
  });
  const scaled = checkbox({
    label: "",
    name: "scaled",
    checked: settings.scaled,
    onchange: change("scaled"),
  });
  const causal = checkbox({
    label: "Causal mask: nobody sees the words after",
    name: "causal",
    onchange: change("causal"),
  });
  const padding = choice({
    label: "Padding",
    name: "padding",
    options: [
      ["none", "none"],
      ["hidden", `${data.padding} tokens, hidden by a mask`],
      ["seen", `${data.padding} tokens, no mask`],
    ],
    value: "none",
    onchange: change("padding"),
  });

  const note = element("p", { class: "explorer-note" });
  const lookup = element("div", { class: "attention-lookup" });
  const formula = element("p", { class: "explorer-note", "data-name": "formula" });
  const table = element("div");
  const vectors = element("div");
  const section = (title, open, ...parts) =>
    element(
      "details",
      { class: "explorer-details", open },
      element("summary", { text: title }),
      ...parts
    );
  const more = [padding.element, scaled.element, causal.element];
  const grid = (...controls) => element("div", { class: "explorer-controls" }, ...controls);
  root.append(
    grid(
      sentence.element,
      note,
      ...(data.compact ? [] : [examples.element]),
      source.element,
      width.element,
      temperature.element,
      ...(data.compact ? [] : more)
    ),
    element(
      "div",
      { class: "attention-panels" },
      element("div", {}, lookup, says.element),
      element(
        "div",
        {},
        ...(data.compact
          ? [section("Masks, scale, all words, vectors", false, grid(examples.element, ...more), table, vectors)]
          : [section("All words at once", true, table), section("The vectors behind it", true, vectors)])
      )
    )
  );

  function update() {
    const before = result && result.tokens[settings.query];
    result = computed(settings, data);
    // The chosen word stays chosen while the sentence around it changes.
    if (before !== undefined && result.tokens[settings.query] !== before) {
      const again = result.tokens.lastIndexOf(before);
      if (again >= 0) settings.query = again;
    }
    settings.query = Math.max(0, Math.min(settings.query, result.tokens.length - 1));
    width.element.hidden = settings.source !== "random";
    note.textContent = remarks(result, settings, data);
    note.hidden = !note.textContent;
    scaled.element.lastChild.textContent = result.d
      ? `Divide the scores by √d = √${result.d}`
      : "Divide the scores by √d";
    if (!result.tokens.length) {
      for (const each of [lookup, table, vectors, formula]) each.replaceChildren();
      says.say("Write at least one word.");
      return;
    }
    drawLookup();
    drawQuery();
  }

  /* The words on the left ask; the rest depends on which of them is chosen. */
  const queries = element("div", {
    class: "attention-queries",
    role: "radiogroup",
    "aria-label": "Query: the word that looks",
    "data-name": "query",
  });
  const group = freshId("query");
  function drawLookup() {
    const focused = queries.contains(document.activeElement);
    queries.replaceChildren(
      element("span", { class: "attention-head", "aria-hidden": "true", text: "query" }),
      ...result.tokens.map((token, index) => {
        const input = element("input", { type: "radio", name: group, value: String(index) });
        input.checked = index === settings.query;
        input.addEventListener("change", () => {
          settings.query = index;
          drawQuery();
        });
        return element("label", {}, input, element("span", { text: token }));
      })
    );
    if (focused) queries.querySelectorAll("input")[settings.query].focus();
  }

  function drawQuery() {
    const { tokens, products, scores, weights, scale, d } = result;
    const q = settings.query;
    const inputs = queries.querySelectorAll("input");
    inputs[q].checked = true;
    if (!lookup.contains(queries)) lookup.replaceChildren(queries);
    while (queries.nextSibling) queries.nextSibling.remove(); // moving them would drop the focus
    lookup.append(lines(weights[q], q), answers(q));
    const divisor = settings.scaled ? `√${d} · ` : "";
    formula.textContent = `weight = softmax of q·k / (${divisor}${shown(settings.temperature)})`;
    formula.dataset.scale = exact(scale);
    table.replaceChildren(
      heatmap({
        caption: "Weights: each row is a query, each column a key",
        rows: tokens,
        columns: tokens,
        values: weights.map((row, t) => row.map((w, s) => (scores[t][s] === -Infinity ? null : w))),
        chosen: q,
        onchoose(index) {
          settings.query = index;
          drawQuery();
        },
      }),
      formula
    );
    vectors.replaceChildren(...behind(q));
    const best = weights[q].indexOf(Math.max(...weights[q]));
    const most = Math.log(scores[q].filter((x) => x > -Infinity).length);
    says.say(
      `“${tokens[q]}” gives ${shown(weights[q][best], 3)} of its weight to “${tokens[best]}”` +
        ` (q·k = ${shown(products[q][best])}). Its entropy is ${shown(entropy(weights[q]))} nats;` +
        ` all keys alike would be ${shown(most)}.`,
      !says.element.textContent
    );
  }

  /* Lines from the chosen query to every key, as thick as their weights. */
  function lines(row, q) {
    const middle = (index) => ROW * (index + 1.5);
    const height = ROW * (row.length + 1);
    return drawn(
      "svg",
      {
        class: "attention-lines",
        viewBox: `0 0 100 ${height}`,
        preserveAspectRatio: "none",
        style: `height: ${height}px`,
        "aria-hidden": "true",
      },
      ...row
        .map((weight, s) => [weight, s])
        .filter(([weight]) => weight >= 0.005)
        .map(([weight, s]) =>
          drawn("path", {
            d: `M0 ${middle(q)}C50 ${middle(q)} 50 ${middle(s)} 100 ${middle(s)}`,
            "stroke-width": Math.max(1, 12 * weight).toFixed(2),
            "stroke-opacity": (0.35 + 0.65 * weight).toFixed(2),
          })
        )
    );
  }

  /* For every key its score and its weight. */
  function answers(q) {
    const { tokens, products, scores, weights } = result;
    const header = (text, wide) =>
      element("th", { scope: "col", class: wide ? "attention-wide" : null, text });
    return element(
      "table",
      { class: "attention-answers" },
      element(
        "thead",
        {},
        element("tr", {}, header("key"), header("q·k", true), header("score"), header("weight"), element("td", { class: "attention-wide" }))
      ),
      element(
        "tbody",
        {},
        ...tokens.map((token, s) =>
          element(
            "tr",
            {},
            element("th", { scope: "row", text: token }),
            numberIn("td", products[q][s], 2, { class: "attention-wide", "data-name": "product" }),
            numberIn("td", scores[q][s], 2, { "data-name": "score" }),
            numberIn("td", weights[q][s], 3, { "data-name": "weight" }),
            element("td", { class: "attention-wide attention-bar" }, bar(weights[q][s]))
          )
        )
      )
    );
  }

  /* The chosen query, its best key, and the weighted sum of the values, number by number. */
  function behind(q) {
    const { tokens, queries: Q, keys: K, values: V, weights, outputs, d } = result;
    const best = weights[q].indexOf(Math.max(...weights[q]));
    const named = settings.source === "hand";
    const parts = [];
    if (named) parts.push(element("p", { "data-name": "features", text: described(tokens[q]) }));
    const strip = (caption, rows, vectors, names) => {
      const cut = vectors.map((vector) => vector.slice(0, SHOWN));
      const most = Math.max(1e-9, ...cut.flat().map(Math.abs));
      return heatmap({
        caption,
        rows,
        columns: names || cut[0].map((_, i) => String(i + 1)),
        values: cut,
        low: -most,
        high: most,
        scale: DIVERGING,
        decimals: named && !names.includes("Anna") ? 0 : 2,
      });
    };
    const of = (n) => (n > SHOWN ? `: the first ${SHOWN} of ${n} components` : "");
    parts.push(
      strip(
        `What “${tokens[q]}” asks for, and what “${tokens[best]}” offers${of(d)}`,
        ["query", "key"],
        [Q[q], K[best]],
        named ? data.hand.asked : null
      ),
      strip(
        `Weighted sum of the values: what “${tokens[q]}” receives${of(V[0].length)}`,
        ["output"],
        [outputs[q]],
        named ? data.hand.passed : null
      )
    );
    return parts;
  }

  function described(token) {
    const row = data.hand.words[token.toLowerCase()];
    const names = data.hand.features
      .map((name, i) => (!row || row[i] === 0 ? "" : row[i] > 0 ? name : `not ${name}`))
      .filter(Boolean);
    return `“${token}” is described as: ${names.join(", ") || "nothing; its vector is zero"}.`;
  }

  update();
}

/* What to know about the sentence as it stands. */
function remarks({ unknown, left }, settings, data) {
  const said = [];
  const quoted = (words) => words.map((word) => `“${word}”`).join(", ");
  const plural = (words, one, many) => (words.length === 1 ? one : many);
  if (left.length) said.push(`Left out, since ${data.longest} words fit: ${quoted(left)}.`);
  if (unknown.length && settings.source === "hand")
    said.push(
      `Nobody has described ${quoted(unknown)} by hand: ${plural(unknown, "it counts as a word that asks", "they count as words that ask")} for nothing and ${plural(unknown, "offers", "offer")} nothing.`
    );
  if (unknown.length && settings.source.startsWith("head"))
    said.push(
      `Not among the ${data.encoder.ids.size} tokens kept for this page, and read as [UNK]: ${quoted(unknown)}.`
    );
  return said.join(" ");
}

export default { render };
