// What moves now: a card for each transfer.

import { gather, servers } from "./state.js";
import { $, bytes, duration, isolated, node, pathParts, rate, setText, verb, visible } from "./text.js";

const NAMES = { copied: "reused", sent: "sent", mixed: "both", missing: "to come" };

const cards = new Map();

export function drawTransfers() {
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
  const strip = node("div", "strip");
  strip.setAttribute("role", "img");
  const numbers = node("dl", "numbers");
  const fields = {};
  for (const [field, label] of [["reused", "Reused"], ["sent", "Sent"], ["rate", "Rate"], ["left", "Time left"]]) {
    fields[field] = node("dd");
    const term = node("dt", "", label);
    numbers.append(term, fields[field]);
  }
  const again = node("p", "again");
  const root = node("article", "card panel", node("p", "kind", verb(transfer.verb), phase), what, bar, strip, numbers, again);
  root.setAttribute("aria-label", `${transfer.verb} of ${visible(name)}`);
  return { root, phase, bar, parts, strip, fields, again };
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
  drawStrip(card.strip, transfer.blocks ?? []);
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

/** Where in the file the bytes were reused and sent; `runs` cover it from its start to its end. */
function drawStrip(strip, runs) {
  strip.hidden = runs.length === 0;
  const key = runs.map(({ len, origin }) => `${len}${origin}`).join();
  if (strip.dataset.runs === key) return;
  strip.dataset.runs = key;
  const counts = { copied: 0, sent: 0, mixed: 0, missing: 0 };
  let at = 0;
  strip.replaceChildren(...runs.map(({ len, origin }) => {
    const known = origin in counts ? origin : "missing";
    counts[known] += 1;
    const run = node("i", known);
    run.style.flexGrow = String(len);
    run.title = `${NAMES[known]}: ${bytes(len)} from ${bytes(at)} on`;
    at += len;
    return run;
  }));
  const told = Object.entries(counts).filter(([, count]) => count > 0).map(([origin, count]) => `${count} ${NAMES[origin]}`);
  strip.setAttribute("aria-label", `Where in the file, in ranges: ${told.join(", ")}`);
}
