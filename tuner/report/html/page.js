"use strict";
// What a reader can do: filter, sort, pick a trial, switch the theme. All of it works by keyboard.
// The figures come from Python (tuner/report/figures); here they get the theme's colours, and those
// of trials the points that pass the filter.

const data = JSON.parse(document.getElementById("tuner-data").textContent);
const trials = data.trials;
const COUNT = trials.number.length;
const at = new Map(trials.number.map((n, i) => [n, i]));
const knobNames = Object.keys(trials.knobs);

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
// Plotly reads a little HTML in its texts.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

// as `number` in tuner/report/labels.py
function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1000 && size < 1e6) return Math.round(value).toLocaleString("en-US");
  return String(parseFloat(value.toPrecision(4)));
}

// a study without a measurement has no metrics, but axes
const withUnit = (name) => (data.metrics[name] ? data.metrics[name].label + " (" + data.metrics[name].unit + ")" : name);
const value = (name, i) => (trials.metrics[name] ? trials.metrics[name][i] : null);

function configuration(i) {
  const set = knobNames.filter((k) => trials.knobs[k][i] !== null);
  return set.map((k) => k + "=" + trials.knobs[k][i]);
}

// A copy of a figure's part with the theme's colours for names such as `--good`.
function themed(part) {
  if (typeof part === "string") return /^--[a-z]+$/.test(part) ? colour(part.slice(2)) : part;
  if (Array.isArray(part)) return part.map(themed);
  if (part === null || typeof part !== "object") return part;
  const untouched = new Set(["x", "y", "text", "customdata", "base"]);
  return Object.fromEntries(Object.entries(part).map(([key, inner]) => [key, untouched.has(key) && Array.isArray(inner) ? inner : themed(inner)]));
}

function errorBar(template, name, rows) {
  const ends = rows.map((i) => (data.intervals[trials.number[i]] || {})[name]);
  if (!ends.some(Boolean)) return undefined;
  return {
    ...template,
    array: ends.map((e, k) => (e ? e.high - value(name, rows[k]) : 0)),
    arrayminus: ends.map((e, k) => (e ? value(name, rows[k]) - e.low : 0)),
  };
}

// A trace of trials says in `meta` what its axes are; its points are those that pass the filter.
function filled(trace, rows, axes) {
  const meta = trace.meta;
  if (!meta) return trace;
  const ofKnob = (i) => trials.knobs[meta.knob][i];
  const xOf = meta.knob ? (i) => (typeof ofKnob(i) === "number" ? ofKnob(i) : String(ofKnob(i))) : (i) => value(axes.x, i);
  const kept = trace.customdata.map((n) => at.get(n)).filter((i) => rows.has(i) && xOf(i) !== null && value(axes.y, i) !== null);
  if (meta.is_line) kept.sort((a, b) => xOf(a) - xOf(b));
  const made = { ...trace, x: kept.map(xOf), y: kept.map((i) => value(axes.y, i)), text: kept.map((i) => trials.hover[i]), customdata: kept.map((i) => trials.number[i]) };
  if (trace.name) made.name = trace.name + " (" + kept.length + ")";
  if (meta.bars) Object.assign(made, { error_x: errorBar(meta.bars, axes.x, kept), error_y: errorBar(meta.bars, axes.y, kept) });
  return made;
}

// What is confirmed (else what met the SLOs), the default and the bounds decide what is seen first.
function viewRange(name, rows) {
  const isConfirmed = trials.confirmed.some((count, i) => count && !trials.baseline[i]);
  const near = rows.filter((i) => trials.baseline[i] || (isConfirmed ? trials.confirmed[i] : trials.met[i])).map((i) => value(name, i)).filter((v) => v !== null);
  const all = [...near, ...data.slos.filter((s) => s.metric === name).map((s) => s.bound)];
  if (all.length < 2) return undefined;
  const low = Math.min(...all), high = Math.max(...all), pad = 0.12 * (high - low || high || 1);
  return [Math.max(low - pad, low > 0 ? 0 : low - pad), high + pad];
}

// The bounds of the SLOs on whichever axes were chosen.
function sloMarks(x, y, range) {
  const shapes = [], annotations = [];
  for (const slo of data.slos) {
    const mark = slo.metric === x ? slo.upright : slo.metric === y ? slo.level : null;
    if (!mark) continue;
    const side = mark === slo.upright ? { xanchor: range && slo.bound < (range[0] + range[1]) / 2 ? "left" : "right" } : {};
    shapes.push(themed(mark.line));
    annotations.push({ ...themed(mark.note), ...side });
  }
  return { shapes, annotations };
}

function frontFigure({ x, y, rows, all, colourBy }) {
  const made = themed(data.figures.front), passing = new Set(rows);
  const isMain = x === data.axes.x && y === data.axes.y;
  const traces = made.data.filter((t) => isMain || !t.meta.is_line).map((t) => filled(t, passing, { x, y })).filter((t) => t.x.length);
  for (const trace of traces.filter((t) => t.meta.has_knob_colours)) trace.marker = knobMarker(trace, colourBy);
  const range = all ? {} : { x: viewRange(x, rows), y: viewRange(y, rows) };
  const axis = (old, name, shown) => ({ ...old, title: { ...old.title, text: withUnit(name) }, range: shown });
  return { traces, layout: { ...made.layout, xaxis: axis(made.layout.xaxis, x, range.x), yaxis: axis(made.layout.yaxis, y, range.y), ...sloMarks(x, y, range.x) } };
}

function knobMarker(trace, knob) {
  if (!knob) return trace.marker;
  const values = trace.customdata.map((n) => trials.knobs[knob][at.get(n)]);
  if (values.every((v) => v === null || typeof v === "number")) {
    return { ...trace.marker, color: values, colorscale: "Viridis", showscale: true, colorbar: { title: { text: plain(knob), side: "right", font: { size: 13 } }, thickness: 12 } };
  }
  const kinds = [...new Set(values.map(String))].sort();
  const palette = ["#3b82f6", "#e07b39", "#8b5cf6", "#10b981", "#d4437c", "#a3a322", "#5c9ead", "#9c755f"];
  return { ...trace.marker, color: values.map((v) => palette[kinds.indexOf(String(v)) % palette.length]) };
}

function slicesFigure(rows, columns, isNarrow) {
  const { traces, layouts } = data.figures.slices, passing = new Set(rows);
  const layout = themed(isNarrow ? layouts.narrow : columns === 2 ? layouts.two_columns : layouts.three_columns);
  const range = viewRange(data.axes.y, rows);
  Object.keys(layout).filter((key) => key.startsWith("yaxis")).forEach((key) => { layout[key].range = range; });
  return { traces: themed(traces).map((t) => filled(t, passing, data.axes)), layout, rows: layout.grid.rows };
}

const ready = (figure) => ({ traces: themed(figure.data), layout: themed(figure.layout) });

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
  night() { return ready(data.figures.night); },
  power() { return ready(data.figures.power); },
  latency() { return ready(data.figures.latency[$("latency-kind").value] || { data: [], layout: {} }); },
  importance() { return ready(data.figures.importance); },
  slices() {
    const many = data.sliced_knobs.length;
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

const COLUMNS = () => ["number", ...data.shown_metrics];

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
    const cells = data.shown_metrics.map((name) => element("td", { "data-label": withUnit(name) }, number(value(name, i))));
    const standing = trials.outcome[i], mark = { "SLO met": "met", "SLO missed": "missed", failed: "failed" }[standing];
    cells.push(element("td", { "data-label": "SLO" }, element("span", { class: mark || "" }, mark || standing)));
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
    return [withUnit(n), number(value(n, i)) + (ends ? " (" + number(ends.low) + " – " + number(ends.high) + ")" : "")];
  });
  const knobs = knobNames.map((k) => [k, trials.knobs[k][i] === null ? "default" : String(trials.knobs[k][i])]);
  const list = (rows) => element("dl", {}, ...rows.map(([k, v]) => element("div", {}, element("dt", {}, k), element("dd", {}, v))));
  const title = "Trial " + trial + (trials.baseline[i] ? ", the default" : "") + ": " + trials.outcome[i] + (trials.confirmed[i] ? ", confirmed by " + trials.confirmed[i] + " measurements" : "");
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
  const names = Object.keys(data.metrics), latencies = [...new Set(["tpot_ms", "ttft_ms", "e2el_ms", ...Object.keys(data.figures.latency)])];
  if (!Object.keys(data.figures.latency).length) $("latency-kind").hidden = true;
  options("axis-x", names, data.axes.x, withUnit);
  options("axis-y", names, data.axes.y, withUnit);
  options("colour", ["", ...data.sliced_knobs], "", (n) => n || "by SLO");
  options("latency-kind", latencies.filter((l) => data.figures.latency[l]), "tpot_ms", (l) => data.figures.latency[l].layout.xaxis.title.text.replace(" (ms)", ""));
  $("slices-metric").textContent = withUnit(data.axes.y);
  $("windows-note").textContent = data.windows_note;
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
