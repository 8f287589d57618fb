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
  const phases = await page.evaluate(() => [...window.phases]);
  assert.ok(["Settling", "Retaining"].every((phase) => phases.includes(phase)), `${phases}`);
  assert.match(await text(page, "#history"), /Flipped: from v1 to v2/);
  // Right after the flip it is unknown.
  await page.locator("#legend", { hasText: /v2: [1-9][0-9.]* requests\/s, [0-9]+ in flight/ }).waitFor();
  assert.match(await text(page, "#phases"), /Coexisting\s+took [0-9.]+ m?s[^]*Settling\s+took [0-9.]+ s[^]*Retaining\s+for [0-9]+ s/);
  assert.match(await text(page, "#flipped"), /^Flipped [0-9]+ s ago, all proxies acked after [0-9.]+ m?s\./);
  for (const chart of ["#rate", "#open"]) {
    const points = () => page.locator(`${chart} path[data-version=v2]`).getAttribute("data-points");
    // A picture shows some more.
    await until(`points of ${chart}`, async () => Number(await points()) > (PICTURES ? 30 : 3));
  }
  await picture(page, "light");
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
  const heights = await dark.locator("svg text").evaluateAll((all) => all.map((one) => one.getBoundingClientRect().height));
  assert.ok(heights.length >= 8 && heights.every((height) => height > 11), `what the charts say can be read: ${heights}`);
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

// A status that no switch of this site has.
async function openWith(change, options = {}) {
  const [flag] = await site.status();
  change(flag);
  return open({
    ...options,
    before: async (page) => {
      await page.route("**/v1/events", (route) => route.fulfill({ contentType: "text/event-stream", body: `data: ${JSON.stringify([flag])}\n\n` }));
      await page.route("**/v1/status", (route) => route.fulfill({ json: [flag] }));
    },
  });
}

test("what is bad is marked, and what is unknown is no zero", { timeout: 60_000 }, async () => {
  const late = Array.from({ length: 64 }, (_, number) => ({ proxy: `edge-${number}`, why: "no report" }));
  const page = await openWith((flag) => {
    flag.status.phase = "Settling";
    flag.status.switch = { from: "v1", to: "v2", startedAt: flag.now - 9_000, flippedAt: flag.now - 2_000 };
    flag.checks = {
      errors: { verdict: "failed", message: "2 % is more than 1 %", since: flag.now - 3_000 },
      latency: { verdict: "inconclusive", message: "no answer", since: flag.now - 3_000 },
    };
    Object.assign(flag.fleet, { expected: 1_000, acked: 10, laggards: late, reachLaggards: [{ proxy: "edge-0", why: "it does not reach v2" }], old: "unknown", strangers: [{ at: "edge-1", from: "10.0.0.9", perSecond: 0 }] });
    flag.traffic = { expected: 1_000, known: 0, versions: {} };
  });
  assert.match(await text(page, "#checks .bad"), /^✘ errors failed: 2 % is more than 1 % for 3 s$/);
  assert.match(await text(page, "#checks .unknown"), /^\? latency is unknown: no answer/);
  assert.equal(await page.locator("#proxies .bad").count(), 50);
  assert.match(await text(page, "#proxies"), /^edge-0: no report\n/);
  assert.match(await text(page, "#proxies"), /and 940 more$/);
  assert.match(await text(page, "#legend"), /v1: unknown, unknown in flight/);
  assert.equal(await page.locator("#rate path[data-version=v1]").getAttribute("data-points"), "0");
  assert.match(await text(page, "#callers"), /It is unknown whether requests reach v1\.\s+10\.0\.0\.9, past the flag, seen by edge-1: an unknown number of requests\/s/);
  assert.match(await text(page, "#phases"), /Coexisting\s+took unknown[^]*AwaitingPromotion\s+skipped/);
  await isSound(page);
  await page.close();
});

test("what a phase does not ask for holds nothing up", { timeout: 60_000 }, async () => {
  const page = await openWith((flag) => {
    flag.status.phase = "Coexisting";
    flag.fleet.routeLaggards = [{ proxy: "edge", why: "its routes do not lead there" }];
  });
  assert.equal(await text(page, "#proxies"), "None is late, and none is refused.");
  await page.close();
});

test("a text is shown as text", { timeout: 60_000 }, async () => {
  const page = await openWith((flag) => {
    flag.name = flag.waiting = '<img src=x onerror="document.title=1">';
    flag.status.history.push({ at: flag.now, event: "Edited", message: "<b>bold</b>", epoch: 1 });
  });
  assert.equal(await page.locator("main img, main b").count(), 0);
  assert.match(await text(page, "#history"), /Edited: <b>bold<\/b>/);
  assert.match(await text(page, "#why"), /waits for: <img src=x/);
  await page.close();
});

test("a page that nobody sees takes no place", { timeout: 60_000 }, async () => {
  const page = await open();
  const hide = (hidden) => page.evaluate((hidden) => {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);
  const isEvents = (request) => request.url().endsWith("v1/events");
  await Promise.all([page.waitForEvent("requestfailed", isEvents), hide(true)]);
  await Promise.all([page.waitForRequest(isEvents), hide(false)]);
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

test("a controller that hangs is said, with what is shown until then", { timeout: 90_000 }, async () => {
  const page = await open();
  site.controller.kill("SIGSTOP");
  try {
    await page.locator("#trouble", { hasText: "nothing came within 4 s" }).waitFor({ timeout: 40_000 });
    assert.match(await text(page, "#trouble"), /What is shown is as of [0-9:]+\. Trying again\.$/);
    assert.match(await text(page, "#why"), /^reviews is /);
  } finally {
    site.controller.kill("SIGCONT");
  }
  await page.locator("#trouble").waitFor({ state: "hidden", timeout: 30_000 });
  await page.close();
});

test("the switch ends, and its way is still shown", { timeout: 120_000 }, async () => {
  const page = await open();
  await page.locator("#phases [aria-current]", { hasText: "Stable" }).waitFor({ timeout: 90_000 });
  assert.match(await text(page, "#flags tr"), /reviews\s+Stable\s+v2\s+v2\s+1 of 1 acked/);
  assert.match(await text(page, "#history"), /Removed: [^]*Flipped: from v1 to v2/);
  assert.match(await text(page, "#phases"), /Removing\s+took [0-9.]+ m?s\s+Stable\s+for [0-9]/);
  assert.equal(await text(page, "#callers"), "No version is left now.");
  await isSound(page);
  await page.close();
});
