/* The tokenizer playground: see tokenizer.py. */

/* ---- byte-level BPE, as utils/merges.py and utils/bpe.py have it ---- */

/* GPT-2's pattern: no merge reaches over the ends of its matches. */
const WORDS =
  /'(?:[stmd]|re|ve|ll)| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

function splitWords(text, digits = false) {
  const parts = digits ? text.split(/(\p{N})/u).filter((part) => part) : [text];
  return parts.flatMap((part) => part.match(WORDS) || []);
}

/* From what Python sent: ids of the bytes, rank and result of every pair, bytes of every token. */
function readVocabulary(data) {
  const [byteIds, merges] = [data.bytes, data.merges].map((line) => line.split(" ").map(Number));
  const bytesOf = new Map(byteIds.map((id, byte) => [id, [byte]]));
  const ranks = new Map();
  const rules = [];
  for (let at = 0; at + 2 < merges.length; at += 3) {
    const [first, second, result] = merges.slice(at, at + 3);
    if (!ranks.has(pairKey(first, second))) ranks.set(pairKey(first, second), rules.length);
    rules.push({ first, second, result });
    bytesOf.set(result, [...bytesOf.get(first), ...bytesOf.get(second)]);
  }
  return { byteIds, ranks, rules, bytesOf };
}

function pairKey(first, second) {
  return first * 2 ** 24 + second;
}

/* Replace a pair of neighbours by one id, from left to right. */
function joinPair(ids, { first, second, result }) {
  const joined = [];
  for (let place = 0; place < ids.length; place += 1)
    if (ids[place] === first && ids[place + 1] === second) {
      joined.push(result);
      place += 1;
    } else joined.push(ids[place]);
  return joined;
}

/* The lowest rank of a pair of neighbours, Infinity if none can be joined. */
function lowestRank(ids, ranks) {
  let lowest = Infinity;
  for (let place = 0; place + 1 < ids.length; place += 1) {
    const rank = ranks.get(pairKey(ids[place], ids[place + 1]));
    if (rank < lowest) lowest = rank;
  }
  return lowest;
}

/* All states of a text, from its bytes on: [{ words: [[id, ...], ...], rank, places }], where rank
   is the merge that led there and places how often it joined a pair. */
function encodeInSteps(text, vocabulary, digits = false) {
  const encoder = new TextEncoder();
  let words = splitWords(text, digits).map((word) =>
    Array.from(encoder.encode(word), (byte) => vocabulary.byteIds[byte])
  );
  const steps = [{ words, rank: null, places: 0 }];
  for (;;) {
    const lowest = words.map((ids) => lowestRank(ids, vocabulary.ranks));
    const rank = Math.min(...lowest);
    if (rank === Infinity) return steps;
    const before = words.flat().length;
    words = words.map((ids, i) => (lowest[i] === rank ? joinPair(ids, vocabulary.rules[rank]) : ids));
    steps.push({ words, rank, places: before - words.flat().length });
  }
}

/* ---- in words ---- */

function hexadecimal(bytes) {
  return bytes.map((byte) => byte.toString(16).toUpperCase().padStart(2, "0")).join(" ");
}

/* A token's text, with signs for spaces and line ends; its bytes if they are not whole characters
   or would not be seen. */
function readable(bytes) {
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes));
  } catch {
    return { text: hexadecimal(bytes), isText: false };
  }
  const signs = text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥");
  if (/[\p{C}\p{Z}]/u.test(signs)) return { text: hexadecimal(bytes), isText: false };
  return { text: /^\p{M}/u.test(signs) ? "◌" + signs : signs, isText: true };
}

function inMany(count, one, many = one + "s") {
  return `${count} ${count === 1 ? one : many}`;
}

/* ---- the page ---- */

function render({ model, el }) {
  const data = model.get("data");
  const vocabulary = readVocabulary(data);
  const root = frame(el, "Tokenizer playground");
  const signOf = (id) => readable(vocabulary.bytesOf.get(id));
  let text = data.text;
  let steps = [];

  const field = textField({
    label: "Text", value: text, name: "text", rows: 2, maxlength: data.longest,
    onchange: (newText) => {
      text = newText;
      cut();
    },
  });
  const stepping = stepper({
    label: "Merges applied", name: "merges", back: "Undo a merge", next: "Apply the next merge",
    describe: (step, count) => `${step} of ${count}`,
    onchange: draw,
  });
  const says = liveRegion();
  const tokens = element("ol", { class: "explorer-tokens", "aria-label": "Tokens", tabindex: "0" });
  const numbers = element("div");
  const note = element("p", {
    class: "explorer-note",
    text:
      "␣ is a space, ↵ a line end; two-digit codes are bytes that are no whole character. A gap " +
      "parts words, over which no merge reaches. Outlined: what the last merge has made.",
  });

  function cut() {
    steps = encodeInSteps(text, vocabulary, data.digits);
    stepping.update(steps.length - 1, steps.length - 1);
    draw();
  }

  function token(id, index, made) {
    const bytes = vocabulary.bytesOf.get(id);
    const sign = signOf(id);
    return element(
      "li",
      {
        class: `explorer-token tint-${index % 4}${made === id ? " made" : ""}`,
        "data-id": id,
        title: `token ${id}: ${inMany(bytes.length, "byte")} ${hexadecimal(bytes)}`,
      },
      element("span", { class: sign.isText ? null : "bytes", text: sign.text }),
      element("small", { text: id })
    );
  }

  function draw() {
    const { words, rank } = steps[stepping.value];
    const made = rank === null ? null : vocabulary.rules[rank].result;
    let index = 0;
    tokens.replaceChildren(
      ...words.flatMap((ids) =>
        ids.map((id, place) => {
          const item = token(id, index++, made);
          if (place === 0) item.classList.add("first");
          return item;
        })
      )
    );
    const count = words.flat().length;
    const bytes = steps[0].words.flat().length;
    numbers.replaceChildren(
      facts([
        { name: "tokens", label: "tokens", value: count, decimals: 0 },
        { name: "characters", label: "characters", value: [...text].length, decimals: 0 },
        { name: "bytes", label: "bytes", value: bytes, decimals: 0 },
        { name: "rate", label: "bytes per token", value: count ? bytes / count : NaN },
      ])
    );
    says.say(`${whatHappened(stepping.value)} ${inMany(count, "token")}.`, !says.element.textContent);
  }

  function whatHappened(step) {
    const parts = [];
    if (step === 0) parts.push("Every byte is a token.");
    else {
      const { rank, places } = steps[step];
      parts.push(`Merge ${rank + 1}, ${rule(rank)}, in ${inMany(places, "place")}.`);
    }
    if (step === steps.length - 1) parts.push("No merge that was learned applies any more.");
    else parts.push(`Next: merge ${steps[step + 1].rank + 1}, ${rule(steps[step + 1].rank)}.`);
    return parts.join(" ");
  }

  function rule(rank) {
    const { first, second, result } = vocabulary.rules[rank];
    return `${signOf(first).text} + ${signOf(second).text} → ${signOf(result).text}`;
  }

  root.append(field.element, stepping.element, tokens, numbers, says.element, note);
  cut();
}

export default { render };
