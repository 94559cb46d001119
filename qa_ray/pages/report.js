// The two live parts of the HTML report: a browser of errors, and the drawing of the figures in the page's colours.
// Texts from data go into the page as text nodes only, never as HTML.
(() => {
  "use strict";

  const find = (id) => document.getElementById(id);
  const read = (id) => JSON.parse(find(id).textContent);

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  // ---- Errors

  const KINDS = { reference: "reference answer", predicted: "prediction", both: "prediction and reference answer" };

  /** Cut a context into plain and marked pieces. Offsets count code points, not the UTF-16 units of a string. */
  function marked(context, reference, predicted) {
    const points = Array.from(context);
    const inside = (span, place) => place >= span[0] && place < span[1];
    const kindAt = (place) => {
      const [right, guessed] = [inside(reference, place), inside(predicted, place)];
      return right && guessed ? "both" : right ? "reference" : guessed ? "predicted" : "";
    };
    const cuts = [...new Set([0, points.length, ...reference, ...predicted])]
      .filter((cut) => cut >= 0 && cut <= points.length)
      .sort((one, other) => one - other);
    return cuts.slice(0, -1).map((begin, number) => {
      const text = points.slice(begin, cuts[number + 1]).join("");
      const kind = kindAt(begin);
      if (!kind) return document.createTextNode(text);
      return element("mark", { class: kind, title: KINDS[kind] },
        element("span", { class: "hidden" }, `[${KINDS[kind]}: `), text, element("span", { class: "hidden" }, "]"));
    });
  }

  function facts(rows) {
    const list = element("dl", { class: "facts" });
    for (const [name, value] of rows) list.append(element("dt", {}, name), element("dd", {}, value));
    return list;
  }

  function startBrowser() {
    const { contexts, examples } = read("error-data");
    const [slice, search, place, article] = ["slice", "search", "place", "example"].map(find);
    const [previous, next] = [find("previous"), find("next")];
    let shown = examples;
    let current = 0;

    const haystack = examples.map((example) =>
      [example.id, example.question, example.prediction, ...example.references, contexts[example.context]]
        .join("\n").toLowerCase());

    function show() {
      const focused = document.activeElement;
      place.textContent = shown.length ? `${current + 1} of ${shown.length}` : "no such error";
      previous.disabled = current <= 0;
      next.disabled = current >= shown.length - 1;
      if (!shown.length) {
        article.replaceChildren(element("p", {}, "No error matches the slice and the text. Choose others."));
        return;
      }
      const example = shown[current];
      const none = "(no answer)";
      article.replaceChildren(
        element("h3", {}, example.question),
        facts([
          ["Predicted", example.prediction || none],
          ["Reference", [...new Set(example.references)].join("  |  ") || none],
          ...(example.probability === null ? [] : [["Probability", example.probability.toFixed(3)]]),
          ["F1", (100 * example.f1).toFixed(1)],
          ["Slices", example.slices.join("  |  ")],
          ["Id", example.id],
        ]),
        element("div", { class: "context", tabindex: "0", role: "region", "aria-label": "Context" },
          ...marked(contexts[example.context], example.reference_span, example.predicted_span)),
      );
      const context = article.lastElementChild;
      const first = context.querySelector("mark");
      if (first) context.scrollTop = first.offsetTop - context.clientHeight / 3;
      // A button that can no longer be pressed loses the focus, and the arrow keys with it.
      if (focused.disabled) article.focus({ preventScroll: true });
    }

    function filter() {
      const words = search.value.trim().toLowerCase();
      shown = examples.filter((example, number) =>
        (!slice.value || example.slices.includes(slice.value)) && haystack[number].includes(words));
      current = 0;
    }

    /** Keep in the address what is shown, so that it can be bookmarked and sent to others. */
    function remember() {
      const state = new URLSearchParams({ example: current + 1 });
      if (slice.value) state.set("slice", slice.value);
      if (search.value) state.set("search", search.value);
      history.replaceState(null, "", `#${state}`);
    }

    function recall() {
      const state = new URLSearchParams(location.hash.slice(1));
      if (!["example", "slice", "search"].some((name) => state.has(name))) return false;
      slice.value = state.get("slice") || "";
      if (slice.selectedIndex < 0) slice.value = "";
      search.value = state.get("search") || "";
      filter();
      const wanted = Number.parseInt(state.get("example"), 10) || 1;
      current = Math.max(0, Math.min(wanted, shown.length) - 1);
      return true;
    }

    function move(by) {
      const target = current + by;
      if (target < 0 || target >= shown.length) return;
      current = target;
      show();
      remember();
    }

    previous.addEventListener("click", () => move(-1));
    next.addEventListener("click", () => move(1));
    for (const [control, event] of [[slice, "change"], [search, "input"]]) {
      control.addEventListener(event, () => { filter(); show(); remember(); });
    }
    find("browse").addEventListener("submit", (event) => event.preventDefault());
    find("errors").addEventListener("keydown", (event) => {
      const typing = ["INPUT", "SELECT"].includes(event.target.tagName);
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by || typing || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      move(by);
    });
    window.addEventListener("hashchange", () => { if (recall()) show(); });
    const linked = recall();
    show();
    if (linked) find("errors").scrollIntoView();
  }

  // ---- Figures

  /** The figure with each var(--name) replaced by the colour that it stands for in the present theme. */
  function themed(value, style) {
    if (typeof value === "string") {
      const variable = /^var\((--[\w-]+)\)$/.exec(value);
      return variable ? style.getPropertyValue(variable[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => themed(item, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, themed(item, style)]));
  }

  function drawFigures() {
    const figures = read("figure-data");
    const draw = () => {
      const style = getComputedStyle(document.documentElement);
      figures.forEach((figure, number) => {
        const { data, layout } = themed(figure, style);
        Plotly.react(find(`figure-${number}`), data, layout, { responsive: true, displayModeBar: false });
      });
    };
    draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  }

  if (find("error-data")) startBrowser();
  drawFigures();
})();
