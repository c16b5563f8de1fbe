import { createHash } from "node:crypto";
import type { MethodFacts } from "../../generated/method_table.ts";
import { escapeText } from "../../report/chart.ts";
import { script } from "./script.ts";
import { style } from "./style.ts";

const hash = (text: string): string => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

/** The page and its headers: everything is in it, and nothing but its own server can be asked. */
export function pageResponse(methods: readonly MethodFacts[]): Response {
  const policy = [
    "default-src 'none'",
    `script-src ${hash(script)}`,
    `style-src ${hash(style)}`,
    "img-src data: blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ];
  return new Response(html(methods), {
    headers: {
      "content-type": "text/html; charset=utf-8",
      "content-security-policy": policy.join("; "),
      "referrer-policy": "no-referrer",
      "x-content-type-options": "nosniff",
      "cache-control": "no-cache",
    },
  });
}

function html(methods: readonly MethodFacts[]): string {
  const options = methods
    .map(({ name, title }) => `<option value="${escapeText(name)}">${escapeText(title)}</option>`)
    .join("");
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>prefixkv</title>
<style>${style}</style>
</head>
<body>
<header><h1>prefixkv</h1><p id="model" class="sub">Ask a model about a picture, with a key-value cache that shrinks.</p></header>
<main>
<form id="form">
<label id="drop" for="file"><img id="preview" alt="" hidden><span id="hint">Drop, paste or choose a picture</span></label>
<input id="file" type="file" accept="image/png,image/jpeg,image/webp,image/gif">
<button id="forget" type="button" hidden>Remove the picture</button>
<label for="question">Question</label>
<textarea id="question" rows="3" aria-describedby="keys">Describe the image in detail.</textarea>
<p id="keys" class="sub">Ctrl+Enter asks, Escape stops.</p>
<div class="row">
<div><label for="method">Method</label><select id="method"><option value="">full cache</option>${options}</select></div>
<div><label for="beside">Beside it</label><select id="beside"><option value="-">nothing</option><option value="" selected>full cache</option>${options}</select></div>
<div><label for="keep">Keep <output id="share" for="keep">50 %</output></label><input id="keep" type="range" min="5" max="100" step="5" value="50"></div>
<div><label for="tokens">Most tokens</label><input id="tokens" type="number" min="1" value="200"></div>
<div><label for="key">Key</label><input id="key" type="password" autocomplete="off" placeholder="none"></div>
</div>
<p><button id="ask" type="submit">Ask</button> <button id="stop" type="button" disabled>Stop</button></p>
</form>
<p id="status" role="status"></p>
<div id="answers"></div>
</main>
<script>${script}</script>
</body>
</html>
`;
}
