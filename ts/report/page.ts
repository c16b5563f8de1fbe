import { type Chart, escapeText, type Table } from "./chart.ts";
import { properties } from "./palette.ts";

/** A slider or a choice that the frames of charts follow. */
export interface Control {
  /** The name that `Chart.follows` refers to. */
  name: string;
  label: string;
  /** The values of `data-frame`, in order. */
  values: readonly string[];
  /** The slider's label for each frame. */
  texts: readonly string[];
  start: number;
}

/** A part of a page: a heading, a control and its charts. */
export interface Section {
  title: string;
  text?: string;
  controls?: readonly Control[];
  charts: readonly Chart[];
}

/** The introduction of a page. */
export interface Head {
  title: string;
  /** A line under the title. */
  subtitle: string;
  facts: readonly (readonly [name: string, value: string])[];
  /** Paragraphs, such as an answer. */
  texts: readonly string[];
  /** Pictures that charts refer to by `#id`. */
  shared: string;
}

/** A page that opens without a network: styles, script and pictures are inside. */
export function page(head: Head, sections: readonly Section[]): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>${escapeText(head.title)}</title>
<style>${style}</style>
</head>
<body>
${head.shared}<header>
<div><h1>${escapeText(head.title)}</h1><p class="sub">${escapeText(head.subtitle)}</p></div>
<button id="scheme" type="button" aria-pressed="false">Dark</button>
</header>
<main>
<dl class="facts">${head.facts.map(([name, value]) => `<div><dt>${escapeText(name)}</dt><dd>${escapeText(value)}</dd></div>`).join("")}</dl>
${head.texts.map((text) => `<blockquote>${escapeText(text)}</blockquote>`).join("\n")}
${sections.map(sectionHtml).join("\n")}
</main>
<footer>Made by prefixkv. Open each table under its chart for the numbers.</footer>
<script>${script}</script>
</body>
</html>
`;
}

function sectionHtml({ title, text, controls = [], charts }: Section): string {
  return `<section><h2>${escapeText(title)}</h2>${text === undefined ? "" : `<p>${escapeText(text)}</p>`}
${controls.length > 0 ? `<div class="controls">${controls.map(controlHtml).join("")}</div>` : ""}
<div class="charts">
${charts.map(chartHtml).join("\n")}
</div></section>`;
}

function controlHtml({ name, label, values, texts, start }: Control): string {
  const data = escapeText(JSON.stringify({ values, texts }));
  const id = `control-${name}`;
  return `<div class="control"><label for="${id}">${escapeText(label)}</label><input type="range" id="${id}" data-control="${name}" data-frames="${data}" min="0" max="${values.length - 1}" step="1" value="${start}" aria-valuetext="${escapeText(texts[start] ?? "")}"><output for="${id}">${escapeText(texts[start] ?? "")}</output></div>`;
}

function chartHtml(chart: Chart): string {
  const { id, title, about, wide, narrow, table, follows, broad, captions = [] } = chart;
  const picture =
    wide === narrow
      ? `<div class="picture">${wide}</div>`
      : `<div class="picture wide">${wide}</div><div class="picture narrow">${narrow}</div>`;
  const lines = captions.map(({ frame, text }) => `<p class="caption" data-frame="${frame}">${escapeText(text)}</p>`);
  const attributes = `${broad ? ' class="broad"' : ""}${follows === undefined ? "" : ` data-follows="${follows}"`}`;
  return `<figure data-chart="${id}"${attributes}><figcaption><h3>${escapeText(title)}</h3><p>${escapeText(about)}</p></figcaption>
${picture}${lines.join("")}
<details><summary>Table</summary>${tableHtml(table, title)}</details></figure>`;
}

function tableHtml({ head, rows }: Table, title: string): string {
  const cell = (value: string | number): string =>
    typeof value === "number"
      ? `<td class="n">${value}</td>`
      : `<td${value.length > 40 ? ' class="long"' : ""}>${escapeText(value)}</td>`;
  const body = rows.map((row) => `<tr>${row.map(cell).join("")}</tr>`).join("");
  const heads = head.map((name) => `<th scope="col">${escapeText(name)}</th>`).join("");
  return `<div class="table"><table aria-label="${escapeText(title)}"><thead><tr>${heads}</tr></thead><tbody>${body}</tbody></table></div>`;
}

const style = `:root{color-scheme:light;${properties("light")}}
@media (prefers-color-scheme:dark){:root:not([data-scheme=light]){color-scheme:dark;${properties("dark")}}}
:root[data-scheme=dark]{color-scheme:dark;${properties("dark")}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
header,main,footer{max-width:1180px;margin:0 auto;padding:0 20px}
header{display:flex;justify-content:space-between;align-items:flex-start;gap:16px;padding-top:24px}
h1{font-size:26px;line-height:1.2;margin:0}h2{font-size:20px;margin:40px 0 4px}h3{font-size:16px;margin:0}
.sub,figcaption p,footer,section>p{color:var(--muted);margin:4px 0 0;font-size:14px}
button{font:inherit;font-size:14px;color:var(--ink);background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:4px 12px;cursor:pointer}
.facts{display:flex;flex-wrap:wrap;gap:12px 32px;margin:20px 0;padding:14px 16px;background:var(--panel);border-radius:8px}
.facts div{min-width:0}dt{color:var(--muted);font-size:13px}dd{margin:0;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
blockquote{margin:12px 0;font-size:15px;padding:4px 16px;border-left:3px solid var(--accent)}
.charts{display:grid;grid-template-columns:minmax(0,1fr);gap:0 40px;margin-top:16px}
@media (min-width:1080px){.charts{grid-template-columns:repeat(2,minmax(0,1fr))}.broad{grid-column:1/-1}}
figure{margin:0 0 28px;min-width:0;max-width:640px}
@media (min-width:1080px){figure{display:grid;grid-template-columns:minmax(0,1fr);grid-template-rows:subgrid;grid-row:span 4;align-content:start}}
.broad{max-width:none}
.picture{margin-top:10px}
.picture svg{display:block;width:100%;height:auto}
.narrow{display:none}
@media (max-width:560px){.wide{display:none}.narrow{display:block}header,main,footer{padding-left:14px;padding-right:14px}h1{font-size:22px}}
svg text{white-space:pre}
.caption{margin:8px 0 0;font-size:14px;font-variant-numeric:tabular-nums}
.controls{position:sticky;top:0;z-index:1;background:var(--page);padding:10px 0;border-bottom:1px solid var(--line);display:flex;flex-wrap:wrap;gap:8px 28px}
.control{display:flex;align-items:center;gap:12px;flex:1 1 300px;min-width:0}
.control label{font-weight:600;white-space:nowrap}
.control input{flex:1;min-width:80px;accent-color:var(--accent)}
.control output{min-width:6.5em;font-variant-numeric:tabular-nums}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
details{margin-top:8px;font-size:14px}summary{cursor:pointer;color:var(--muted)}
.table{overflow:auto;max-height:420px;margin-top:6px;border:1px solid var(--line);border-radius:6px}
table{border-collapse:collapse;width:100%}
th,td{padding:4px 10px;text-align:left;white-space:nowrap;border-bottom:1px solid var(--line);vertical-align:top}
th{position:sticky;top:0;background:var(--panel);font-weight:600}
.long{white-space:normal;min-width:260px}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
[hidden],g[hidden]{display:none}
footer{margin:48px auto 32px}
@media print{.controls,#scheme{display:none}}`;

const script = `(function(){
var root=document.documentElement,button=document.getElementById("scheme");
function dark(){return root.dataset.scheme?root.dataset.scheme==="dark":matchMedia("(prefers-color-scheme: dark)").matches}
function say(){button.textContent=dark()?"Light":"Dark";button.setAttribute("aria-pressed",String(dark()))}
button.addEventListener("click",function(){root.dataset.scheme=dark()?"light":"dark";say()});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change",say);say();
var state={};
function show(){
document.querySelectorAll("[data-follows]").forEach(function(figure){
var want=figure.dataset.follows.split(" ").map(function(name){return state[name]}).join(".");
figure.querySelectorAll("[data-frame]").forEach(function(part){
if(part.dataset.frame===want)part.removeAttribute("hidden");else part.setAttribute("hidden","")})})}
document.querySelectorAll("[data-control]").forEach(function(input){
var frames=JSON.parse(input.dataset.frames);
function take(){var at=Number(input.value);state[input.dataset.control]=frames.values[at];
input.setAttribute("aria-valuetext",frames.texts[at]);input.nextElementSibling.textContent=frames.texts[at]}
input.addEventListener("input",function(){take();show()});take()});
show()})();`;
