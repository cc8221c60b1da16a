// What a reader can do: filter, sort, pick a trial, switch the theme. All of it works by keyboard.

const $ = (id) => document.getElementById(id);
const TOUCH = matchMedia("(pointer: coarse)");
const CONFIG = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]], scrollZoom: false };
const state = { all: false, limit: 25, sort: "number", down: false };
const NO_MODEBAR = new Set(["importance", "slices"]); // it would lie on their legends and titles
const drawn = new Set();

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, text] of Object.entries(attributes || {})) made.setAttribute(name, text);
  made.append(...children);
  return made;
}

function parseFilter(text) {
  return text.trim().split(/\s+/).filter(Boolean).map((term) => {
    const found = /^([\w.]+)(<=|>=|=|<|>)(.+)$/.exec(term);
    if (!found) return (i) => configuration(i).join(" ").toLowerCase().includes(term.toLowerCase());
    const [, name, sign, wanted] = found, bound = Number(wanted);
    return (i) => {
      const known = name === "trial" ? trials.number[i] : trials.knobs[name] ? trials.knobs[name][i] : value(name, i);
      if (known === null || known === undefined) return wanted === "default" && sign === "=";
      if (sign === "=") return String(known).toLowerCase() === wanted.toLowerCase() || (typeof known === "number" && known === bound);
      if (typeof known !== "number" || Number.isNaN(bound)) return false;
      return sign === "<=" ? known <= bound : sign === ">=" ? known >= bound : sign === "<" ? known < bound : known > bound;
    };
  });
}

function filtered() {
  const tests = parseFilter($("filter").value), missed = $("show-missed").checked, rows = [];
  for (let i = 0; i < COUNT; i++) {
    if (!missed && !trials.met[i] && !trials.baseline[i]) continue;
    if (tests.every((test) => test(i))) rows.push(i);
  }
  return rows;
}

const view = () => ({ x: $("axis-x").value, y: $("axis-y").value, colourBy: $("colour").value, rows: filtered(), all: state.all });

const FIGURES = {
  front() { return frontFigure(view()); },
  night() { return nightFigure(); },
  power() { return powerFigure(); },
  latency() { return latencyFigure($("latency-kind").value); },
  importance() { return importanceFigure(); },
  slices() {
    const many = data.importance.slices.length;
    const made = slicesFigure(filtered(), innerWidth < 700 || many === 4 ? 2 : 3, innerWidth < 560);
    $("slices").style.height = isAlone() ? "" : Math.max(260, 210 * made.rows) + "px";
    return made;
  },
};

function draw(name) {
  const place = $(name), made = FIGURES[name]();
  if (!made.traces.some((t) => t.x.some((v) => v !== null))) {
    if (drawn.has(name)) Plotly.purge(place);
    place.replaceChildren(element("p", { class: "empty" }, "Nothing to show."));
    drawn.delete(name);
    return;
  }
  const isNew = !drawn.has(name);
  if (isNew) place.replaceChildren();
  if (innerWidth < 560 || TOUCH.matches) made.layout.dragmode = false; // a finger scrolls the page
  Plotly.react(place, made.traces, made.layout, { ...CONFIG, displayModeBar: innerWidth < 560 || isAlone() || NO_MODEBAR.has(name) ? false : "hover" });
  drawn.add(name);
  if (!place.dataset.drawn) performance.mark(name + "-drawn");
  place.dataset.drawn = "yes";
  if (isNew) place.on("plotly_click", (event) => { const n = event.points[0].customdata; if (n !== undefined) pick(n, false); });
}

const redraw = (names) => names.filter((n) => drawn.has(n) || $(n).dataset.drawn).forEach(draw);

function refilter() {
  state.limit = 25;
  redraw(["front", "slices"]);
  table();
  const rows = filtered(), v = view();
  const placed = rows.filter((i) => value(v.x, i) !== null && value(v.y, i) !== null).length;
  $("count").textContent = rows.length + " of " + COUNT + " trials" + (placed < rows.length ? ", " + (rows.length - placed) + " without these figures" : "") + ".";
}

const COLUMNS = () => ["number", ...shownMetrics()];

function table() {
  const rows = filtered(), key = state.sort, sign = state.down ? -1 : 1;
  const known = (i) => (key === "number" ? trials.number[i] : value(key, i));
  rows.sort((a, b) => {
    const x = known(a), y = known(b);
    return x === null || y === null ? (x === null) - (y === null) : sign * (x - y);
  });
  const heads = COLUMNS().map((name) => {
    const button = element("button", { type: "button", class: "sort", "data-sort": name }, name === "number" ? "trial" : withUnit(name));
    return element("th", { scope: "col", ...(name === key ? { "aria-sort": state.down ? "descending" : "ascending" } : {}) }, button);
  });
  heads.push(element("th", { scope: "col" }, "SLO"), element("th", { scope: "col" }, "configuration, and why it failed"));
  const body = rows.slice(0, state.limit).map((i) => {
    const role = data.recommendation && data.recommendation.recommended.number === trials.number[i] ? "recommended" : trials.baseline[i] ? "default" : "";
    const cells = shownMetrics().map((name) => element("td", {}, number(value(name, i))));
    const standing = standingOf(i), mark = { "SLO met": "met", "SLO missed": "missed", failed: "failed" }[standing];
    cells.push(element("td", {}, element("span", { class: mark || "" }, mark || standing)));
    cells.push(element("td", {}, (configuration(i).join(" ") || "all defaults") + (trials.reason[i] ? ": " + trials.reason[i] : "")));
    return element("tr", { class: role }, element("th", { scope: "row" }, element("button", { type: "button", class: "pick", "data-trial": trials.number[i] }, trials.number[i])), ...cells);
  });
  $("trial-table").replaceChildren(element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...body));
  $("more").hidden = rows.length <= state.limit;
  $("more").textContent = "Show more (" + Math.max(0, rows.length - state.limit) + ")";
}

function pick(trial, focus) {
  const i = at.get(trial);
  if (i === undefined) return;
  const facts = Object.keys(data.metrics).filter((n) => value(n, i) !== null).map((n) => {
    const ends = (data.intervals[trial] || {})[n];
    return [withUnit(n), number(value(n, i)) + (ends ? " (" + number(ends[0]) + " – " + number(ends[1]) + ")" : "")];
  });
  const knobs = knobNames.map((k) => [k, trials.knobs[k][i] === null ? "default" : String(trials.knobs[k][i])]);
  const list = (rows) => element("dl", {}, ...rows.map(([k, v]) => element("div", {}, element("dt", {}, k), element("dd", {}, v))));
  const title = "Trial " + trial + (trials.baseline[i] ? ", the default" : "") + ": " + standingOf(i) + (trials.confirmed[i] ? ", confirmed by " + trials.confirmed[i] + " measurements" : "");
  const close = element("button", { type: "button" }, "Close");
  close.addEventListener("click", () => { $("detail").replaceChildren(); });
  $("detail").replaceChildren(element("h3", {}, title), ...(trials.reason[i] ? [element("p", {}, trials.reason[i])] : []), list(knobs), list(facts), close);
  if (focus) { $("detail").focus({ preventScroll: true }); $("detail").scrollIntoView({ block: $("detail").offsetHeight > innerHeight ? "start" : "center" }); }
}

function options(select, names, chosen, label) {
  $(select).replaceChildren(...names.map((n) => element("option", { value: n, ...(n === chosen ? { selected: "" } : {}) }, label(n))));
}

function remembered() { try { return localStorage.getItem("tuner-theme") || "auto"; } catch { return "auto"; } }
function remember(choice) { try { localStorage.setItem("tuner-theme", choice); } catch { /* a private window */ } }
const dark = matchMedia("(prefers-color-scheme: dark)");
let theme = remembered();

function applyTheme() {
  document.documentElement.dataset.theme = theme === "auto" ? (dark.matches ? "dark" : "light") : theme;
  $("theme").textContent = "Theme: " + theme;
  redraw(Object.keys(FIGURES));
}

const isAlone = () => document.body.classList.contains("only");

function alone(name) {
  const place = $(name);
  document.body.classList.add("only");
  for (let up = place; up !== document.querySelector("main"); up = up.parentElement) up.classList.add(up.tagName === "SECTION" ? "shown" : "kept");
  place.closest("section").querySelector("h2").classList.add("kept");
  draw(name);
}

function begin() {
  const names = Object.keys(data.metrics), latencies = ["tpot_ms", "ttft_ms", "e2el_ms", "itl_ms"];
  if (!data.windows.length) $("latency-kind").hidden = true;
  options("axis-x", names, data.axes.x, withUnit);
  options("axis-y", names, data.axes.y, withUnit);
  options("colour", ["", ...data.importance.slices], "", (n) => n || "by SLO");
  options("latency-kind", latencies.filter((l) => data.windows.some((w) => w.quantiles_ms[l])), "tpot_ms", (l) => l.replace("_ms", "").toUpperCase());
  $("slices-metric").textContent = withUnit(data.axes.y);
  $("windows-note").textContent = data.windows.length ? data.windows.map((w) => windowName(w) + ": " + (w.repeat === null ? "the search’s window" : "its last repeat") + ", " + number(w.length_s) + " s, power " + w.power_source + ", latency " + w.latency_source).join(" · ") : "No raw records are in the store.";
  applyTheme();
  refilter();
  const only = /^#only=(\w+)$/.exec(location.hash);
  if (only && FIGURES[only[1]]) { alone(only[1]); return; }
  draw("front");
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((e) => e.isIntersecting)) { watcher.unobserve(entry.target); draw(entry.target.id); }
  }, { rootMargin: "600px" });
  Object.keys(FIGURES).filter((n) => n !== "front").forEach((n) => watcher.observe($(n)));
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.trial) pick(Number(button.dataset.trial), true);
  if (button.dataset.sort) { state.down = state.sort === button.dataset.sort && !state.down; state.sort = button.dataset.sort; const name = state.sort; table(); document.querySelector("[data-sort='" + name + "']").focus(); }
});
function exported() { return $("export-" + $("export").value); }
async function copy() {
  try { await navigator.clipboard.writeText(exported().textContent); $("copy").textContent = "Copied"; }
  catch { getSelection().selectAllChildren(exported()); $("copy").textContent = "Selected: press Ctrl+C"; }
}
if ($("export")) {
  $("copy").addEventListener("click", copy);
  $("export").addEventListener("change", () => {
    document.querySelectorAll("[id^=export-]").forEach((text) => { text.hidden = text !== exported(); });
    $("copy").textContent = "Copy";
  });
}
$("theme").addEventListener("click", () => { theme = { auto: "light", light: "dark", dark: "auto" }[theme]; remember(theme); applyTheme(); });
dark.addEventListener("change", applyTheme);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("input", refilter);
$("latency-kind").addEventListener("change", () => draw("latency"));
$("zoom").addEventListener("click", () => { state.all = !state.all; $("zoom").textContent = state.all ? "Show the good region" : "Show all points"; draw("front"); });
$("more").addEventListener("click", () => { state.limit += 200; table(); });
addEventListener("beforeprint", () => Object.keys(FIGURES).forEach(draw));
begin();
