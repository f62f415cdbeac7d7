// The live page: it holds the newest state and draws what has changed, at most once a frame.

import { current, follow } from "./state.js";
import { drawGlance, drawServers } from "./glance.js";
import { drawTransfers } from "./cards.js";
import { drawCharts, prepareCharts } from "./charts.js";
import { drawClients, drawErrors, drawHistory, drawScrub, prepareHistory } from "./lists.js";

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
  const state = current();
  if (!state) return;
  document.body.classList.toggle("fleet", Boolean(state.servers));
  drawGlance();
  drawServers();
  drawTransfers();
  drawCharts();
  drawHistory();
  drawClients();
  drawErrors();
  drawScrub();
}

prepareHistory(schedule);
prepareCharts(schedule);
follow(schedule);
