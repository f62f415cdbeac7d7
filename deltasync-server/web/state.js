// The newest state of the server, or of several: a snapshot first, then patched by each event of the stream.

import { $, clock, setText } from "./text.js";

export const HISTORY_MAX = 200;
export const ERRORS_MAX = 100;
// Milliseconds without an event after which the stream is opened anew, and after which the page says that it is lost.
const STREAM_QUIET = 20_000;
const STREAM_LOST = 25_000;
const STREAM_RETRY = 2_000;

let state = null;
// When the newest event came, by this page's clock.
let heard = 0;
let source = null;
let retry = 0;
let tell = () => {};

/** What /api/state answers, as of now; null before the first event. */
export const current = () => state;

/** Every server as { label, reachable, error, state }, one of them without a label on a server's own dashboard. */
export function servers() {
  if (!state) return [];
  if (!state.servers) return [{ label: "", reachable: true, error: null, state }];
  return state.servers.map((server) => ({ ...server, label: server.address }));
}

/** One list out of those of all servers, each entry with its server's label. */
export function gather(list, { live = false } = {}) {
  return servers().flatMap((server) => {
    if (!server.state || (live && !server.reachable)) return [];
    return server.state[list].map((entry) => ({ ...entry, server: server.label, at: server.state.server.now }));
  });
}

function patch(update) {
  for (const [name, value] of Object.entries(update)) {
    if (name === "history") state.history = [...value, ...state.history].slice(0, HISTORY_MAX);
    else if (name === "errors") state.errors = [...value, ...state.errors].slice(0, ERRORS_MAX);
    else if (name === "servers") Object.assign(state.servers, value);
    else state[name] = value;
  }
}

/** Follows the server for as long as the page is open; `told` is called after each event. */
export function follow(told) {
  tell = told;
  connect();
  setInterval(watch, 1000);
}

// The browser comes again by itself and says which event it had last, so that it gets what it has missed.
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
    tell();
  };
  opened.addEventListener("snapshot", take((whole) => { state = whole; }));
  opened.addEventListener("update", take(patch));
  opened.addEventListener("error", () => {
    if (opened !== source) return;
    show("lost");
    // Unless the answer was no stream at all.
    if (opened.readyState === EventSource.CLOSED) retry = setTimeout(connect, STREAM_RETRY);
  });
}

function watch() {
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
