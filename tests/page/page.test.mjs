// The page in a real Chromium, through a real switch and back.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { after, before, test } from "node:test";

import { Site, until } from "./site.mjs";

const { chromium } = createRequire(`${process.env.VERSIONFLAG_PLAYWRIGHT}/`)("playwright-core");
const PICTURES = process.env.PICTURES ? path.resolve(import.meta.dirname, "../../docs/page") : null;
const PHONE = { width: 360, height: 780 };
const WIDE = { width: 1100, height: 1000 };

let site;
let browser;

before(async () => {
  site = await Site.start();
  browser = await chromium.launch({ executablePath: process.env.VERSIONFLAG_CHROMIUM, args: ["--no-sandbox"] });
  if (PICTURES) mkdirSync(PICTURES, { recursive: true });
}, { timeout: 120_000 });

after(async () => {
  await browser?.close();
  await site?.stop();
}, { timeout: 60_000 });

async function open(options = {}) {
  const page = await browser.newPage({ viewport: WIDE, reducedMotion: "reduce", ...options });
  page.errors = [];
  page.on("pageerror", (error) => page.errors.push(error.message));
  page.on("console", (line) => line.type() === "error" && page.errors.push(line.text()));
  await options.before?.(page);
  await page.goto(site.url);
  await page.locator("#flags a").waitFor();
  return page;
}

const text = (page, selector) => page.locator(selector).innerText();

async function picture(page, name, viewport = WIDE) {
  if (!PICTURES) return;
  await page.setViewportSize(viewport);
  await page.screenshot({ path: path.join(PICTURES, `${name}.png`), animations: "disabled" });
}

// What every page has to have, whatever it shows.
async function isSound(page) {
  const found = await page.evaluate(() => {
    const nameOf = (one) => one.getAttribute("aria-label") || one.textContent.trim();
    const shown = [...document.querySelectorAll("a, button, [role=region], svg[role=img], section, article")]
      .filter((one) => one.checkVisibility());
    const named = (one) => nameOf(one) || document.getElementById(one.getAttribute("aria-labelledby") ?? "")?.textContent;
    return {
      nameless: shown.filter((one) => !named(one)).map((one) => one.outerHTML.slice(0, 80)),
      levels: [...document.querySelectorAll("h1, h2, h3")].filter((one) => one.checkVisibility()).map((one) => Number(one.tagName[1])),
      wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      undefinedWords: document.body.innerText.match(/undefined|NaN|\[object/g),
    };
  });
  assert.deepEqual(found.nameless, []);
  assert.ok(found.levels.every((level, index) => level <= (found.levels[index - 1] ?? 0) + 1), `headings: ${found.levels}`);
  assert.equal(found.wide, 0, "the page is wider than its window");
  assert.equal(found.undefinedWords, null);
  assert.deepEqual(page.errors, []);
}

test("a switch is seen from its begin to its end", { timeout: 180_000 }, async () => {
  const page = await open();
  assert.match(await text(page, "#why"), /^reviews is Stable/);
  assert.match(await text(page, "#flags tr"), /reviews\s+Stable\s+v1\s+v1\s+1 of 1 acked/);
  const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
  console.log(`first paint after ${paint?.toFixed(0)} ms`);
  await isSound(page);
  await page.evaluate(() => {
    window.phases = new Set();
    const phases = document.getElementById("phases");
    const look = () => window.phases.add(phases.querySelector("[aria-current]")?.textContent.split(" ")[0]);
    new MutationObserver(look).observe(phases, { childList: true, subtree: true });
  });
  site.edit("  version: v1", "  version: v2");
  await page.locator("#phases [aria-current]", { hasText: "Settling" }).waitFor({ timeout: 60_000 });
  assert.match(await text(page, "#why"), /^reviews is Settling, waits for: /);
  assert.match(await text(page, "#flag-title"), /reviews: v1 to v2/);
  await page.locator("#phases [aria-current]", { hasText: "Retaining" }).waitFor({ timeout: 60_000 });
  await picture(page, "light");
  const phases = await page.evaluate(() => [...window.phases]);
  assert.ok(["Settling", "Retaining"].every((phase) => phases.includes(phase)), `${phases}`);
  assert.match(await text(page, "#history"), /Flipped: from v1 to v2/);
  assert.match(await text(page, "#legend"), /v2: [1-9][0-9.]* requests\/s, in flight [0-9]/);
  for (const chart of ["#rate", "#open"]) {
    const points = await page.locator(`${chart} path[data-version=v2]`).getAttribute("data-points");
    assert.ok(Number(points) > 3, `${chart} has ${points} points`);
  }
  assert.match(await text(page, "#commands"), /versionflag rollback reviews -f http:/);
  await isSound(page);
  assert.deepEqual(site.failed, [], "no request fails");
  assert.ok([...site.answers.keys()].some((one) => one.includes("v2")));
  await page.close();
});

test("it fits a phone, and is dark where the browser is", { timeout: 60_000 }, async () => {
  const light = await open({ colorScheme: "light" });
  const dark = await open({ viewport: PHONE, colorScheme: "dark" });
  const back = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.notEqual(await back(light), await back(dark));
  await isSound(dark);
  await picture(dark, "phone", PHONE);
  await picture(dark, "dark");
  await light.close();
  await dark.close();
});

test("a keyboard gets everywhere, and a command is copied", { timeout: 60_000 }, async () => {
  const page = await open({ permissions: ["clipboard-read", "clipboard-write"] });
  await page.keyboard.press("Tab");
  const reached = new Set();
  for (let presses = 0; presses < 12; presses += 1) {
    reached.add(await page.evaluate(() => document.activeElement.tagName));
    const outlined = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle !== "none");
    assert.ok(outlined, "what has the focus shows it");
    if (reached.has("BUTTON")) break;
    await page.keyboard.press("Tab");
  }
  assert.ok(reached.has("A") && reached.has("BUTTON"), `${[...reached]}`);
  await page.keyboard.press("Enter");
  await until("copied", () => page.evaluate(() => navigator.clipboard.readText()).then((copied) => copied.startsWith("versionflag ")));
  await page.close();
});

test("where events are swallowed it asks", { timeout: 60_000 }, async () => {
  const page = await open({ before: (page) => page.route("**/v1/events", () => {}) });
  const shown = await text(page, "#shown");
  assert.match(shown, /^As of /);
  await until("another look", async () => (await text(page, "#shown")) !== shown);
  assert.ok(await page.locator("#trouble").isHidden());
  await page.close();
});

test("what blocks stands on top", { timeout: 120_000 }, async () => {
  const page = await open();
  site.edit("  version: v2", "  version: v9");
  await page.locator("#why.blocked").waitFor({ timeout: 60_000 });
  assert.match(await text(page, "#why"), /^reviews is blocked in \w+ by (UnknownVersion|InvalidSpec) for .*v9/);
  await picture(page, "blocked");
  await isSound(page);
  site.edit("  version: v9", "  version: v2");
  await page.locator("#why:not(.blocked)").waitFor({ timeout: 60_000 });
  await page.close();
});

test("a controller that does not answer is said, and found again", { timeout: 60_000 }, async () => {
  const page = await open();
  let gone = false;
  await page.route("**/v1/**", (route) => (gone ? route.abort() : route.continue()));
  await page.reload();
  await page.locator("#flags a").waitFor();
  gone = true;
  await page.reload();
  await page.locator("#trouble", { hasText: "does not answer" }).waitFor({ timeout: 30_000 });
  gone = false;
  await page.locator("#trouble").waitFor({ state: "hidden", timeout: 30_000 });
  await page.locator("#flags a").waitFor();
  await page.close();
});
