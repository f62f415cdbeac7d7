// At one glance: is it well, what is connected and running, and how well it saves.

import { current, gather, servers } from "./state.js";
import { $, age, bytes, cell, isolated, node, percent, plural, rate, row, setText, visible } from "./text.js";

const SPANS = [["minute", "Last minute"], ["hour", "Last hour"], ["day", "Last day"]];
// Below this share, a disk is nearly full.
const DISK_LOW = 0.05;

export function drawGlance() {
  const state = current();
  const known = servers().filter((server) => server.state);
  const live = known.filter((server) => server.reachable);
  const sum = (pick, list = known) => list.reduce((total, server) => total + (pick(server.state) ?? 0), 0);
  drawSaving(sum);
  drawTiles(live, sum);
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

/** How much did not have to be sent, since the start and lately. */
function drawSaving(sum) {
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
  const lately = SPANS.map(([span, name]) => {
    const of = (field) => sum((s) => s.savings?.[span][field]);
    return { name, files: of("file"), copied: of("copied"), wire: of("wire") };
  });
  const rows = [...lately, { name: "Since the start", files, copied, wire }];
  const most = (row) => Math.max(row.files, row.wire, 1);
  for (const [at, saved] of rows.entries()) {
    const line = $("saving-rows").children[at];
    const [, filesCell, wireCell, reusedCell, bars] = line.children;
    setText(filesCell, bytes(saved.files));
    setText(wireCell, bytes(saved.wire));
    setText(reusedCell, percent(Math.min(saved.copied, saved.files), saved.files));
    const [fileBar, wireBar] = bars.querySelectorAll("i");
    fileBar.style.width = `${(100 * saved.files) / most(saved)}%`;
    wireBar.style.width = saved.wire ? `max(3px, ${(100 * saved.wire) / most(saved)}%)` : "0";
  }
}

/** What somebody has to see to, the worst first. */
function problems(live) {
  const found = [];
  const down = servers().length - live.length;
  if (down) found.push(`${plural(down, "server", "servers")} unreachable`);
  const over = (pick) => live.reduce((total, { state }) => total + pick(state), 0);
  const damaged = over(({ scrub }) => (scrub ? scrub.pass.damaged + scrub.pass.unreadable + scrub.pass.old_versions : 0));
  if (damaged) found.push(`${plural(damaged, "file", "files")} damaged`);
  const full = live.filter(({ state: { server } }) => server.disk_total && server.disk_free < DISK_LOW * server.disk_total);
  if (full.length) found.push("disk nearly full");
  const failed = over(({ savings }) => savings?.hour.failed ?? 0);
  if (failed) found.push(`${failed.toLocaleString()} failed in the last hour`);
  return found;
}

function drawTiles(live, sum) {
  const found = problems(live);
  setText($("tile-health"), found.length ? plural(found.length, "problem", "problems") : "Well");
  setText($("tile-health-note"), found.join(", ") || "nothing to see to");
  $("tile-health-box").classList.toggle("bad", found.length > 0);

  const disks = live.map(({ state: { server } }) => server).filter((server) => server.disk_total);
  // Of several, the one with the smallest share left.
  const disk = disks.sort((a, b) => a.disk_free / a.disk_total - b.disk_free / b.disk_total)[0];
  setText($("tile-disk"), disk ? bytes(disk.disk_free) : "–");
  setText($("tile-disk-note"), disk ? `${percent(disk.disk_free, disk.disk_total)} of ${bytes(disk.disk_total)}` : "not known");
  $("tile-disk-box").classList.toggle("bad", Boolean(disk) && disk.disk_free < DISK_LOW * disk.disk_total);

  const count = sum((s) => s.server.running, live);
  const speed = gather("transfers", { live: true }).reduce((total, transfer) => total + transfer.rate, 0);
  setText($("tile-clients"), sum((s) => s.server.clients, live).toLocaleString());
  setText($("tile-clients-note"), `${sum((s) => s.totals.sessions).toLocaleString()} since the start`);
  setText($("tile-running"), count.toLocaleString());
  setText($("tile-running-note"), count ? rate(speed) : "idle");
  const [pushes, pulls] = ["push", "pull"].map((verb) => sum((s) => s.totals[verb].done));
  setText($("tile-done"), (pushes + pulls).toLocaleString());
  setText($("tile-done-note"), `${plural(pushes, "push", "pushes")}, ${plural(pulls, "pull", "pulls")}`);
  const verbs = ["push", "pull", "list", "root"];
  const failed = verbs.reduce((total, verb) => total + sum((s) => s.totals[verb].failed), 0);
  setText($("tile-failed"), failed.toLocaleString());
  $("tile-failed-box").classList.toggle("bad", failed > 0);
  const counts = [
    [sum((s) => s.totals.failures?.conflict), "conflict", "conflicts"],
    [sum((s) => s.totals.sessions_failed), "connection", "connections"],
    [sum((s) => (s.totals.sessions_refused ?? 0) + (s.totals.transfers_refused ?? 0)), "refused", "refused"],
    [sum((s) => s.totals.repairs), "repair", "repairs"],
  ];
  const notes = counts.filter(([count]) => count > 0).map(([count, one, many]) => plural(count, one, many));
  setText($("tile-failed-note"), notes.join(", ") || "since the start");
  document.title = count ? `${count} running · deltasync` : "deltasync";
}

const uptime = (of) => age(of.server.now - of.server.started);

export function drawServers() {
  const state = current();
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
