// What moved lately as two curves over one time, drawn by uPlot: how much, and which share of it did not have to be sent.
//
// Behind each is a table of the same numbers for those who cannot see it.

import { servers } from "./state.js";
import { $, bytes, cell, changed, duration, percent, plural, rate, row, setText } from "./text.js";

/** The spans that can be chosen: the field of the state, how many samples it has, and how many make a row of the table. */
const SPANS = {
  minutes: { field: "throughput", samples: 300, group: 10, name: "last five minutes" },
  hour: { field: "hour", samples: 60, group: 1, name: "last hour" },
  day: { field: "day", samples: 96, group: 1, name: "last day" },
};
const INTERVALS = { throughput: 1000, hour: 60_000, day: 900_000 };
// From 0 straight up to a few kilobytes, logarithmic above: both a gigabyte and a kilobyte a second can be read.
const KNEE = 1000;
// What may lie between two times on the axis, in seconds: they are told in minutes.
const MINUTES = [60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200];

let span = "minutes";
const plots = {};
let redraw = () => {};

/** Bytes of each sample over all servers, aligned at the newest one, and when it began; null before the first one. */
function series({ field, samples }) {
  const interval = INTERVALS[field];
  const told = servers().filter((server) => server.state && server.reachable && server.state[field]);
  const newest = Math.max(0, ...told.map((server) => server.state.server.now));
  const end = Math.floor(newest / interval) * interval;
  const begun = Array.from({ length: samples }, (_, at) => (end - (samples - at) * interval) / 1000);
  const sums = { file: new Array(samples).fill(null), wire: new Array(samples).fill(null), copied: new Array(samples).fill(null) };
  for (const { state } of told) {
    const { file, wire, copied = [] } = state[field];
    for (const [name, list] of Object.entries({ file, wire, copied })) {
      const length = Math.min(list.length, samples);
      for (let back = 1; back <= length; back += 1) sums[name][samples - back] += list[list.length - back];
    }
  }
  const known = samples - sums.file.findIndex((value) => value !== null);
  return { ...sums, begun, interval, known: known > samples ? 0 : known };
}

const colour = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const hour = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

function axes(size, values) {
  const shared = { stroke: colour("--quiet"), font: "12px system-ui, sans-serif", ticks: { show: false } };
  const grid = { stroke: colour("--line"), width: 1 };
  return [
    { ...shared, grid: { show: false }, size: 28, space: 44, incrs: MINUTES, values: (_, splits) => splits.map(hour) },
    // The wanted ticks are all shown, also on a scale that is not linear.
    { ...shared, grid, size, filter: (_, splits) => splits, ...values },
  ];
}

function options(kind) {
  const shared = {
    width: 300,
    height: 220,
    padding: [8, 18, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { setScale: false, x: false, y: false }, sync: { key: "span" }, points: { size: 7 } },
    hooks: { setCursor: [(plot) => point(kind, plot)] },
  };
  if (kind === "chart") {
    const top = (most) => 10 ** Math.max(6, Math.ceil(Math.log10(Math.max(most ?? 0, 1))));
    const splits = (_, __, ___, high) => {
      const decades = Math.round(Math.log10(high));
      const step = Math.max(1, Math.round((decades - 3) / 4));
      const ticks = [];
      for (let power = decades; power > 3; power -= step) ticks.unshift(10 ** power);
      return [0, ...ticks];
    };
    const text = (_, ticks) => ticks.map((tick) => (tick ? rate(tick).replace(/\.0+ /, " ") : "0"));
    return {
      ...shared,
      scales: { y: { distr: 4, asinh: KNEE, range: (_, low, high) => [0, top(high)] } },
      axes: axes(76, { splits, values: text }),
      series: [
        {},
        { stroke: colour("--file"), fill: colour("--file-area"), width: 2, points: { show: false } },
        { stroke: colour("--wire"), width: 2, dash: [6, 4], points: { show: false } },
      ],
    };
  }
  return {
    ...shared,
    scales: { y: { range: [0, 100] } },
    axes: axes(52, { splits: () => [0, 25, 50, 75, 100], values: (_, splits) => splits.map((tick) => `${tick} %`) }),
    series: [{}, { stroke: colour("--file"), fill: colour("--file-area"), width: 2, spanGaps: true }],
  };
}

/** The numbers at the pointer. */
function point(kind, plot) {
  const tip = $(kind === "chart" ? "tip" : "tip-reused");
  const at = plot.cursor.idx;
  tip.hidden = !plots.series || at === null || at === undefined || plot.cursor.left < 0;
  if (tip.hidden) return;
  const { file, wire, copied, begun, interval } = plots.series;
  const scale = 1000 / interval;
  const ago = duration((begun.length - at) * interval);
  // Before the server started, nothing is known.
  const speed = (count) => (count === null ? "–" : rate(count * scale));
  setText(tip, kind === "chart" ? `${ago} ago\nfiles ${speed(file[at])}\nwire ${speed(wire[at])}`
    : `${ago} ago\nreused ${percent(copied[at], file[at])}\nof ${bytes(file[at] ?? 0)}`);
  const left = plot.cursor.left + plot.bbox.left / devicePixelRatio;
  const half = plot.width / 2;
  tip.style.left = left > half ? "" : `${left + 32}px`;
  tip.style.right = left > half ? `${plot.width - left + 32}px` : "";
}

/** Rows of so many samples each, whole ones only: when they began, and the bytes of all. */
function groups({ file, wire, copied, begun, interval }, size) {
  const rows = new Map();
  begun.forEach((at, index) => {
    const start = Math.floor(at / ((size * interval) / 1000)) * ((size * interval) / 1000);
    const sums = rows.get(start) ?? { file: 0, wire: 0, copied: 0, count: 0, known: 0 };
    sums.count += 1;
    rows.set(start, sums);
    // The server may have begun in the middle of it.
    if (file[index] === null) return;
    sums.file += file[index];
    sums.wire += wire[index];
    sums.copied += copied[index] ?? 0;
    sums.known += 1;
  });
  return [...rows].filter(([, sums]) => sums.count === size && sums.known > 0).reverse();
}

function fill(id, name, rows, cells) {
  if (!changed(id, JSON.stringify([span, rows]))) return;
  setText($(`${id}-caption`), `${name}, ${SPANS[span].name}, the newest first`);
  $(`${id}-rows`).replaceChildren(...rows.map(([start, sums]) => row(
    cell("From", "", new Date(start * 1000).toLocaleTimeString([], { hourCycle: "h23" })),
    ...cells(sums),
  )));
}

/** A number of bytes in words, and exactly for programs. */
function exact(label, count) {
  const made = cell(label, "num", bytes(count));
  made.dataset.bytes = String(count);
  return made;
}

export function drawCharts() {
  const shown = series(SPANS[span]);
  const { file, wire, copied, begun, interval, known } = shown;
  plots.series = shown;
  const scale = 1000 / interval;
  const last = file.length - 1;
  setText($("rate-file"), rate((file[last] ?? 0) * scale));
  setText($("rate-wire"), rate((wire[last] ?? 0) * scale));
  if (changed("charts", JSON.stringify([span, begun[0], file, wire, copied]))) {
    const speed = (list) => list.map((value) => (value === null ? null : value * scale));
    const share = file.map((value, at) => (value > 0 ? Math.min(100, (100 * (copied[at] ?? 0)) / value) : null));
    plots.chart.setData([begun, speed(file), speed(wire)]);
    plots.reused.setData([begun, share]);
    const sum = (list) => list.reduce((total, value) => total + (value ?? 0), 0);
    const most = (list) => rate(Math.max(0, ...list) * scale);
    $("chart").setAttribute("aria-label", `Throughput, ${SPANS[span].name}: files at most ${most(file)}, wire at most `
      + `${most(wire)}; ${plural(known, "sample", "samples")}, in the table that follows`);
    $("chart-reused").setAttribute("aria-label", `Share reused, ${SPANS[span].name}: ${percent(sum(copied), sum(file))} of `
      + `${bytes(sum(file))}, in the table that follows`);
    setText($("span-reused"), file.some((value) => value > 0) ? percent(sum(copied), sum(file)) : "–");
  }
  const rows = groups(shown, SPANS[span].group);
  fill("chart-table", "Throughput", rows, (sums) => [exact("Files", sums.file), exact("Wire", sums.wire)]);
  fill("reused-table", "Share reused", rows, (sums) => [exact("Files", sums.file), exact("Reused", sums.copied),
    cell("Share", "num", percent(sums.copied, sums.file))]);
}

function choose(name) {
  span = name;
  for (const button of document.querySelectorAll("[data-span]")) {
    button.setAttribute("aria-pressed", String(button.dataset.span === name));
  }
  redraw();
}

/** Makes the charts and their buttons; `schedule` has the page drawn. */
export function prepareCharts(schedule) {
  redraw = schedule;
  for (const [name, id] of [["chart", "chart"], ["reused", "chart-reused"]]) {
    const box = $(id);
    plots[name] = new uPlot(options(id), [[], []], box);
    const fit = () => plots[name].setSize({ width: Math.floor(box.clientWidth), height: 220 });
    new ResizeObserver(fit).observe(box);
  }
  for (const button of document.querySelectorAll("[data-span]")) {
    button.addEventListener("click", () => choose(button.dataset.span));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    plots.chart.redraw();
    plots.reused.redraw();
  });
}
