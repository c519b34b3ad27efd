/* Show the diagrams and the saved widgets of a page, without a kernel and without a network.

   The course's own widgets need no library: see showExplorer. The libraries of the others and of
   the diagrams weigh 3.6 and 2.5 MB, so each loads only when something that needs it comes
   near the window. All are classic scripts: browsers refuse module scripts in pages opened from
   disk. One loads at a time, because the widgets bring require.js, which defines a global
   `define`, and the diagrams' library would mistake it for its own loader. */
(function () {
  "use strict";
  const vendor = new URL("vendor/", document.currentScript.src).href;
  let queue = Promise.resolve();

  function inTurn(task) {
    queue = queue.then(task).catch((error) => console.error("course.js:", error));
    return queue;
  }

  function load(path) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = vendor + path;
      // The html-manager looks here for a module it lacks, and not on a CDN.
      script.setAttribute("data-jupyter-widgets-cdn", vendor + "missing/");
      script.onload = resolve;
      script.onerror = () => reject(new Error("cannot load " + path));
      document.head.append(script);
    });
  }

  function whenNear(elements, action) {
    if (!elements.length) return;
    const near = new IntersectionObserver(
      (entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        near.disconnect();
        action();
      },
      { rootMargin: "1200px" }
    );
    for (const element of elements) near.observe(element);
  }

  /* ---- diagrams: <pre class="mermaid"> holds the source, which reads without JavaScript ---- */
  const LIGHT = {
    primaryColor: "#e8f1f8",
    primaryBorderColor: "#0072B2",
    primaryTextColor: "#1b1f24",
    lineColor: "#55606b",
    clusterBkg: "#fbfbf8",
    clusterBorder: "#c9ccc8",
    edgeLabelBackground: "#ffffff",
  };
  const DARK = {
    darkMode: true,
    background: "#121212",
    primaryColor: "#1d3345",
    primaryBorderColor: "#56B4E9",
    primaryTextColor: "#e8ecf0",
    lineColor: "#aab4be",
    clusterBkg: "#1a1e22",
    clusterBorder: "#4a525a",
    edgeLabelBackground: "#121212",
  };

  async function drawDiagrams() {
    const dark = document.documentElement.dataset.theme === "dark";
    window.mermaid.initialize({
      startOnLoad: false,
      theme: "base",
      themeVariables: Object.assign({ fontSize: "15px" }, dark ? DARK : LIGHT),
      flowchart: { useMaxWidth: false }, // the style sheet decides: legible first
    });
    for (const diagram of document.querySelectorAll("pre.mermaid")) {
      diagram.dataset.source = diagram.dataset.source || diagram.textContent;
      diagram.textContent = diagram.dataset.source;
      diagram.removeAttribute("data-processed");
      await window.mermaid.run({ nodes: [diagram] });
    }
  }

  async function startDiagrams() {
    const define = window.define;
    window.define = undefined;
    await load("mermaid/dist/mermaid.tiny.js");
    window.define = define;
    await drawDiagrams();
    new MutationObserver(() => inTurn(drawDiagrams)).observe(document.documentElement, {
      attributeFilter: ["data-theme"], // the reader has changed the theme
    });
  }

  /* ---- the course's own widgets: ES modules that compute here, from what Python gave them ---- */
  /* All that their scripts ask of a model. Nobody else changes it: there is no kernel. */
  function minimalModel(state) {
    return {
      get: (name) => state[name],
      set: (name, value) => (state[name] = value),
      on() {},
      off() {},
      save_changes() {},
    };
  }

  async function showExplorer({ view, model }) {
    const { _esm, _css, ...state } = model.state;
    const url = URL.createObjectURL(new Blob([_esm], { type: "text/javascript" }));
    const { default: widget } = await import(url);
    URL.revokeObjectURL(url);
    if (!styles.has(_css)) {
      styles.add(_css);
      document.head.append(Object.assign(document.createElement("style"), { textContent: _css }));
    }
    const el = Object.assign(document.createElement("div"), { className: "widget-subarea" });
    view.after(el);
    await widget.render({ model: minimalModel(state), el });
    for (const words of view.parentElement.querySelectorAll(".explorer-fallback"))
      words.hidden = true; // they stood in for it
  }

  /* Take the course's own widgets out of the page's views, before the library finds them. */
  function findExplorers(views) {
    if (!views.length) return [];
    const { models } = savedWidgets();
    return views
      .map((view) => ({ view, model: models[JSON.parse(view.textContent).model_id] }))
      .filter(({ view, model }) => {
        if (!model || model.model_module !== "anywidget") return false;
        view.type = "application/json";
        view.dataset.explorer = "";
        return true;
      });
  }

  /* ---- other widgets ---- */
  /* The widgets' library typesets labels by MathJax 2's interface; the pages have MathJax 3. */
  function speakOldMathJax() {
    const mathjax = window.MathJax;
    if (!mathjax || mathjax.Hub) return;
    mathjax.Hub = {
      Queue: ([, , element]) =>
        mathjax.startup.promise.then(() => mathjax.typesetPromise([element])),
    };
  }

  /* What the page holds of its widgets: model id -> model, figures' data -> their words. */
  function savedWidgets() {
    const models = {};
    const kind = 'script[type="application/vnd.jupyter.widget-state+json"]';
    for (const script of document.querySelectorAll(kind))
      Object.assign(models, JSON.parse(script.textContent).state);
    const words = new Map();
    for (const { state } of Object.values(models))
      for (const { data, metadata } of state.outputs || [])
        for (const [type, { alt }] of Object.entries(metadata || {}))
          if (alt) words.set([data[type]].flat().join("").trim(), alt);
    return { models, words };
  }

  /* The library draws a saved figure without its alternative text; give it back. */
  function describeFigures(words) {
    for (const image of document.querySelectorAll(".widget-subarea img:not([alt])")) {
      const [head, data] = image.src.split(/,(.*)/s);
      const alt = words.get((head.endsWith("base64") ? data : decodeURIComponent(data)).trim());
      if (alt) image.alt = alt;
    }
  }

  /* Say of a widget that shows what Python made that its controls do nothing here. */
  function explainWidget(view, models) {
    const seen = new Set();
    const needsPython = (id) => {
      if (seen.has(id) || !models[id]) return false;
      seen.add(id);
      const parts = JSON.stringify(models[id].state).match(/(?<=IPY_MODEL_)\w+/g) || [];
      return "outputs" in models[id].state || parts.some(needsPython);
    };
    if (!needsPython(JSON.parse(view.textContent).model_id)) return;
    const note = document.createElement("p");
    note.className = "widget-note";
    note.textContent = "Shown as saved. In JupyterLab, where Python runs, the controls change it.";
    view.parentElement.append(note);
  }

  async function startWidgets() {
    const { models, words } = savedWidgets();
    new MutationObserver(() => describeFigures(words)).observe(document.body, {
      childList: true,
      subtree: true,
    });
    for (const view of others) explainWidget(view, models);
    await load("requirejs/require.js");
    // The library finds its icons next to the file that its parts are said to come from.
    const part = (name) => ["@jupyter-widgets/" + name, vendor + "html-manager/dist/" + name];
    const paths = Object.fromEntries(["base", "controls", "output", "html-manager"].map(part));
    window.requirejs.config({ paths: { ...paths, anywidget: vendor + "anywidget/index" } });
    speakOldMathJax();
    await load("html-manager/dist/embed-amd.js"); // shows every view once the page is complete
  }

  const kind = 'script[type="application/vnd.jupyter.widget-view+json"]';
  const styles = new Set(); // what the page has already
  const views = [...document.querySelectorAll(kind)];
  const explorers = findExplorers(views);
  const others = views.filter((view) => !("explorer" in view.dataset));
  // A script has no box that could come into view; the cell around it has.
  const boxOf = (view) => view.closest(".cell") || view.parentElement;
  whenNear(document.querySelectorAll("pre.mermaid"), () => inTurn(startDiagrams));
  for (const explorer of explorers)
    whenNear([boxOf(explorer.view)], () =>
      showExplorer(explorer).catch((error) => console.error("course.js:", error))
    );
  whenNear(others.map(boxOf), () => inTurn(startWidgets));
})();

/* Keep every part of a page within reach of the keyboard, and give the sliders their names. */
(function () {
  "use strict";
  const SCROLLS =
    "mjx-container, div.math, .cell_output, .widget-subarea, .jp-OutputArea-output, .table-wide";

  /* What is wider than its box scrolls by the arrow keys, once the tab key leads to it. The theme
     sees to code and tables. */
  function reachWhatScrolls() {
    for (const box of document.querySelectorAll(SCROLLS)) {
      const scrolls =
        box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX !== "visible";
      if (scrolls && !box.hasAttribute("tabindex")) {
        box.tabIndex = 0;
        box.dataset.reached = "";
      } else if (!scrolls && "reached" in box.dataset) {
        box.removeAttribute("tabindex");
        delete box.dataset.reached;
      }
    }
  }

  /* The widgets' library writes a slider's name beside it, and does not call its handle so. */
  function nameSliders() {
    for (const handle of document.querySelectorAll(".noUi-handle:not([aria-label])")) {
      const label = handle.closest(".jupyter-widgets")?.querySelector(".widget-label");
      handle.setAttribute("aria-label", label?.textContent.trim() || "Slider");
    }
  }

  let soon;
  function look() {
    clearTimeout(soon);
    soon = setTimeout(() => {
      nameSliders();
      reachWhatScrolls();
    }, 200);
  }
  const main = document.querySelector("main");
  if (!main) return;
  addEventListener("resize", look);
  addEventListener("load", look);
  new MutationObserver(look).observe(main, { childList: true, subtree: true });
  look();
})();

/* Python in the browser has to come from a web server: from disk there is nothing to run. */
(function () {
  "use strict";
  if (location.protocol.startsWith("http")) return;
  for (const link of document.querySelectorAll("a.lite")) {
    link.replaceWith("Run in the browser (from a web server only)");
  }
})();

/* Fetch the next page while the reader is busy with this one, so that it opens at once. */
(function () {
  "use strict";
  const next = document.querySelector('link[rel="next"]');
  const { saveData, effectiveType } = navigator.connection || {};
  if (!next || !location.protocol.startsWith("http")) return; // a page opened from disk has it
  if (saveData || /2g/.test(effectiveType)) return; // the reader pays for what is loaded
  addEventListener("load", () => {
    const idle = window.requestIdleCallback || ((task) => setTimeout(task, 2000));
    idle(() => {
      const link = document.createElement("link");
      Object.assign(link, { rel: "prefetch", href: next.href });
      document.head.append(link);
    });
  });
})();

/* On paper nothing unfolds, and nothing loads late. */
(function () {
  "use strict";
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("main details:not([open])")];
    for (const details of folded) details.open = true;
    for (const late of document.querySelectorAll("[loading=lazy]")) late.loading = "eager";
  });
  addEventListener("afterprint", () => {
    for (const details of folded) details.open = false;
  });
})();
