"use strict";
// What each figure shows: data in, Plotly traces and layout out. Nothing here touches the page.

const data = JSON.parse(document.getElementById("tuner-data").textContent);
const trials = data.trials;
const COUNT = trials.number.length;
const at = new Map(trials.number.map((n, i) => [n, i]));
const knobNames = Object.keys(trials.knobs);

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
// Plotly reads a little HTML in its texts.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1000 && size < 1e6) return Math.round(value).toLocaleString("en-US");
  return String(parseFloat(value.toPrecision(4)));
}

function metricLabel(name) {
  const cut = name.indexOf("_");
  if (/^(mean|p\d+)_\w+_ms$/.test(name)) {
    return name.slice(0, cut) + " " + name.slice(cut + 1, -3).toUpperCase();
  }
  return name.replace(/_(j|w|tok_s|req_s)$/, "").replaceAll("_", " ");
}

function withUnit(name) {
  const known = data.metrics[name];
  return metricLabel(name) + (known ? " (" + known.unit + ")" : "");
}

const value = (name, i) => (trials.metrics[name] ? trials.metrics[name][i] : null);

function configuration(i) {
  const set = knobNames.filter((k) => trials.knobs[k][i] !== null);
  return set.map((k) => k + "=" + trials.knobs[k][i]);
}

function standingOf(i) {
  if (trials.state[i] === "running") return "running";
  if (trials.met[i] === null) return "failed";
  return trials.met[i] ? "SLO met" : "SLO missed";
}

function hoverText(i) {
  const words = ["<b>trial " + trials.number[i] + "</b>" + (trials.baseline[i] ? " (default)" : "") + " · " + standingOf(i)];
  if (trials.confirmed[i] !== null) words.push("confirmed by " + trials.confirmed[i] + " measurements");
  for (const name of shownMetrics()) {
    if (value(name, i) !== null) words.push(plain(withUnit(name)) + ": <b>" + number(value(name, i)) + "</b>");
  }
  const set = configuration(i);
  words.push("", ...(set.length ? set.map(plain) : ["all defaults"]));
  if (trials.reason[i]) words.push("", plain(wrap(trials.reason[i])).replaceAll("\n", "<br>"));
  return words.join("<br>");
}

const wrap = (text) => text.replace(/(.{1,60})(\s+|$)/g, "$1\n").trim();

function shownMetrics() {
  const names = [data.axes.y, ...data.slos.map((s) => s.metric), data.axes.x, "output_throughput_tok_s", "mean_power_w"];
  return [...new Set(names)].filter((n) => data.metrics[n]);
}

function layout(extra) {
  const axis = { gridcolor: colour("line"), zeroline: false, linecolor: colour("line"), ticks: "", automargin: true };
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("ink"), family: "system-ui, sans-serif", size: 13 },
    margin: { l: 56, r: 14, t: 10, b: 44 }, hovermode: "closest", dragmode: "zoom",
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink"), size: 12.5 }, align: "left" },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 12.5 } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("faint"), activecolor: colour("ink") },
  };
  const merged = { ...base, ...extra };
  for (const key of Object.keys(merged).filter((k) => /^[xy]axis/.test(k))) {
    merged[key] = { ...axis, ...merged[key] };
    if (merged[key].title) merged[key].title = { font: { size: 13 }, ...merged[key].title };
  }
  return merged;
}

// On which side of an upright line its note has room; `range` is that of the axis, if known.
const besides = (bound, range) => (range && bound < (range[0] + range[1]) / 2 ? "left" : "right");

function sloLines(xName, yName, range) {
  const shapes = [], annotations = [];
  for (const slo of data.slos) {
    const line = { color: colour("warn"), width: 1.5, dash: "dash" };
    const note = { text: plain(slo.text), showarrow: false, font: { color: colour("warn"), size: 12 }, bgcolor: colour("card") };
    if (slo.metric === xName) {
      shapes.push({ type: "line", x0: slo.bound, x1: slo.bound, yref: "paper", y0: 0, y1: 1, line });
      annotations.push({ ...note, x: slo.bound, yref: "paper", y: 1, xanchor: besides(slo.bound, range), yanchor: "top" });
    } else if (slo.metric === yName) {
      shapes.push({ type: "line", y0: slo.bound, y1: slo.bound, xref: "paper", x0: 0, x1: 1, line });
      annotations.push({ ...note, y: slo.bound, xref: "paper", x: 1, xanchor: "right", yanchor: "bottom" });
    }
  }
  return { shapes, annotations };
}

function errorBar(name, rows) {
  const ends = rows.map((i) => (data.intervals[trials.number[i]] || {})[name]);
  if (!ends.some(Boolean)) return undefined;
  const arrays = { array: [], arrayminus: [] };
  rows.forEach((i, k) => {
    arrays.array.push(ends[k] ? ends[k][1] - value(name, i) : 0);
    arrays.arrayminus.push(ends[k] ? value(name, i) - ends[k][0] : 0);
  });
  return { type: "data", symmetric: false, ...arrays, thickness: 1.3, width: 3 };
}

function points(name, rows, x, y, marker, extra) {
  const kept = rows.filter((i) => value(x, i) !== null && value(y, i) !== null);
  return {
    type: "scatter", mode: "markers", name: name + " (" + kept.length + ")", marker,
    x: kept.map((i) => value(x, i)), y: kept.map((i) => value(y, i)),
    text: kept.map(hoverText), customdata: kept.map((i) => trials.number[i]),
    hovertemplate: "%{text}<extra></extra>", ...(extra ? extra(kept) : {}),
  };
}

function frontFigure(view) {
  const { x, y, rows } = view;
  const best = data.recommendation && data.recommendation.recommended.number;
  const is = (test) => rows.filter(test);
  const isBest = (i) => trials.number[i] === best;
  const searched = (i) => !trials.front[i] && !trials.baseline[i] && !isBest(i);
  const bars = (kept) => ({ error_x: errorBar(x, kept), error_y: errorBar(y, kept) });
  const traces = [
    points("SLO missed", is((i) => searched(i) && !trials.met[i]), x, y, { symbol: "x-thin", size: 7, line: { color: colour("faint"), width: 1.5 } }),
    points("SLO met", is((i) => searched(i) && trials.met[i]), x, y, knobMarker(is((i) => searched(i) && trials.met[i] && value(x, i) !== null && value(y, i) !== null), view.colourBy)),
  ];
  const members = is((i) => trials.front[i]).sort((a, b) => value(x, a) - value(x, b));
  const isMainFront = x === data.axes.x && y === data.axes.y;
  if (isMainFront && members.length > 1) {
    traces.push({
      type: "scatter", mode: "lines", x: members.map((i) => value(x, i)), y: members.map((i) => value(y, i)),
      line: { color: colour("good"), width: 1.5, shape: "hv" }, hoverinfo: "skip", showlegend: false,
    });
  }
  const stage = data.front.confirmed ? "confirmed front" : "front, unconfirmed";
  traces.push(
    points(stage, is((i) => trials.front[i] && !isBest(i) && !trials.baseline[i]), x, y, { size: 11, color: colour("good"), line: { color: colour("card"), width: 1.5 } }, bars),
    points("default", is((i) => trials.baseline[i] && !isBest(i)), x, y, { symbol: "diamond", size: 14, color: colour("blue"), line: { color: colour("card"), width: 1.5 } }, bars),
    points("recommended", is(isBest), x, y, { symbol: "star", size: 20, color: colour("good"), line: { color: colour("card"), width: 1.5 } }, bars),
  );
  const range = view.all ? {} : { x: viewRange(x, rows), y: viewRange(y, rows) };
  return {
    traces: traces.filter((t) => t.x.length),
    layout: layout({
      xaxis: { title: { text: withUnit(x) }, range: range.x },
      yaxis: { title: { text: withUnit(y) }, range: range.y }, ...sloLines(x, y, range.x),
    }),
  };
}

// The good points, the default and the bounds decide what is seen first; far misses lie outside.
function viewRange(name, rows) {
  const near = rows.filter((i) => trials.met[i] || trials.baseline[i]).map((i) => value(name, i)).filter((v) => v !== null);
  const bounds = data.slos.filter((s) => s.metric === name).map((s) => s.bound);
  const all = [...near, ...bounds];
  if (all.length < 2) return undefined;
  const low = Math.min(...all), high = Math.max(...all), pad = 0.12 * (high - low || high || 1);
  return [Math.max(low - pad, low > 0 ? 0 : low - pad), high + pad];
}

function knobMarker(rows, knob) {
  const marker = { size: 7.5, color: colour("dot"), opacity: 0.85 };
  if (!knob) return marker;
  const values = rows.map((i) => trials.knobs[knob][i]);
  if (values.every((v) => v === null || typeof v === "number")) {
    return { ...marker, color: values, colorscale: "Viridis", showscale: true, colorbar: { title: { text: plain(knob), side: "right", font: { size: 13 } }, thickness: 12 } };
  }
  const kinds = [...new Set(values.map(String))].sort();
  const palette = ["#3b82f6", "#e07b39", "#8b5cf6", "#10b981", "#d4437c", "#a3a322", "#5c9ead", "#9c755f"];
  return { ...marker, color: values.map((v) => palette[kinds.indexOf(String(v)) % palette.length]) };
}

function nightFigure() {
  const growth = data.growth, hours = data.virtual ? "virtual hours since the start" : "hours since the start";
  const line = (axis, column, name, shade) => ({
    type: "scatter", mode: "lines", name, yaxis: axis, showlegend: false, connectgaps: false,
    x: growth.map((g) => g[0]), y: growth.map((g) => (g[column] === null ? null : column === 1 ? 100 * g[column] : g[column])),
    text: growth.map((g) => "after trial " + g[3]), line: { color: shade, width: 2, shape: "hv" },
    hovertemplate: "%{text}<br>" + name + " %{y:.4g}<extra></extra>",
  });
  const hasGrowth = growth.some((g) => g[2] !== null);
  const traces = hasGrowth ? [line("y", 1, "hypervolume %", colour("good")), line("y2", 2, "least J/token", colour("blue"))] : [];
  const kinds = [
    ["launch", colour("warn"), (s) => s[4] !== null],
    ["measured", colour("good"), (s) => s[5] && s[6] === null],
    ["failed or missed", colour("bad"), (s) => !s[5] || s[6] !== null],
  ];
  kinds.forEach(([name, shade, test], kind) => {
    const some = data.spans.filter(test);
    traces.push({
      type: "bar", orientation: "h", name, yaxis: "y3", marker: { color: shade, line: { width: 0 } }, legendgroup: name,
      y: some.map((s) => s[0]),
      base: some.map((s) => (kind === 0 ? s[2] : s[2] + (s[4] || 0))),
      x: some.map((s) => Math.max(kind === 0 ? s[4] : s[3] - (s[4] || 0), 0)),
      text: some.map((s) => "<b>" + s[0] + ", trial " + s[1] + "</b><br>" + (kind === 0 ? "launch of " + number(3600 * s[4]) : "in all " + number(3600 * s[3])) + " s" + (data.virtual ? "" : ", began " + plain(s[7])) + (s[6] ? "<br>" + plain(wrap(s[6])).replaceAll("\n", "<br>") : "")),
      textposition: "none", hovertemplate: "%{text}<extra></extra>", customdata: some.map((s) => s[1]),
    });
  });
  traces.push({
    type: "scatter", mode: "markers", name: "event", yaxis: "y3", marker: { symbol: "triangle-down", size: 11, color: colour("ink") },
    x: data.events.map((e) => e[0]), y: data.events.map(() => "events"),
    text: data.events.map((e) => "<b>" + plain(e[1]) + "</b>" + (e[3] === null ? "" : " trial " + e[3]) + "<br>" + plain(wrap(e[2])).replaceAll("\n", "<br>")),
    hovertemplate: "%{text}<extra></extra>",
  });
  const lanes = ["search", "default again", "confirmation", "events"].filter((l) => (l === "events" ? data.events.length : data.spans.some((s) => s[0] === l)));
  const above = hasGrowth ? {
    yaxis: { domain: [0.68, 1], title: { text: "hypervolume<br>%" }, rangemode: "tozero" },
    yaxis2: { domain: [0.36, 0.62], title: { text: "least<br>J/token" } },
  } : {};
  return {
    traces,
    layout: layout({
      barmode: "overlay", bargap: hasGrowth ? 0.35 : 0.7, margin: { l: 96, r: 14, t: 30, b: 44 },
      xaxis: { title: { text: hours }, anchor: "y3", rangemode: "tozero" }, ...above,
      yaxis3: { domain: [0, hasGrowth ? 0.3 : 1], categoryorder: "array", categoryarray: lanes.slice().reverse(), showgrid: false },
    }),
  };
}

const windowColour = (k) => [colour("blue"), colour("good"), colour("warn")][k % 3];
const windowName = (w) => w.role + ", trial " + w.trial;

function powerFigure() {
  const traces = [];
  data.windows.forEach((w, k) => {
    const hover = "%{x:.1f} s<br>" + plain(windowName(w));
    traces.push({ type: "scatter", mode: "lines", name: windowName(w), legendgroup: w.role, x: w.power_w[0], y: w.power_w[1], line: { color: windowColour(k), width: 1.6 }, hovertemplate: hover + "<br><b>%{y:.0f} W</b><extra></extra>" });
    if (w.sm_clock_mhz) traces.push({ type: "scatter", mode: "lines", name: "SM clock", legendgroup: w.role, showlegend: false, yaxis: "y3", x: w.sm_clock_mhz[0], y: w.sm_clock_mhz[1], line: { color: windowColour(k), width: 1.4 }, hovertemplate: hover + "<br><b>%{y:.0f} MHz</b><extra></extra>" });
    traces.push({ type: "scatter", mode: "lines", name: "running", legendgroup: w.role, showlegend: false, yaxis: "y2", x: w.running[0], y: w.running[1], line: { color: windowColour(k), width: 1.4 }, hovertemplate: hover + "<br>%{y:.0f} running<extra></extra>" });
    traces.push({ type: "scatter", mode: "lines", name: "waiting", legendgroup: w.role, showlegend: false, yaxis: "y2", x: w.waiting[0], y: w.waiting[1], line: { color: windowColour(k), width: 1.2, dash: "dot" }, hovertemplate: hover + "<br>%{y:.0f} waiting<extra></extra>" });
  });
  const start = { type: "line", x0: 0, x1: 0, yref: "paper", y0: 0, y1: 1, line: { color: colour("soft"), width: 1, dash: "dot" } };
  const hasClock = data.windows.some((w) => w.sm_clock_mhz);
  const clock = hasClock ? { yaxis3: { domain: [0.33, 0.57], title: { text: "MHz" }, nticks: 5 } } : {};
  return {
    traces,
    layout: layout({
      shapes: [start], margin: { l: 60, r: 14, t: 30, b: 44 }, xaxis: { title: { text: "s" }, anchor: "y2" },
      yaxis: { domain: [hasClock ? 0.63 : 0.45, 1], title: { text: "W" }, rangemode: "tozero" },
      yaxis2: { domain: [0, hasClock ? 0.27 : 0.36], title: { text: "requests" }, rangemode: "tozero" }, ...clock,
    }),
  };
}

function latencyFigure(kind) {
  const shares = data.shares.map((s) => 100 * s);
  const traces = data.windows.map((w, k) => ({
    type: "scatter", mode: "lines", name: windowName(w), x: w.quantiles_ms[kind] || [], y: shares,
    line: { color: windowColour(k), width: 2 }, hovertemplate: plain(windowName(w)) + "<br>%{y:.1f} % within <b>%{x:.4g} ms</b><extra></extra>",
  }));
  const shapes = [], annotations = [];
  const most = Math.max(...traces.flatMap((t) => t.x));
  for (const slo of data.slos.filter((s) => s.metric.endsWith("_" + kind))) {
    shapes.push({ type: "line", x0: slo.bound, x1: slo.bound, yref: "paper", y0: 0, y1: 1, line: { color: colour("warn"), width: 1.5, dash: "dash" } });
    annotations.push({ x: slo.bound, yref: "paper", y: 0, text: plain(slo.text), showarrow: false, xanchor: besides(slo.bound, [0, Math.max(most, slo.bound)]), yanchor: "bottom", font: { color: colour("warn"), size: 12 } });
  }
  return { traces, layout: layout({ shapes, annotations, margin: { l: 60, r: 14, t: 30, b: 44 }, xaxis: { title: { text: kind.replace("_ms", "").toUpperCase() + " (ms)" }, rangemode: "tozero" }, yaxis: { title: { text: "% of requests" }, range: [0, 101] } }) };
}

function importanceFigure() {
  const names = Object.keys(data.importance.shares);
  const knobs = data.importance.slices.slice().reverse();
  const shades = [colour("good"), colour("blue")];
  const traces = names.slice().reverse().map((name) => {
    const share = data.importance.shares[name];
    return {
      type: "bar", orientation: "h", name: metricLabel(name), y: knobs, x: knobs.map((k) => (k in share ? 100 * share[k] : null)),
      marker: { color: shades[names.indexOf(name) % 2] }, hovertemplate: "%{y}<br>%{x:.0f} % of the variance of " + plain(metricLabel(name)) + "<extra></extra>",
    };
  });
  return { traces, layout: layout({ bargap: 0.3, margin: { l: 10, r: 14, t: 30, b: 44 }, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "reversed" }, xaxis: { title: { text: "% of the variance" }, rangemode: "tozero" }, yaxis: { automargin: true } }) };
}

function slicesFigure(rows, columns, isNarrow) {
  const y = data.axes.y, knobs = data.importance.slices, traces = [];
  const grid = { rows: Math.ceil(knobs.length / columns), columns: Math.min(columns, knobs.length), pattern: "independent", xgap: isNarrow ? 0.24 : 0.14, ygap: 0.4 };
  const extra = { grid, showlegend: false, annotations: [], margin: { l: 56, r: 10, t: 24, b: 30 } };
  knobs.forEach((knob, k) => {
    const suffix = k ? String(k + 1) : "";
    for (const met of [false, true]) {
      const kept = rows.filter((i) => value(y, i) !== null && !!trials.met[i] === met && trials.knobs[knob][i] !== null);
      traces.push({
        type: "scatter", mode: "markers", xaxis: "x" + suffix, yaxis: "y" + suffix, x: kept.map((i) => trials.knobs[knob][i]).map((v) => (typeof v === "number" ? v : String(v))), y: kept.map((i) => value(y, i)),
        marker: met ? { size: 6, color: colour("good"), opacity: 0.75 } : { symbol: "x-thin", size: 5, line: { color: colour("faint"), width: 1.3 } },
        text: kept.map(hoverText), hovertemplate: "%{text}<extra></extra>", customdata: kept.map((i) => trials.number[i]),
      });
    }
    const numbers = trials.knobs[knob].filter((v) => typeof v === "number");
    const isWide = numbers.length && Math.min(...numbers) > 0 && Math.max(...numbers) / Math.min(...numbers) > 20;
    const ticks = [...new Set(numbers)].sort((a, b) => a - b);
    extra["xaxis" + suffix] = { type: isWide ? "log" : undefined, title: undefined, nticks: isNarrow ? 3 : 6, ...(isWide && ticks.length <= 12 ? { tickvals: ticks, ticktext: ticks.map((t, i) => (isNarrow && i % 2 ? "" : String(t))), tickangle: ticks.length > 6 ? -45 : 0 } : {}) };
    extra["yaxis" + suffix] = { nticks: 5, range: viewRange(y, rows) };
    extra.annotations.push({ text: "<b>" + plain(knob) + "</b>", xref: "x" + suffix + " domain", yref: "y" + suffix + " domain", x: isNarrow ? -0.3 : 0, y: 1.02, xanchor: "left", yanchor: "bottom", showarrow: false, font: { size: isNarrow ? 10.5 : 12.5 } });
  });
  return { traces, layout: layout(extra), rows: grid.rows };
}
