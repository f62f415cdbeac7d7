// Looks at a dashboard with Chromium and tells what it sees.
//
// Called by tests/browser.rs as `node look.mjs`. Each line on stdin is a command in JSON, each line on stdout its answer:
//
//   {"open": URL, "dark": bool, "width": px, "height": px}   a fresh page
//   {"wait": selector, "text": "…", "ms": n}                 until an element holds the text; how long it took
//   {"read": selector}                                       the texts of all matching elements
//   {"count": selector}                                      how many match
//   {"click": selector}
//   {"hover": selector}                                      the pointer onto its middle
//   {"overflow": true}                                       how many px the page is wider than its window
//   {"shot": file}                                           a picture of the whole page
//   {"console": true}                                        what was written on the console since it was opened, and every
//                                                            request that left the page's own origin

import { createInterface } from "node:readline";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const profile = mkdtempSync(join(tmpdir(), "deltasync-browser-"));
const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
  "--disable-sync"];
let context = null;
let page = null;
let heard = [];

async function open({ open: url, dark, width, height }) {
  if (context) await context.close();
  heard = [];
  context = await chromium.launchPersistentContext(profile, {
    executablePath: "/usr/bin/chromium",
    args: flags,
    colorScheme: dark ? "dark" : "light",
    viewport: { width, height },
    deviceScaleFactor: 1,
  });
  page = await context.newPage();
  page.on("console", (message) => heard.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => heard.push(`error: ${error}`));
  page.on("dialog", (dialog) => {
    heard.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(new URL(url).origin) && !request.url().startsWith("data:")) heard.push(`left: ${request.url()}`);
  });
  await page.goto(url);
  return true;
}

async function wait({ wait: selector, text, ms }) {
  const begin = performance.now();
  await page.locator(selector).filter({ hasText: text, visible: true }).first().waitFor({ timeout: ms });
  return Math.round(performance.now() - begin);
}

async function obey(command) {
  if (command.open) return open(command);
  if (command.wait) return wait(command);
  if (command.read) return page.locator(command.read).allInnerTexts();
  if (command.count) return page.locator(command.count).count();
  if (command.click) return page.locator(command.click).click().then(() => true);
  if (command.hover) return page.locator(command.hover).hover().then(() => true);
  if (command.overflow) return page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (command.shot) return page.screenshot({ path: command.shot, fullPage: true }).then(() => true);
  if (command.console) return heard;
  throw new Error(`unknown command ${JSON.stringify(command)}`);
}

try {
  for await (const line of createInterface({ input: process.stdin })) {
    let answer;
    try {
      answer = { ok: await obey(JSON.parse(line)) };
    } catch (error) {
      answer = { error: String(error) };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
} finally {
  if (context) await context.close();
  rmSync(profile, { recursive: true, force: true });
}
