// The reports in a real browser: Debian's Chromium where it is installed.
import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { BrowserContext, Page } from "playwright-core";
import { runtime } from "../../ts/native/pick.ts";
import { describeScene, evaluation } from "./made.ts";

const executablePath = ["/usr/bin/chromium", "/usr/bin/chromium-browser"].find((path) => existsSync(path));
const artefacts = fileURLToPath(new URL("../../.cache/report/", import.meta.url));
const args = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Why the browser is left alone, if it is. */
const reason =
  runtime().name !== "node"
    ? "not run here: the pages are the same from every runtime, and the tests under Node look at them"
    : executablePath === undefined
      ? "NOT RUN: this machine has no /usr/bin/chromium; on Debian `apt-get install chromium`"
      : undefined;
if (reason !== undefined) process.stderr.write(`tests/report/browser.test.ts ${reason}\n`);

const options = { timeout: 180_000, ...(reason !== undefined && { skip: reason }) };

/** Opens a page from a file, in both schemes and widths, and watches what it does. */
async function inBrowser(
  html: string,
  name: string,
  look: (page: Page, scheme: "light" | "dark", width: number) => Promise<void>,
): Promise<void> {
  mkdirSync(artefacts, { recursive: true });
  const file = join(artefacts, `${name}.html`);
  writeFileSync(file, html);
  const { chromium } = await import("playwright-core");
  const profile = mkdtempSync(join(tmpdir(), "prefixkv-chromium-"));
  let context: BrowserContext | undefined;
  try {
    context = await chromium.launchPersistentContext(profile, { executablePath: executablePath ?? "", args });
    for (const scheme of ["light", "dark"] as const) {
      for (const width of [1240, 400]) {
        const page = await context.newPage();
        const faults: string[] = [];
        page.on("console", (message) => faults.push(message.text()));
        page.on("pageerror", (error) => faults.push(error.message));
        page.on("request", (request) => {
          if (!/^(file|data):/.test(request.url())) faults.push(request.url());
        });
        await page.setViewportSize({ width, height: 900 });
        await page.emulateMedia({ colorScheme: scheme });
        await page.goto(pathToFileURL(file).href);
        await look(page, scheme, width);
        await page.screenshot({ path: join(artefacts, `${name}-${scheme}-${width}.png`), fullPage: true });
        assert.deepEqual(faults, []);
        await page.close();
      }
    }
  } finally {
    await context?.close();
    rmSync(profile, { recursive: true, force: true });
  }
}

/** Checks that hold for every page: it fits, its charts show, its colours are those of the scheme. */
async function checkPage(page: Page, charts: number, scheme: "light" | "dark"): Promise<void> {
  const overflow = await page.evaluate("document.documentElement.scrollWidth - innerWidth");
  assert.ok(Number(overflow) <= 0, `${overflow} pixels too wide`);
  const found = page.locator("figure[data-chart]");
  assert.equal(await found.count(), charts);
  for (const figure of await found.all()) {
    const pictures = figure.locator(".picture");
    let seen = 0;
    for (const picture of await pictures.all()) if (await picture.isVisible()) seen += 1;
    assert.equal(seen, 1, `${await figure.getAttribute("data-chart")} shows ${seen} pictures`);
  }
  assert.equal(await background(page), scheme === "dark" ? "rgb(21, 24, 28)" : "rgb(255, 255, 255)");
}

const background = (page: Page): Promise<unknown> => page.evaluate("getComputedStyle(document.body).backgroundColor");

/** The frames of a chart that can be seen. */
function framesOf(page: Page, chart: string): Promise<unknown> {
  return page.evaluate(
    `[...document.querySelectorAll('[data-chart="${chart}"] .picture:not(.narrow) [data-frame]')].filter((part) => getComputedStyle(part).display !== "none").map((part) => part.dataset.frame)`,
  );
}

test("the page of a picture works in a browser", options, async () => {
  const { report, input } = await describeScene();
  await inBrowser(report.html, "describe", async (page, scheme, width) => {
    await checkPage(page, 6, scheme);
    assert.deepEqual(await framesOf(page, "kept-patches"), ["0.0"]);
    const caption = page.locator('[data-chart="kept-patches"] .caption:not([hidden])');
    const before = await caption.innerText();
    // By keyboard, as anybody can.
    await page.locator("#control-layer").focus();
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    for (const chart of ["kept-patches", "importance-patches"]) assert.deepEqual(await framesOf(page, chart), ["0.2"]);
    for (const chart of ["cumulative", "lives"])
      assert.equal([...new Set((await framesOf(page, chart)) as string[])].join(), "0.2");
    assert.notEqual(await caption.innerText(), before);
    assert.match(await caption.innerText(), /^prefixkv, layer 2: \d+ of 157 entries stay/);
    await page.locator("#control-run").fill("1");
    assert.deepEqual(await framesOf(page, "kept-patches"), ["1.2"]);
    assert.match(await caption.innerText(), /^h2o, layer 2/);
    await page.locator("#control-run").fill("0");
    // The picture itself is drawn, at its size.
    const box = await page.locator('[data-chart="kept-patches"] use').boundingBox();
    assert.ok(box !== null && box.width > 0.5 * Math.min(width, 600), JSON.stringify(box));
    assert.equal(input.runs.length, 2);
  });
});

test("the page of an evaluation works in a browser, and its colours can be switched", options, async () => {
  const { html } = await evaluation();
  await inBrowser(html, "eval", async (page, scheme) => {
    await checkPage(page, 13, scheme);
    const color = 'getComputedStyle(document.querySelector("[data-chart] circle, [data-chart] path[fill]")).color';
    const first = await page.evaluate(color);
    await page.locator("#scheme").click();
    assert.equal(await background(page), scheme === "dark" ? "rgb(255, 255, 255)" : "rgb(21, 24, 28)");
    assert.notEqual(await page.evaluate(color), first);
    await page.locator("#scheme").click();
    await page.locator('[data-chart="quality-ppl"] summary').click();
    assert.ok(await page.locator('[data-chart="quality-ppl"] table').isVisible());
  });
});
