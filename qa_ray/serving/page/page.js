"use strict";

// Texts reach the page as text nodes alone: whatever they hold, it stays text. Places are counted in code points, as the
// service counts them, where JavaScript counts UTF-16.

const $ = (id) => document.getElementById(id);
const STORE = "qa_ray";
const LATEST = 50;
let asked = load();
let shown = null;
let recalled = -1;

function load() {
  try {
    return JSON.parse(sessionStorage.getItem(STORE)) || [];
  } catch {
    return [];
  }
}

function keep() {
  // What does not fit the browser's store is there as long as the page is.
  try {
    sessionStorage.setItem(STORE, JSON.stringify(asked));
  } catch {
    sessionStorage.removeItem(STORE);
  }
}

function tell(words) {
  $("error").textContent = words;
  $("error").hidden = !words;
}

function headers() {
  const token = $("token").value.trim();
  const given = { "content-type": "application/json" };
  if (token) given.authorization = `Bearer ${token}`;
  return given;
}

async function call(path, body) {
  const init = body ? { method: "POST", body: JSON.stringify(body), headers: headers() } : { headers: headers() };
  let answer;
  try {
    answer = await fetch(path, init);
  } catch {
    throw new Error("The service cannot be reached.");
  }
  const content = await answer.json().catch(() => ({ error: `The service answers ${answer.status}.` }));
  if (answer.ok) return content;
  if (answer.status === 401) {
    $("more").open = true;
    $("token").focus();
  }
  throw new Error(content.error);
}

async function about() {
  try {
    const model = await call("model");
    const scores = ["exact_match", "f1"].filter((name) => name in model.scores);
    const parts = [model.name, model.version && `version ${model.version}`];
    parts.push(...scores.map((name) => `${name === "f1" ? "F1" : "exact match"} ${model.scores[name].toFixed(1)}`));
    $("model").textContent = parts.filter(Boolean).join(" · ");
  } catch (error) {
    $("model").textContent = error.message;
  }
}

async function ask(event) {
  event.preventDefault();
  tell("");
  const question = $("question").value.trim();
  const text = $("text").value;
  if (!question || !text.trim()) {
    tell(question ? "Paste a text that holds the answer." : "Ask something.");
    return;
  }
  $("send").disabled = true;
  try {
    const found = await call("answer", {
      question,
      context: text,
      top_k: Math.min(Math.max(Number($("top").value) || 1, 1), 20),
      align_to_words: $("align").checked,
      windows: $("windows").checked,
    });
    const item = { question, text, found };
    asked = [item, ...asked.filter((one) => one.question !== question || one.text !== text)].slice(0, LATEST);
    recalled = -1;
    keep();
    show(item);
    list();
  } catch (error) {
    tell(error.message);
  } finally {
    $("send").disabled = false;
  }
}

function percent(score) {
  return `${(100 * score).toFixed(1)}%`;
}

function show(item, number = 0) {
  shown = item;
  const answers = item.found.answers;
  const best = answers[number];
  $("result").hidden = false;
  $("best").textContent = best.answer || "The text holds no answer.";
  const lines = answers.map((answer, place) => {
    const button = element("button", answer.answer || "no answer");
    button.type = "button";
    button.setAttribute("aria-pressed", String(place === number));
    button.append(element("span", percent(answer.score), "score"));
    button.addEventListener("click", () => show(item, place));
    const line = element("li");
    line.append(button);
    return line;
  });
  $("answers").replaceChildren(...lines);
  mark(item.text, best, item.found.windows || []);
}

function mark(text, answer, windows) {
  const points = Array.from(text);
  const cuts = windows.flatMap((window, number) => [
    { place: window.start, words: `[${number + 1} ` },
    { place: window.end, words: ` ${number + 1}]` },
  ]);
  cuts.sort((one, other) => one.place - other.place);
  const parts = [];
  const add = (begin, end, inside) => {
    let from = begin;
    for (const cut of cuts.filter((one) => one.place >= begin && one.place < end)) {
      parts.push(node(points.slice(from, cut.place).join(""), inside), element("span", cut.words, "cut"));
      from = cut.place;
    }
    parts.push(node(points.slice(from, end).join(""), inside));
  };
  add(0, answer.start, false);
  add(answer.start, answer.end, true);
  add(answer.end, points.length, false);
  parts.push(...cuts.filter((one) => one.place >= points.length).map((cut) => element("span", cut.words, "cut")));
  $("marked").replaceChildren(...parts);
  $("legend").textContent = windows.length
    ? `The text went through the model in ${windows.length} windows: [1 … 1] is the first.`
    : "";
  const found = $("marked").querySelector("mark");
  if (found) found.scrollIntoView({ block: "nearest" });
}

function node(text, inside) {
  return inside && text ? element("mark", text) : document.createTextNode(text);
}

function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function list() {
  $("earlier").hidden = asked.length === 0;
  const lines = asked.map((item) => {
    const button = element("button", item.question);
    button.type = "button";
    button.append(element("span", item.found.answers[0].answer || "no answer", "score"));
    button.addEventListener("click", () => back(item));
    const line = element("li");
    line.append(button);
    return line;
  });
  $("history").replaceChildren(...lines);
}

function back(item) {
  $("text").value = item.text;
  $("question").value = item.question;
  count();
  show(item);
  $("question").focus();
}

function count() {
  const number = Array.from($("text").value).length;
  $("size").textContent = `${number.toLocaleString("en")} character${number === 1 ? "" : "s"}`;
}

async function open(file) {
  try {
    $("text").value = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    tell("");
    count();
    $("question").focus();
  } catch {
    tell(`${file.name} is no text in UTF-8.`);
  }
}

function recall(step) {
  const place = Math.min(Math.max(recalled + step, -1), asked.length - 1);
  if (place < 0 || place === recalled) return;
  recalled = place;
  $("question").value = asked[place].question;
}

$("ask").addEventListener("submit", ask);
$("text").addEventListener("input", count);
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
});
$("file").addEventListener("change", (event) => event.target.files[0] && open(event.target.files[0]));
$("question").addEventListener("keydown", (event) => {
  if (event.key === "ArrowUp" || event.key === "ArrowDown") {
    event.preventDefault();
    recall(event.key === "ArrowUp" ? 1 : -1);
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !["INPUT", "TEXTAREA"].includes(document.activeElement.tagName)) {
    event.preventDefault();
    $("question").focus();
  }
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("text").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
  });
}
$("token").addEventListener("change", about);
about();
list();
count();
