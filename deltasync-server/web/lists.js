// What happened and what is wrong: history, clients, errors, findings.

import { ERRORS_MAX, HISTORY_MAX, gather, servers } from "./state.js";
import { $, age, bytes, cell, changed, clock, duration, isolated, node, pathParts, percent, plural, row, setText, verb, visible } from "./text.js";

const HISTORY_FIRST = 10;

// ---- history ----

let historyAll = false;

/** What is to be seen of the history: its text in path, address, server or error; its verb; its result. */
const filter = { text: "", verb: "", result: "" };

function matches(entry) {
  if (filter.verb && entry.verb !== filter.verb) return false;
  if (filter.result === "repaired" ? !entry.repairs : filter.result && entry.result !== filter.result && entry.kind !== filter.result) return false;
  const texts = [entry.path, entry.peer, entry.server, entry.error ?? ""];
  return !filter.text || texts.some((text) => text.toLowerCase().includes(filter.text));
}

/** Follows the fields of the filter; `schedule` has the page drawn. */
export function prepareHistory(schedule) {
  $("history-button").addEventListener("click", () => {
    historyAll = !historyAll;
    schedule();
  });
  for (const name of Object.keys(filter)) {
    const field = $(`filter-${name}`);
    field.addEventListener("input", () => {
      filter[name] = field.value.trim().toLowerCase();
      schedule();
    });
  }
}

export function drawHistory() {
  const history = gather("history").sort((a, b) => b.started + b.duration - a.started - a.duration).slice(0, HISTORY_MAX);
  const found = history.filter(matches);
  const shown = historyAll ? found : found.slice(0, HISTORY_FIRST);
  const day = new Date().toDateString();
  const key = [day, historyAll, filter, history.map((entry) => [entry.server, entry.number])];
  if (!changed("history", JSON.stringify(key))) return;
  $("history-rows").replaceChildren(...shown.map(historyRow));
  $("history-filter").hidden = history.length === 0;
  $("history-empty").hidden = found.length > 0;
  setText($("history-empty"), history.length ? "Nothing in the history is like that." : "Pushes and pulls that have ended are listed here.");
  $("history-table").hidden = found.length === 0;
  $("history-more").hidden = found.length <= HISTORY_FIRST;
  setText($("history-button"), historyAll ? `Show the last ${HISTORY_FIRST}` : `Show all ${found.length}`);
  const filtered = found.length < history.length;
  setText($("history-count"), filtered ? `${found.length} of the last ${history.length}` : history.length ? `the last ${history.length}` : "");
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

export function drawClients() {
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

export function drawErrors() {
  const counts = {};
  for (const { state } of servers()) {
    for (const [kind, count] of Object.entries(state?.totals.failures ?? {})) counts[kind] = (counts[kind] ?? 0) + count;
  }
  const kinds = Object.entries(counts).filter(([, count]) => count > 0).sort(([, a], [, b]) => b - a);
  $("errors-kinds").hidden = kinds.length === 0;
  if (changed("kinds", JSON.stringify(kinds))) {
    $("errors-kinds").replaceChildren(...kinds.map(([kind, count]) => node("li", "", node("b", "", count.toLocaleString()), ` ${visible(kind)}`)));
  }
  const errors = gather("errors").sort((a, b) => b.time - a.time).slice(0, ERRORS_MAX);
  setText($("errors-count"), errors.length ? `the last ${errors.length}` : "");
  $("errors-empty").hidden = errors.length > 0;
  if (!changed("errors", errors.map((e) => `${e.server}#${e.number}`).join(" "))) return;
  $("errors-rows").replaceChildren(...errors.map((error) => {
    const who = node("p", "who", clock(error.time), isolated(error.peer));
    if (error.kind) who.append(node("span", "kind", visible(error.kind)));
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

export function drawScrub() {
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
