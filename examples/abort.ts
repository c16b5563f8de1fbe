// Stops a generation from outside and keeps what there was.
import { AbortError, image, load } from "prefixkv";

await using model = await load();
const controller = new AbortController();
const content = [image(process.argv[2] ?? "data/scenes/scene-000.png"), "Describe the image in detail."];
const out = model.generate({ messages: [{ role: "user", content }], signal: controller.signal });
let pieces = 0;
try {
  for await (const part of out) {
    pieces += 1;
    process.stdout.write(part.text);
    if (pieces === 10) controller.abort();
  }
} catch (error) {
  if (!(error instanceof AbortError)) throw error;
  console.log(`\nstopped after ${JSON.stringify(error.partial)}`);
}
