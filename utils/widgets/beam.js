/* The beam stepper: see beam.py. */

/* ---- as in utils/beam.py ---- */

function lengthPenalty(length, alpha) {
  return ((5 + length) / 6) ** alpha;
}

/* All steps of a beam search: [{ length, live, candidates, others, finished, why }].
   next(ids): pairs of token and log-probability after a beginning, likeliest first;
   live: beginnings { ids, logProb } before the step; candidates: the 2K best continuations, each
   { ids, parent, token, logProb, fate } with a fate of "kept", "finished" or "dropped"; others: how
   many more there were; finished: the K best sequences so far, with their scores; why: the reason
   to stop after this step, if it is the last. */
function searchInSteps(next, { beamSize: K, alpha, maxLength, stop, vocabulary }) {
  const steps = [];
  let live = [{ ids: [], logProb: 0 }];
  let finished = [];
  for (let length = 1; ; length += 1) {
    const all = live.flatMap(({ ids, logProb }, parent) =>
      next(ids).map(([token, more]) => ({
        ids: [...ids, token], parent, token, logProb: logProb + more, fate: "dropped",
      }))
    );
    const candidates = all.sort((a, b) => b.logProb - a.logProb).slice(0, 2 * K);
    const last = length === maxLength;
    const goOn = candidates.filter(({ token }) => token !== stop).slice(0, K);
    for (const one of goOn) one.fate = "kept";
    for (const one of candidates.slice(0, K))
      if (last || one.token === stop) one.fate = "finished";
    if (last) for (const one of goOn) if (one.fate === "kept") one.fate = "dropped";
    const ended = candidates
      .filter(({ fate }) => fate === "finished")
      .map((one) => ({ ...one, score: one.logProb / lengthPenalty(length, alpha) }));
    finished = [...finished, ...ended].sort((a, b) => b.score - a.score).slice(0, K);
    const hope = goOn.length ? goOn[0].logProb / lengthPenalty(maxLength, alpha) : -Infinity;
    const settled = finished.length === K && finished[K - 1].score >= hope;
    const why = last ? "The greatest length is reached."
      : settled ? "No live beginning can still come among the best."
      : !goOn.length ? "No beginning is alive." : "";
    const others = live.length * vocabulary - candidates.length;
    steps.push({ length, live, candidates, others, finished, why });
    if (why) return steps;
    live = goOn.map(({ ids, logProb }) => ({ ids, logProb }));
  }
}

/* The table that Python sent: beginning -> pairs of token and log-probability, likeliest first. */
function readTable(lines) {
  return new Map(
    Object.entries(lines).map(([prefix, line]) => {
      const numbers = line.split(" ").map(Number);
      return [prefix, numbers.flatMap((x, at) => (at % 2 ? [] : [[x, numbers[at + 1]]]))];
    })
  );
}

/* ---- the page ---- */

const FATES = { kept: "→", finished: "■", dropped: "✕" };

function render({ model, el }) {
  const { pieces, source, target, ...data } = model.get("data");
  const table = readTable(data.table);
  const root = frame(el, "Beam search, step by step");
  const state = { beamSize: data.beam_size, alpha: data.alpha };
  let steps = [];

  const piece = (token) => (token === data.stop ? "■" : pieces[token].replaceAll(" ", "␣"));
  const spell = (ids) => ids.filter((id) => id !== data.stop).map((id) => pieces[id]).join("");
  const isRight = (ids) => ids.at(-1) === data.stop && spell(ids) === target;

  const controls = element(
    "div",
    { class: "explorer-controls" },
    slider({
      label: "Beam size K", name: "beam-size", min: 1, max: 5, step: 1, value: state.beamSize,
      decimals: 0, onchange: (x) => { state.beamSize = x; search(); },
    }).element,
    slider({
      label: "Length penalty α", name: "alpha", min: 0, max: 2, step: 0.1, value: state.alpha,
      decimals: 1, onchange: (x) => { state.alpha = x; search(); },
    }).element
  );
  const stepping = stepper({
    label: "Step", name: "step", back: "Step back", next: "Next step",
    describe: (step, count) => `${step} of ${count}`, onchange: draw,
  });
  const scrolling = (label) =>
    element("div", { class: "explorer-scroll", tabindex: "0", role: "region", "aria-label": label });
  const picture = scrolling("The tree of beginnings, a column for each step");
  const candidates = scrolling("The best continuations");
  const results = scrolling("What has finished");
  const says = liveRegion();

  function search() {
    steps = searchInSteps((ids) => table.get(ids.join(" ")), {
      beamSize: state.beamSize,
      alpha: state.alpha,
      maxLength: data.max_length,
      stop: data.stop,
      vocabulary: data.vocabulary,
    });
    stepping.update(steps.length, Math.min(stepping.value, steps.length));
    draw();
  }

  function draw() {
    const taken = steps.slice(0, stepping.value);
    picture.replaceChildren(tree(taken));
    picture.scrollLeft = picture.scrollWidth;
    const step = taken.at(-1);
    candidates.replaceChildren(step ? candidateTable(step) : beginning());
    results.replaceChildren(finishedTable(step ? step.finished : []));
    says.say(inWords(step), !says.element.textContent);
  }

  function inWords(step) {
    if (!step) return `Nothing is written yet. The next step asks what may come first.`;
    const number = (fate) => step.candidates.filter((one) => one.fate === fate).length;
    const parts = [
      `Step ${step.length}: ${number("kept")} kept, ${number("finished")} finished, ` +
        `${number("dropped") + step.others} dropped.`,
    ];
    if (step.why) {
      const best = step.finished[0];
      parts.push(`${step.why} Best: ${spell(best.ids)}, score ${shown(best.score, 3)}` +
        `${target ? (isRight(best.ids) ? ", which is right." : ", which is wrong.") : "."}`);
    }
    return parts.join(" ");
  }

  function beginning() {
    return element("p", { class: "explorer-note", text: "The search begins with the empty text, log-probability 0." });
  }

  function candidateTable({ length, live, candidates: list, others }) {
    const rows = list.map((one) =>
      element(
        "tr",
        { class: one.fate, "data-ids": one.ids.join(" ") },
        element("td", { "data-name": "fate" }, FATES[one.fate], element("span", { text: ` ${one.fate}` })),
        element(
          "th",
          { scope: "row" },
          `${spell(live[one.parent].ids)} `,
          element("b", { text: `+ ${piece(one.token)}` })
        ),
        numberIn("td", one.logProb - live[one.parent].logProb, 3),
        numberIn("td", one.logProb, 3)
      )
    );
    return plainTable(
      `Step ${length}: the ${list.length} best continuations, with the log-probability of the piece and ` +
        `of all so far; ${others.toLocaleString("en")} more are dropped.`,
      ["", "beginning + piece", "log p", "sum"],
      rows,
      "explorer-beam"
    );
  }

  function finishedTable(list) {
    const rows = list.map((one) =>
      element(
        "tr",
        { "data-ids": one.ids.join(" ") },
        element("th", { scope: "row", text: `${spell(one.ids)}${one.ids.at(-1) === data.stop ? "" : " …"}` }),
        target === null ? null : element("td", { text: isRight(one.ids) ? "right" : "wrong" }),
        element("td", { "data-value": one.ids.length, text: one.ids.length }),
        numberIn("td", one.logProb, 3),
        numberIn("td", one.score, 3)
      )
    );
    const heads = ["finished", ...(target === null ? [] : [""]), "T", "log p", "score"];
    if (!rows.length) return element("p", { class: "explorer-note", text: "Nothing is finished yet." });
    return plainTable(
      "The best of what has finished, each of T pieces. Score: log p divided by ((5 + T) / 6)^α.",
      heads, rows, "explorer-beam explorer-finished"
    );
  }

  function plainTable(caption, heads, rows, kind) {
    const head = heads.map((text) => element("th", { scope: text ? "col" : null, text }));
    return element(
      "div",
      {},
      element("p", { class: "explorer-caption", text: caption }),
      element(
        "table",
        { class: kind, "aria-label": caption },
        element("thead", {}, element("tr", {}, ...head)),
        element("tbody", {}, ...rows)
      )
    );
  }

  /* A column for each step, its candidates from the likeliest down, joined to their beginnings. */
  function tree(taken) {
    const [wide, high] = [84, 24]; // of a node and its row
    const left = (column) => (column ? 116 * column - 66 : 4);
    const right = (column) => (column ? left(column) + wide : 28);
    const middle = (row) => row * high + high / 2;
    const most = Math.max(1, ...taken.map((step) => step.candidates.length));
    const label = (column, row, kind, text) =>
      drawn("text", { x: left(column) + 6, y: middle(row), "dominant-baseline": "central", class: kind, text });
    const [lines, nodes] = [[], [label(0, 0, "start", "<s>")]];
    let rowsOfLive = [0];
    taken.forEach((step, index) => {
      step.candidates.forEach(({ parent, token, fate }, row) => {
        const [from, to] = [middle(rowsOfLive[parent]), middle(row)];
        lines.push(drawn("line", { x1: right(index), y1: from, x2: left(index + 1), y2: to, class: fate }));
        const box = { x: left(index + 1), y: to - high / 2 + 2, width: wide, height: high - 4, rx: 5 };
        nodes.push(drawn("rect", { ...box, class: fate }), label(index + 1, row, fate, clipped(piece(token))));
      });
      rowsOfLive = step.candidates.flatMap(({ fate }, row) => (fate === "kept" ? [row] : []));
    });
    const [width, height] = [right(taken.length) + 4, most * high];
    return drawn(
      "svg",
      { width, height, viewBox: `0 0 ${width} ${height}`, class: "explorer-tree", role: "img", "aria-label": describeTree(taken) },
      ...lines, ...nodes
    );
  }

  function clipped(text) {
    return text.length > 11 ? text.slice(0, 10) + "…" : text;
  }

  function describeTree(taken) {
    if (!taken.length) return "Only the start.";
    return taken
      .map(({ length, candidates: list }) => {
        const kept = list.filter(({ fate }) => fate === "kept").map(({ ids }) => spell(ids));
        const ended = list.filter(({ fate }) => fate === "finished").map(({ ids }) => spell(ids));
        return `Step ${length}: kept ${kept.join(", ") || "none"}` +
          (ended.length ? `; finished ${ended.join(", ")}.` : ".");
      })
      .join(" ");
  }

  root.append(
    element("p", { class: "explorer-task" }, "To translate: ", element("b", { text: source }),
      target === null ? null : ", rightly ", target === null ? null : element("b", { text: target })),
    controls, stepping.element, says.element,
    element("p", {
      class: "explorer-caption",
      text: "Each column a step, the likeliest on top. Filled: kept; framed, with ■: finished; dashed: dropped.",
    }),
    picture, candidates, results
  );
  search();
}

export default { render };
