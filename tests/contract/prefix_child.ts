// Restores a snapshot in a process of its own and asks about it: `prefix_child.ts DOOR PATH QUESTION`.
import { type Door, loadThrough } from "./doors.ts";

const [door, path = "", prompt = ""] = process.argv.slice(2);
const model = await loadThrough(door as Door);
const prefix = await model.restore(path);
const { text, tokens, usage } = await prefix.generate({ prompt, maxTokens: 24 });
await model.dispose();
console.log(JSON.stringify({ text, tokens, cached: usage.cachedTokens }));
