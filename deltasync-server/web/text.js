// Numbers, times and names as text, and the nodes that they stand in.
//
// What peers named (paths, messages, addresses) only ever becomes text of a node, never markup, and stands in a <bdi>.

export const $ = (id) => document.getElementById(id);

const UNITS = ["B", "KB", "MB", "GB", "TB", "PB", "EB"];

/** A number of bytes with three digits that count. */
export function bytes(count) {
  let unit = 0;
  while (count >= 999.5 && unit < UNITS.length - 1) {
    count /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || count >= 99.95 ? 0 : count >= 9.995 ? 1 : 2;
  return `${count.toFixed(digits)} ${UNITS[unit]}`;
}

export const rate = (count) => `${bytes(count)}/s`;

/** A share as percent: never 100 unless it is all. */
export function percent(part, whole) {
  if (!(whole > 0)) return "–";
  const share = (100 * part) / whole;
  if (share >= 100) return "100 %";
  const digits = share >= 99 ? 2 : 1;
  return `${(Math.floor(share * 10 ** digits) / 10 ** digits).toFixed(digits)} %`;
}

/** A time in milliseconds, in the two units that count. */
export function duration(ms) {
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
export const age = (ms) => (ms >= 0 && ms < 60_000 ? `${Math.floor(ms / 1000)} s` : duration(ms));

export function clock(ms) {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return "–";
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  const today = date.toDateString() === new Date().toDateString();
  return today ? time : `${date.toLocaleDateString([], { day: "numeric", month: "short" })} ${time}`;
}

export const plural = (count, one, many) => `${count.toLocaleString()} ${count === 1 ? one : many}`;

/** Text of strangers with everything invisible written out; the server has done the same. */
export function visible(text) {
  return text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

export function node(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** Text of strangers, kept from turning its surroundings. */
export function isolated(text, className) {
  return node("bdi", className, visible(text));
}

export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** The directory above, the name below, the whole in the tooltip. */
export function pathParts(path) {
  const slash = path.lastIndexOf("/");
  return { dir: path.slice(0, slash + 1), name: path.slice(slash + 1) };
}

export function cell(label, className, ...children) {
  const made = node("td", className, ...children);
  made.setAttribute("role", "cell");
  made.dataset.label = label;
  return made;
}

export function row(...cells) {
  const made = node("tr", "", ...cells);
  made.setAttribute("role", "row");
  return made;
}

/** Push or pull, with an arrow. */
export function verb(name) {
  const arrow = { push: "↑ ", pull: "↓ " }[name] ?? "";
  return node("span", "verb", `${arrow}${visible(name)}`);
}

const drawn = {};

/** True when a list has to be drawn again. */
export function changed(list, key) {
  if (drawn[list] === key) return false;
  drawn[list] = key;
  return true;
}
