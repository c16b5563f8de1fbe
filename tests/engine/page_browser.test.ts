// The page of `prefixkv serve` in a real browser: Debian's Chromium, or the one that PREFIXKV_CHROMIUM names.
import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Page } from "playwright-core";
import { load } from "../../ts/index.ts";
import { runtime } from "../../ts/native/pick.ts";
import { nodeListener, openai } from "../../ts/openai/index.ts";
import { scene } from "./scenes.ts";

const places = [process.env.PREFIXKV_CHROMIUM ?? "", "/usr/bin/chromium", "/usr/bin/chromium-browser"];
const executablePath = places.find((path) => path !== "" && existsSync(path));
const artefacts = fileURLToPath(new URL("../../.cache/page/", import.meta.url));
const args = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"];

/** Why the browser is left alone, if it is. */
const reason =
  runtime().name !== "node"
    ? "not run here: the page is the same from every runtime, and the tests under Node look at it"
    : executablePath === undefined
      ? "NOT RUN: this machine has no /usr/bin/chromium; on Debian `apt-get install chromium`"
      : undefined;
if (reason !== undefined) process.stderr.write(`tests/engine/page_browser.test.ts ${reason}\n`);
const options = { timeout: 180_000, ...(reason !== undefined && { skip: reason }) };

/** Runs work with the page of a server over the embedded model, in both schemes and widths, and watches what it asks for. */
async function inBrowser(look: (page: Page, address: string) => Promise<void>): Promise<void> {
  mkdirSync(artefacts, { recursive: true });
  const model = await load(undefined, { batch: 2 });
  const handler = openai(model, { page: true, concurrency: 2, id: "tiny", keys: ["secret"] });
  const server = createServer(nodeListener(handler));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const bound = server.address();
  assert.ok(typeof bound === "object" && bound !== null);
  const address = `http://127.0.0.1:${bound.port}/`;
  const { chromium } = await import("playwright-core");
  const profile = mkdtempSync(join(tmpdir(), "prefixkv-page-"));
  const context = await chromium.launchPersistentContext(profile, { executablePath: executablePath ?? "", args });
  try {
    for (const [scheme, width] of [
      ["light", 1240],
      ["dark", 400],
    ] as const) {
      const page = await context.newPage();
      const faults: string[] = [];
      // The first question after the models is answered with 401: the key has not been typed in.
      page.on("console", (message) => !message.text().includes("401") && faults.push(message.text()));
      page.on("pageerror", (error) => faults.push(error.message));
      page.on(
        "request",
        (asked) => !/^(data|blob):/.test(asked.url()) && !asked.url().startsWith(address) && faults.push(asked.url()),
      );
      await page.setViewportSize({ width, height: 900 });
      await page.emulateMedia({ colorScheme: scheme });
      await page.goto(address);
      await look(page, address);
      const background = await page.evaluate("getComputedStyle(document.body).backgroundColor");
      assert.equal(background, scheme === "dark" ? "rgb(21, 24, 28)" : "rgb(255, 255, 255)");
      await page.screenshot({ path: join(artefacts, `${scheme}-${width}.png`), fullPage: true });
      const overflow = Number(await page.evaluate("document.documentElement.scrollWidth - innerWidth"));
      assert.ok(overflow <= 0, `${overflow} pixels too wide`);
      assert.deepEqual(faults, []);
      await page.close();
    }
  } finally {
    await context.close();
    await handler.close();
    server.closeAllConnections();
    server.close();
    await model.dispose();
    rmSync(profile, { recursive: true, force: true });
  }
}

test("a picture is asked about by keyboard, two methods answer, and the kept patches are drawn", options, async () => {
  await inBrowser(async (page) => {
    await page.getByRole("status").filter({ hasText: "needs an API key" }).waitFor();
    await page.getByLabel("Key").fill("secret");
    await page.locator("#file").setInputFiles(scene.image);
    await page.getByRole("status").filter({ hasText: "The picture is there." }).waitFor();
    await page.getByLabel("Method").selectOption("prefixkv");
    await page.getByLabel("Most tokens").fill("60");
    await page.getByLabel("Question").focus();
    await page.keyboard.press("Control+Enter");
    await page.getByRole("status").filter({ hasText: "Answered." }).waitFor();
    const articles = page.getByRole("article");
    assert.equal(await articles.count(), 2);
    for (const article of await articles.all()) {
      assert.match(await article.locator(".text").innerText(), /objects on a plain pale blue background/);
      assert.equal(await article.locator("meter").count(), 1);
    }
    const saved = await articles.nth(1).locator("dd").allInnerTexts();
    assert.match(saved[3] ?? "", /^(4\d|5\d) %$/);
    await page.getByLabel("Beside it").selectOption("streaming");
    await page.getByRole("button", { name: "Ask" }).click();
    await page.getByRole("status").filter({ hasText: "Answered." }).waitFor();
    assert.deepEqual(await page.getByRole("heading", { level: 2 }).allInnerTexts(), [
      "StreamingLLM, keep 50 %",
      "PrefixKV, keep 50 %",
    ]);
    // By keyboard, as anybody can.
    const button = articles.nth(1).getByRole("button", { name: "Show the kept patches" });
    await button.focus();
    await page.keyboard.press("Enter");
    await page.getByRole("status").filter({ hasText: "The kept patches are drawn" }).waitFor();
    const layers = articles.nth(1).getByRole("img", { name: /^Layer \d+: \d+ % of the patches kept$/ });
    assert.equal(await layers.count(), 10);
    // Some cells are dark and others light: a layer that keeps half shows both.
    const shades = Number(
      await layers.nth(1).evaluate((canvas) => {
        const { width, height } = canvas as unknown as { width: number; height: number };
        const pen = (
          canvas as unknown as { getContext(kind: string): { getImageData(...at: number[]): { data: Uint8Array } } }
        ).getContext("2d");
        const { data } = pen.getImageData(0, 0, width, height);
        let dark = 0;
        for (let at = 0; at < data.length; at += 4)
          if ((data[at] ?? 0) + (data[at + 1] ?? 0) + (data[at + 2] ?? 0) < 240) dark += 1;
        return (4 * dark) / data.length;
      }),
    );
    assert.ok(shades > 0.1 && shades < 0.95, `${shades}`);
  });
});

test("a picture comes by drop and by paste, and an answer can be stopped", options, async () => {
  await inBrowser(async (page, address) => {
    await page.getByLabel("Key").fill("secret");
    const give = (kind: "drop" | "paste") =>
      page.evaluate(`(async () => {
        const bytes = await new Promise((resolve) => { const canvas = document.createElement("canvas"); canvas.width = 3000; canvas.height = 40; canvas.toBlob(resolve) });
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], "${kind}.png", { type: "image/png" }));
        const event = "${kind}" === "drop"
          ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
          : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true });
        document.getElementById("drop").dispatchEvent(event);
      })()`);
    for (const kind of ["drop", "paste"] as const) {
      await give(kind);
      await page.getByText(`${kind}.png, 3000 x 40`).waitFor();
      // Scaled down before it is sent.
      const width = await page.evaluate("document.getElementById('preview').naturalWidth");
      assert.equal(width, 2048);
      await page.getByRole("button", { name: "Remove the picture" }).click();
      assert.ok(await page.locator("#preview").isHidden());
    }
    // Others have all turns, so that the page's question waits until it is stopped.
    const others = new AbortController();
    const busy = [1, 2].map(() =>
      fetch(`${address}v1/chat/completions`, {
        method: "POST",
        headers: { "content-type": "application/json", "x-api-key": "secret" },
        body: JSON.stringify({
          ...{ model: "tiny", messages: [{ role: "user", content: "Hi" }], max_tokens: 1900, ignore_eos: true },
        }),
        signal: others.signal,
      }).catch(() => {}),
    );
    await page.getByRole("button", { name: "Ask" }).click();
    await page.getByRole("button", { name: "Stop" }).click();
    await page.getByText("Stopped.").waitFor();
    others.abort();
    await Promise.all(busy);
    assert.ok(await page.getByRole("button", { name: "Ask" }).isEnabled());
  });
});
