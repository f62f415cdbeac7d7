// Looks at a dashboard with Chromium and tells what it sees.
//
// Called by tests/browser.rs as `node look.mjs`. Each line on stdin is a command in JSON, each line on stdout its answer:
//
//   {"open": URL, "dark": bool, "width": px, "height": px, "password": "…"}   a fresh page
//   {"wait": selector, "text": "…", "ms": n}                 until an element holds the text; how long it took
//   {"read": selector}                                       the texts of all matching elements
//   {"attribute": selector, "name": "…"}                     an attribute of all matching elements
//   {"type": selector, "text": "…"}                          text into a field, or one of the choices of a select
//   {"painted": selector, "colour": "--name"}                how many pixels of a canvas have the colour of that property
//   {"count": selector}                                      how many match
//   {"click": selector}
//   {"hover": selector}                                      the pointer onto its middle
//   {"overflow": true}                                       how many px the page is wider than its window
//   {"shot": file, "of": selector}                           a picture of the whole page, or around an element
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

async function open({ open: url, dark, width, height, password }) {
  if (context) await context.close();
  heard = [];
  context = await chromium.launchPersistentContext(profile, {
    executablePath: "/usr/bin/chromium",
    args: flags,
    colorScheme: dark ? "dark" : "light",
    viewport: { width, height },
    deviceScaleFactor: 1,
    ...(password ? { httpCredentials: { username: "anybody", password } } : {}),
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

/** The pixels of a canvas that are nearly of a colour. */
async function painted({ painted: selector, colour }) {
  return page.locator(selector).first().evaluate((canvas, name) => {
    const probe = document.createElement("canvas").getContext("2d");
    probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    probe.fillRect(0, 0, 1, 1);
    const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let at = 0; at < data.length; at += 4) {
      const off = Math.abs(data[at] - r) + Math.abs(data[at + 1] - g) + Math.abs(data[at + 2] - b);
      if (off < 24 && data[at + 3] > 200) count += 1;
    }
    return count;
  }, colour);
}

async function type({ type: selector, text }) {
  const field = page.locator(selector);
  if (await field.evaluate((node) => node.tagName) === "SELECT") await field.selectOption(text);
  else await field.fill(text);
  return true;
}

async function obey(command) {
  if (command.open) return open(command);
  if (command.wait) return wait(command);
  if (command.read) return page.locator(command.read).allInnerTexts();
  if (command.attribute) {
    return page.locator(command.attribute).evaluateAll((all, name) => all.map((one) => one.getAttribute(name)), command.name);
  }
  if (command.type) return type(command);
  if (command.painted) return painted(command);
  if (command.count) return page.locator(command.count).count();
  if (command.click) return page.locator(command.click).click().then(() => true);
  if (command.hover) return page.locator(command.hover).hover().then(() => true);
  if (command.overflow) return page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (command.of) {
    const clip = await page.locator(command.of).evaluate((node) => {
      const { x, y, width, height } = node.getBoundingClientRect();
      return { x: x + scrollX - 16, y: y + scrollY - 16, width: width + 32, height: height + 32 };
    });
    return page.screenshot({ path: command.shot, fullPage: true, clip }).then(() => true);
  }
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
