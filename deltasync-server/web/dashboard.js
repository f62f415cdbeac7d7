// The live page: it holds the newest state, patches it with each event, and draws what has changed.
//
// What peers named (paths, messages, addresses) only ever becomes text of a node, never markup, and stands in a <bdi>.

"use strict";

const HISTORY_MAX = 200;
const ERRORS_MAX = 100;
const HISTORY_FIRST = 10;
// Milliseconds without an event after which the stream is opened anew, and after which the page says that it is lost.
const STREAM_QUIET = 20_000;
const STREAM_LOST = 25_000;
const STREAM_RETRY = 2_000;
const SAMPLES = 300;

const $ = (id) => document.getElementById(id);

// ---- text ----

const UNITS = ["B", "KB", "MB", "GB", "TB", "PB", "EB"];

/** A number of bytes with three digits that count. */
function bytes(count) {
  let unit = 0;
  while (count >= 999.5 && unit < UNITS.length - 1) {
    count /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || count >= 99.95 ? 0 : count >= 9.995 ? 1 : 2;
  return `${count.toFixed(digits)} ${UNITS[unit]}`;
}

const rate = (count) => `${bytes(count)}/s`;

/** A share as percent: never 100 unless it is all. */
function percent(part, whole) {
  if (!(whole > 0)) return "–";
  const share = (100 * part) / whole;
  if (share >= 100) return "100 %";
  const digits = share >= 99 ? 2 : 1;
  return `${(Math.floor(share * 10 ** digits) / 10 ** digits).toFixed(digits)} %`;
}

/** A time in milliseconds, in the two units that count. */
function duration(ms) {
  if (!(ms >= 0)) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** How long something has been going on: whole seconds. */
const age = (ms) => (ms >= 0 && ms < 60_000 ? `${Math.floor(ms / 1000)} s` : duration(ms));

function clock(ms) {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return "–";
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  const today = date.toDateString() === new Date().toDateString();
  return today ? time : `${date.toLocaleDateString([], { day: "numeric", month: "short" })} ${time}`;
}

const plural = (count, one, many) => `${count.toLocaleString()} ${count === 1 ? one : many}`;

/** Text of strangers with everything invisible written out; the server has done the same. */
function visible(text) {
  return text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

// ---- nodes ----

function node(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** Text of strangers, kept from turning its surroundings. */
function isolated(text, className) {
  return node("bdi", className, visible(text));
}

function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** The directory above, the name below, the whole in the tooltip. */
function pathParts(path) {
  const slash = path.lastIndexOf("/");
  return { dir: path.slice(0, slash + 1), name: path.slice(slash + 1) };
}

function cell(label, className, ...children) {
  const made = node("td", className, ...children);
  made.setAttribute("role", "cell");
  made.dataset.label = label;
  return made;
}

function row(...cells) {
  const made = node("tr", "", ...cells);
  made.setAttribute("role", "row");
  return made;
}

// ---- the state ----

let state = null;
// When the newest event came, by this page's clock.
let heard = 0;

/** Every server as { label, reachable, error, state }, one of them without a label on a server's own dashboard. */
function servers() {
  if (!state) return [];
  if (!state.servers) return [{ label: "", reachable: true, error: null, state }];
  return state.servers.map((server) => ({ ...server, label: server.address }));
}

/** One list out of those of all servers, each entry with its server's label. */
function gather(list, { live = false } = {}) {
  return servers().flatMap((server) => {
    if (!server.state || (live && !server.reachable)) return [];
    return server.state[list].map((entry) => ({ ...entry, server: server.label, at: server.state.server.now }));
  });
}

function patch(update) {
  for (const [name, value] of Object.entries(update)) {
    if (name === "history") state.history = [...value, ...state.history].slice(0, HISTORY_MAX);
    else if (name === "errors") state.errors = [...value, ...state.errors].slice(0, ERRORS_MAX);
    else state[name] = value;
  }
}

// ---- the stream ----

let source = null;
let retry = 0;

function connect() {
  clearTimeout(retry);
  if (source) source.close();
  source = new EventSource("/api/events");
  const opened = source;
  const take = (apply) => (event) => {
    if (opened !== source) return;
    apply(JSON.parse(event.data));
    heard = Date.now();
    show("live");
    schedule();
  };
  opened.addEventListener("snapshot", take((whole) => { state = whole; }));
  opened.addEventListener("update", take(patch));
  opened.addEventListener("error", () => {
    if (opened !== source) return;
    show("lost");
    // The browser tries again by itself unless the answer was no stream at all.
    if (opened.readyState === EventSource.CLOSED) retry = setTimeout(connect, STREAM_RETRY);
  });
}

function watchStream() {
  const quiet = Date.now() - heard;
  if (heard && quiet > STREAM_LOST) show("lost");
  if (heard && quiet > STREAM_QUIET && source.readyState === EventSource.OPEN) connect();
}

function show(link) {
  const pill = $("link");
  if (pill.dataset.state !== link) {
    pill.dataset.state = link;
    pill.textContent = link === "live" ? "live" : "reconnecting";
  }
  const notice = $("notice");
  notice.hidden = link === "live";
  if (link !== "live") {
    setText(notice, heard ? `The connection is lost. What you see is from ${clock(heard)}; trying again.`
      : "The server does not answer; trying again.");
  }
}

// ---- drawing ----

let scheduled = false;

function schedule() {
  if (scheduled) return;
  scheduled = true;
  // A hidden page draws nothing; it catches up when it is seen again.
  requestAnimationFrame(() => {
    scheduled = false;
    draw();
  });
}

function draw() {
  if (!state) return;
  document.body.classList.toggle("fleet", Boolean(state.servers));
  drawGlance();
  drawServers();
  drawTransfers();
  drawChart();
  drawHistory();
  drawClients();
  drawErrors();
  drawScrub();
}

function drawGlance() {
  const known = servers().filter((server) => server.state);
  const live = known.filter((server) => server.reachable);
  const sum = (pick, list = known) => list.reduce((total, server) => total + pick(server.state), 0);
  const running = gather("transfers", { live: true });
  const moving = (field) => running.reduce((total, transfer) => total + transfer[field], 0);

  const copied = sum((s) => s.totals.copied) + moving("copied");
  const files = copied + sum((s) => s.totals.literal) + moving("literal");
  const wire = sum((s) => s.totals.wire_sent + s.totals.wire_received);
  const share = percent(copied, files);
  const figure = $("reused");
  if (figure.dataset.share !== share) {
    figure.dataset.share = share;
    figure.classList.toggle("none", share === "–");
    figure.replaceChildren(share.replace(" %", ""), ...(share === "–" ? [] : [node("small", "", "%")]));
  }
  const ended = sum((s) => s.totals.push.done + s.totals.pull.done);
  setText($("reused-text"), files > 0
    ? `${bytes(copied)} of ${bytes(files)}` + (ended ? ` in ${plural(ended, "file", "files")}` : "")
    : "No file has been synced yet.");
  setText($("file-bytes"), bytes(files));
  setText($("wire-bytes"), bytes(wire));
  const most = Math.max(files, wire, 1);
  $("file-bar").style.width = `${(100 * files) / most}%`;
  $("wire-bar").style.width = wire ? `max(4px, ${(100 * wire) / most}%)` : "0";

  const count = sum((s) => s.server.running, live);
  setText($("tile-clients"), sum((s) => s.server.clients, live).toLocaleString());
  setText($("tile-clients-note"), `${sum((s) => s.totals.sessions).toLocaleString()} since the start`);
  setText($("tile-running"), count.toLocaleString());
  setText($("tile-running-note"), count ? rate(moving("rate")) : "idle");
  const [pushes, pulls] = ["push", "pull"].map((verb) => sum((s) => s.totals[verb].done));
  setText($("tile-done"), (pushes + pulls).toLocaleString());
  setText($("tile-done-note"), `${plural(pushes, "push", "pushes")}, ${plural(pulls, "pull", "pulls")}`);
  const verbs = ["push", "pull", "list", "root"];
  const failed = verbs.reduce((total, verb) => total + sum((s) => s.totals[verb].failed), 0);
  const lost = sum((s) => s.totals.sessions_failed);
  const refused = sum((s) => (s.totals.sessions_refused || 0) + (s.totals.transfers_refused || 0));
  const repairs = sum((s) => s.totals.repairs);
  setText($("tile-failed"), failed.toLocaleString());
  $("tile-failed-box").classList.toggle("bad", failed > 0);
  const notes = [];
  if (lost) notes.push(plural(lost, "connection", "connections"));
  if (refused) notes.push(`${refused.toLocaleString()} refused`);
  if (repairs) notes.push(plural(repairs, "repair", "repairs"));
  setText($("tile-failed-note"), notes.join(", ") || (failed ? "since the start" : "all is well"));
  document.title = count ? `${count} running · deltasync` : "deltasync";

  const about = $("about");
  const facts = [];
  if (state.servers) {
    const down = servers().length - live.length;
    facts.push(plural(servers().length, "server", "servers"));
    if (down) facts.push(`${down} unreachable`);
  } else {
    const { version, listen, finishing } = state.server;
    facts.push(`version ${version}`, listen, `up ${uptime(state)}`);
    if (finishing) facts.push("shutting down");
  }
  const text = facts.join("\n");
  if (about.dataset.text !== text) {
    about.dataset.text = text;
    about.replaceChildren(...facts.map((fact) => isolated(fact)));
  }
  const first = live[0] ?? known[0];
  if (first) setText($("command"), `deltasync push FILE deltasync://${visible(first.state.server.listen)}/`);
}

const uptime = (of) => age(of.server.now - of.server.started);

function drawServers() {
  $("servers").hidden = !state.servers;
  if (!state.servers) return;
  const rows = servers().map(({ label, reachable, error, state: of }) => {
    const result = node("span", `result ${reachable ? "done" : "failed"}`, reachable ? "up" : "unreachable");
    const status = cell("State", "whole", result);
    if (reachable && of.server.finishing) result.textContent = "shutting down";
    if (error) status.append(isolated(error, "why"));
    const server = cell("Server", "wide", isolated(label));
    if (!of) return row(server, status);
    const { totals } = of;
    return row(
      server,
      status,
      cell("Version", "", isolated(of.server.version)),
      cell("Uptime", "num", reachable ? uptime(of) : "–"),
      cell("Clients", "num", reachable ? of.server.clients.toLocaleString() : "–"),
      cell("Running", "num", reachable ? of.server.running.toLocaleString() : "–"),
      cell("Files", "num", bytes(totals.file_bytes)),
      cell("Wire", "num", bytes(totals.wire_sent + totals.wire_received)),
      cell("Reused", "num", percent(totals.copied, totals.file_bytes)),
    );
  });
  $("servers-rows").replaceChildren(...rows);
}

// ---- cards ----

const cards = new Map();

function drawTransfers() {
  const running = gather("transfers", { live: true });
  const keys = new Set();
  for (const transfer of running) {
    const key = `${transfer.server}\n${transfer.client}\n${transfer.id}`;
    keys.add(key);
    let card = cards.get(key);
    if (!card) {
      card = makeCard(transfer);
      cards.set(key, card);
      $("cards").append(card.root);
    }
    updateCard(card, transfer);
  }
  for (const [key, card] of cards) {
    if (keys.has(key)) continue;
    card.root.remove();
    cards.delete(key);
  }
  $("now-empty").hidden = running.length > 0;
  const all = servers().reduce((sum, { reachable, state: of }) => sum + (reachable && of ? of.server.running : 0), 0);
  setText($("now-count"), all > running.length ? `the first ${running.length} of ${all.toLocaleString()}` : "");
}

function makeCard(transfer) {
  const { dir, name } = pathParts(transfer.path);
  const phase = node("span");
  const title = node("h3", "", isolated(name));
  title.title = visible(transfer.path);
  const from = node("p", "from", isolated(transfer.peer));
  if (transfer.server) from.append(" on ", isolated(transfer.server));
  const what = node("div", "", title);
  if (dir) what.append(node("p", "dir", isolated(dir, "path")));
  what.append(from);
  const parts = { copied: node("i", "copied"), sent: node("i", "sent"), missing: node("i", "missing") };
  const bar = node("div", "bar", parts.copied, parts.sent, parts.missing);
  bar.setAttribute("role", "progressbar");
  bar.setAttribute("aria-label", `Progress of ${visible(name)}`);
  bar.setAttribute("aria-valuemin", "0");
  bar.setAttribute("aria-valuemax", "100");
  const numbers = node("dl", "numbers");
  const fields = {};
  for (const [field, label] of [["reused", "Reused"], ["sent", "Sent"], ["rate", "Rate"], ["left", "Time left"]]) {
    fields[field] = node("dd");
    const term = node("dt", "", label);
    numbers.append(term, fields[field]);
  }
  const again = node("p", "again");
  const root = node("article", "card panel", node("p", "kind", verb(transfer.verb), phase), what, bar, numbers, again);
  root.setAttribute("aria-label", `${transfer.verb} of ${visible(name)}`);
  return { root, phase, bar, parts, fields, again };
}

function verb(name) {
  const arrow = { push: "↑ ", pull: "↓ " }[name] ?? "";
  return node("span", "verb", `${arrow}${visible(name)}`);
}

function updateCard(card, transfer) {
  const { total, copied, literal, repairs, restarts } = transfer;
  const whole = Math.max(total, copied + literal);
  const share = (part) => (whole ? (100 * part) / whole : 0);
  setText(card.phase, visible(transfer.phase));
  card.parts.copied.style.width = `${share(copied)}%`;
  // Little is still something.
  card.parts.sent.style.width = literal ? `max(3px, ${share(literal)}%)` : "0";
  const done = share(copied + literal);
  card.bar.setAttribute("aria-valuenow", String(Math.floor(done)));
  card.bar.setAttribute("aria-valuetext", whole ? `${Math.floor(done)} % of ${bytes(whole)}` : "size not known yet");
  setText(card.fields.reused, bytes(copied));
  setText(card.fields.sent, bytes(literal));
  setText(card.fields.rate, transfer.rate ? rate(transfer.rate) : "–");
  const left = whole - copied - literal;
  setText(card.fields.left, transfer.rate && left > 0 ? duration((1000 * left) / transfer.rate) : "–");
  const again = [];
  if (repairs) again.push(`repaired ${repairs === 1 ? "once" : `${repairs} times`}`);
  if (restarts) again.push(`started over ${restarts === 1 ? "once" : `${restarts} times`}: the file changed`);
  setText(card.again, again.join(", "));
  card.again.hidden = again.length === 0;
}

// ---- the chart ----

const SVG = "http://www.w3.org/2000/svg";
const chart = { drawn: null, at: null };

function svg(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Both series over all servers, aligned at their newest sample. */
function throughput() {
  const series = { file: new Array(SAMPLES).fill(0), wire: new Array(SAMPLES).fill(0), known: 0 };
  for (const { reachable, state: of } of servers()) {
    if (!of || !reachable) continue;
    const { file, wire, interval_ms } = of.throughput;
    const scale = 1000 / Math.max(interval_ms, 1);
    const length = Math.min(file.length, wire.length, SAMPLES);
    series.known = Math.max(series.known, length);
    for (let back = 1; back <= length; back += 1) {
      series.file[SAMPLES - back] += file[file.length - back] * scale;
      series.wire[SAMPLES - back] += wire[wire.length - back] * scale;
    }
  }
  return series;
}

// From 0 straight up to a few kilobytes, logarithmic above: both a gigabyte and a kilobyte a second can be read.
const KNEE = 1000;
const height = (value) => Math.log10(1 + Math.max(value, 0) / KNEE);

function drawChart() {
  const series = throughput();
  const last = SAMPLES - 1;
  setText($("rate-file"), rate(series.file[last]));
  setText($("rate-wire"), rate(series.wire[last]));
  const area = $("chart");
  const { width: w, height: h } = area.getBoundingClientRect();
  const key = JSON.stringify([series.file, series.wire, series.known, w, h, chart.at]);
  if (chart.drawn === key || w === 0) return;
  chart.drawn = key;

  const left = 68;
  const right = 4;
  const bottom = 22;
  const top = 8;
  const peak = Math.max(...series.file, ...series.wire);
  const decades = Math.max(6, Math.ceil(Math.log10(Math.max(peak, 1))));
  const x = (index) => left + ((w - left - right) * index) / last;
  const y = (value) => h - bottom - ((h - bottom - top) * height(value)) / height(10 ** decades);
  chart.index = (px) => Math.round(Math.min(Math.max((px - left) / (w - left - right), 0), 1) * last);

  const parts = [];
  const step = Math.max(1, Math.round((decades - 3) / 4));
  const ticks = [0];
  for (let power = decades; power > 3; power -= step) ticks.push(10 ** power);
  for (const tick of ticks) {
    parts.push(svg("line", { class: "grid", x1: left, x2: w - right, y1: y(tick), y2: y(tick) }));
    const label = tick === 0 ? "0" : rate(tick).replace(/\.0+ /, " ");
    parts.push(svg("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, label));
  }
  const minutes = w < 500 ? [4, 2, 0] : [5, 4, 3, 2, 1, 0];
  for (const ago of minutes) {
    const at = x(last - ago * 60 < 0 ? 0 : last - ago * 60);
    const anchor = ago === 0 ? "end" : ago === 5 ? "start" : "middle";
    parts.push(svg("text", { x: at, y: h - 4, "text-anchor": anchor }, ago ? `−${ago} min` : "now"));
  }
  const first = SAMPLES - series.known;
  if (series.known > 1) {
    const points = (values) => values.slice(first).map((value, i) => `${x(first + i).toFixed(1)},${y(value).toFixed(1)}`);
    const file = points(series.file).join("L");
    const floor = y(0);
    parts.push(svg("path", { class: "area", d: `M${x(first)},${floor}L${file}L${x(last)},${floor}Z` }));
    parts.push(svg("path", { class: "curve file", d: `M${file}` }));
    parts.push(svg("path", { class: "curve wire", d: `M${points(series.wire).join("L")}` }));
  }
  const tip = $("tip");
  tip.hidden = chart.at === null;
  if (chart.at !== null) {
    const at = x(chart.at);
    parts.push(svg("line", { class: "hair", x1: at, x2: at, y1: top, y2: h - bottom }));
    const ago = last - chart.at;
    setText(tip, `${ago ? `${duration(ago * 1000)} ago` : "now"}\nfiles ${rate(series.file[chart.at])}\nwire ${rate(series.wire[chart.at])}`);
    tip.style.left = at > w / 2 ? "" : `${at + 32}px`;
    tip.style.right = at > w / 2 ? `${w - at + 32}px` : "";
  }
  area.setAttribute("viewBox", `0 0 ${w} ${h}`);
  area.replaceChildren(...parts);
  area.setAttribute("aria-label", `Throughput over the last five minutes: files at most ${rate(Math.max(...series.file))}, `
    + `now ${rate(series.file[last])}; wire at most ${rate(Math.max(...series.wire))}, now ${rate(series.wire[last])}`);
}

function followPointer() {
  const area = $("chart");
  const move = (at) => {
    chart.at = at;
    schedule();
  };
  area.addEventListener("pointermove", (event) => {
    if (chart.index) move(chart.index(event.clientX - area.getBoundingClientRect().left));
  });
  area.addEventListener("pointerleave", () => move(null));
  new ResizeObserver(schedule).observe(area);
}

// ---- lists ----

let historyAll = false;
const drawn = {};

/** True when a list has to be drawn again. */
function changed(list, key) {
  if (drawn[list] === key) return false;
  drawn[list] = key;
  return true;
}

function drawHistory() {
  const history = gather("history").sort((a, b) => b.started + b.duration - a.started - a.duration).slice(0, HISTORY_MAX);
  const shown = historyAll ? history : history.slice(0, HISTORY_FIRST);
  const day = new Date().toDateString();
  if (!changed("history", `${day} ${historyAll} ${history.map((h) => `${h.server}#${h.number}`).join(" ")}`)) return;
  $("history-rows").replaceChildren(...shown.map(historyRow));
  $("history-empty").hidden = history.length > 0;
  $("history-table").hidden = history.length === 0;
  $("history-more").hidden = history.length <= HISTORY_FIRST;
  setText($("history-button"), historyAll ? `Show the last ${HISTORY_FIRST}` : `Show all ${history.length}`);
  setText($("history-count"), history.length ? `the last ${history.length}` : "");
}

function historyRow(entry) {
  const { dir, name } = pathParts(entry.path);
  const path = node("span", "path", dir ? isolated(dir, "dir") : "", isolated(name));
  path.title = visible(entry.path);
  const file = cell("File", "wide", path);
  if (entry.error) file.append(isolated(entry.error, "why"));
  const kind = ["done", "failed", "cancelled"].includes(entry.result) ? entry.result : "";
  const result = cell("Result", "brief", node("span", `result ${kind}`, visible(entry.result)));
  if (entry.repairs) result.append(node("span", "aside", plural(entry.repairs, "repair", "repairs")));
  const done = entry.result === "done";
  return row(
    cell("Time", "brief", clock(entry.started + entry.duration)),
    cell("Server", "many whole", isolated(entry.server)),
    cell("What", "brief", verb(entry.verb)),
    file,
    cell("Size", "num", entry.total || done ? bytes(entry.total) : "–"),
    cell("Wire", "num", bytes(entry.wire)),
    cell("Reused", "num", done ? percent(entry.copied, entry.total) : "–"),
    cell("Took", "num", duration(entry.duration)),
    result,
  );
}

function drawClients() {
  const clients = gather("clients", { live: true });
  const all = servers().reduce((sum, { reachable, state: of }) => sum + (reachable && of ? of.server.clients : 0), 0);
  setText($("clients-count"), all > clients.length ? `the first ${clients.length} of ${all.toLocaleString()}` : "");
  $("clients-empty").hidden = clients.length > 0;
  $("clients-table").hidden = clients.length === 0;
  const texts = clients.map((client) => [client.peer, client.server, age(client.at - client.since),
    bytes(client.wire_received), bytes(client.wire_sent), client.round_trips.toLocaleString()]);
  if (!changed("clients", JSON.stringify(texts))) return;
  $("clients-rows").replaceChildren(...texts.map(([peer, server, since, received, sent, trips]) => row(
    cell("Address", "whole", isolated(peer)),
    cell("Server", "many whole", isolated(server)),
    cell("For", "num", since),
    cell("Received", "num", received),
    cell("Sent", "num", sent),
    cell("Round trips", "num", trips),
  )));
}

function drawErrors() {
  const errors = gather("errors").sort((a, b) => b.time - a.time).slice(0, ERRORS_MAX);
  setText($("errors-count"), errors.length ? `the last ${errors.length}` : "");
  $("errors-empty").hidden = errors.length > 0;
  if (!changed("errors", errors.map((e) => `${e.server}#${e.number}`).join(" "))) return;
  $("errors-rows").replaceChildren(...errors.map((error) => {
    const who = node("p", "who", clock(error.time), isolated(error.peer));
    if (error.server) who.append("on ", isolated(error.server));
    const item = node("li", "", who);
    if (error.path !== null) item.append(node("p", "", verb(error.verb ?? ""), " ", isolated(error.path, "path")));
    item.append(node("p", "what", isolated(error.message)));
    return item;
  }));
}

/** What the check of the stored files has come to, in words: [text, kind]. */
function verdict(scrub) {
  const bad = scrub.pass.damaged + scrub.pass.unreadable + scrub.pass.old_versions;
  if (bad > 0) return [`${plural(bad, "file is", "files are")} damaged`, "bad"];
  if (scrub.finished || scrub.pass.files) return ["No damage found", ""];
  return ["Not checked yet", "none"];
}

function scrubTexts(scrub, now) {
  const texts = [];
  const done = `${plural(scrub.pass.files, "file", "files")}, ${bytes(scrub.pass.bytes)}`;
  if (scrub.running) texts.push(`checking now: ${done} so far`);
  else if (scrub.finished && scrub.pass.files) texts.push(done);
  if (scrub.finished) texts.push(`everything was checked last at ${clock(scrub.finished)}`);
  if (!scrub.running && scrub.due) texts.push(scrub.due > now ? `next in ${duration(scrub.due - now)}` : "next in a moment");
  return texts.join(" \u00b7 ");
}

function drawScrub() {
  // An older server does not tell.
  const told = servers().filter((server) => server.state && server.state.scrub);
  $("scrub").hidden = told.length === 0;
  const items = told.map(({ label, state: { scrub, server } }) => [label, verdict(scrub), scrubTexts(scrub, server.now),
    scrub.running ? scrub.position : ""]);
  if (changed("scrub", JSON.stringify(items))) {
    $("scrub-text").replaceChildren(...items.map(([label, [text, kind], more, position]) => {
      const item = node("li", "", node("span", `verdict ${kind}`, text));
      if (label) item.append("on ", isolated(label), " ");
      item.append(more);
      if (position) item.append(node("br"), isolated(position, "path"));
      return item;
    }));
  }
  const findings = told.flatMap(({ label, state: { scrub } }) => scrub.findings.map((entry) => ({ ...entry, server: label })))
    .sort((a, b) => b.time - a.time).slice(0, ERRORS_MAX);
  $("scrub-rows").hidden = findings.length === 0;
  if (!changed("findings", findings.map((f) => `${f.server}#${f.number}#${f.time}`).join(" "))) return;
  $("scrub-rows").replaceChildren(...findings.map((finding) => {
    const who = node("p", "who", clock(finding.time));
    if (finding.server) who.append("on ", isolated(finding.server));
    const mild = ["changed", "gone"].includes(finding.kind);
    return node("li", mild ? "mild" : "", who, node("p", "", isolated(finding.path, "path")),
      node("p", "what", visible(finding.kind), ": ", isolated(finding.message)));
  }));
}

// ---- start ----

$("history-button").addEventListener("click", () => {
  historyAll = !historyAll;
  schedule();
});
followPointer();
connect();
setInterval(watchStream, 1000);
