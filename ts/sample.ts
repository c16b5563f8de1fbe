import { readFile } from "node:fs/promises";
import { packageFile } from "./package_files.ts";

/**
 * The bytes of a sample PNG that comes with the package: a drawn scene with a blue triangle, a gray ring, a green
 * star and a purple triangle. Throws a ModelError where it cannot be read, as on Deno without `--allow-read`.
 *
 * @example
 * ```ts
 * import { image, load, samplePicture } from "prefixkv";
 *
 * const model = await load();
 * const content = [image(await samplePicture()), "What color is the star?"];
 * const { text } = await model.generate({ messages: [{ role: "user", content }] });
 * console.log(text);
 * await model.dispose();
 * ```
 */
export async function samplePicture(): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await readFile(await packageFile("data/scenes/scene-000.png")));
}
