/* Show the diagrams and the saved widgets of a page, without a kernel and without a network.

   Their libraries weigh 2.5 and 3.6 MB, so each loads only when something that needs it comes
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

  /* ---- widgets ---- */
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
    for (const view of views) explainWidget(view, models);
    await load("requirejs/require.js");
    // The library finds its icons next to the file that its parts are said to come from.
    const part = (name) => ["@jupyter-widgets/" + name, vendor + "html-manager/dist/" + name];
    const paths = Object.fromEntries(["base", "controls", "output", "html-manager"].map(part));
    window.requirejs.config({ paths: { ...paths, anywidget: vendor + "anywidget/index" } });
    speakOldMathJax();
    await load("html-manager/dist/embed-amd.js"); // shows every view once the page is complete
  }

  const views = document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]');
  whenNear(document.querySelectorAll("pre.mermaid"), () => inTurn(startDiagrams));
  // A script has no box that could come into view; the cell around it has.
  whenNear([...views].map((view) => view.closest(".cell") || view.parentElement), () =>
    inTurn(startWidgets)
  );
})();
