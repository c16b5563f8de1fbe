import { properties } from "../../report/palette.ts";

export const style: string = `:root{color-scheme:light;${properties("light")}}
@media (prefers-color-scheme:dark){:root{color-scheme:dark;${properties("dark")}}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
header,main{max-width:1100px;margin:0 auto;padding:0 20px}
header{padding-top:24px}h1{font-size:26px;margin:0}h2{font-size:18px;margin:0 0 8px}
.sub{color:var(--muted);font-size:14px;margin:4px 0}
label{display:block;font-weight:600;margin-top:12px}
#drop{border:2px dashed var(--line);border-radius:8px;background:var(--panel);padding:16px;text-align:center;cursor:pointer;font-weight:400}
#drop.over{border-color:var(--accent)}
#drop img{display:block;max-width:100%;max-height:260px;margin:0 auto 8px}
#file{margin-top:8px;max-width:100%}
textarea,select,input[type=number],input[type=password]{width:100%;font:inherit;color:var(--ink);background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:6px 8px}
input[type=range]{width:100%;accent-color:var(--accent)}
.row{display:grid;grid-template-columns:repeat(auto-fit,minmax(180px,1fr));gap:0 16px}
button{font:inherit;color:var(--ink);background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:6px 16px;cursor:pointer}
button:disabled{opacity:.5;cursor:default}
#ask{background:var(--accent);border-color:var(--accent);color:var(--page);font-weight:600}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
#file:focus-visible{outline-offset:4px}
#answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:20px;margin:20px 0 40px}
article{border:1px solid var(--line);border-radius:8px;padding:16px;min-width:0}
.text{white-space:pre-wrap;overflow-wrap:anywhere;min-height:3em}
dl{display:grid;grid-template-columns:auto 1fr;gap:2px 12px;margin:12px 0;font-size:14px;font-variant-numeric:tabular-nums}
dt{color:var(--muted)}dd{margin:0}
meter{width:100%;height:14px}
.layers{display:grid;grid-template-columns:repeat(auto-fill,minmax(110px,1fr));gap:10px;margin-top:12px}
figure{margin:0}figcaption{font-size:13px;color:var(--muted)}
canvas{display:block;width:100%;height:auto;border-radius:4px}
.bad{color:var(--heat)}
[hidden]{display:none!important}`;
