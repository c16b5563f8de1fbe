import { NativeError } from "../errors.ts";
import type { Native } from "./contract.ts";

/** A door that has been opened, and the file it came from. */
export interface OpenDoor {
  native: Native;
  file: string;
}

const loader = async () => (await import("./binding.cjs")).default;

/** The platform as the names of the native files have it. */
export async function platformName(): Promise<string> {
  return (await loader()).platform();
}

/** Loads the Node-API addon; throws a NativeError with the cure when there is none. */
export async function openNapi(): Promise<OpenDoor> {
  const binding = await loader();
  const { native, file, attempts } = permitted(() => binding.load());
  if (native !== null && file !== null) return { native, file };
  throw missingAddon(`${process.platform}-${process.arch}`, attempts);
}

/** Where the addon is, whose file carries the C ABI too; throws like {@link openNapi}. */
export async function locateAddon(): Promise<{ path: string; file: string }> {
  const binding = await loader();
  const { path, file, attempts } = permitted(() => binding.locate());
  if (path !== null && file !== null) return { path, file };
  throw missingAddon(`${process.platform}-${process.arch}`, attempts);
}

/** Without Deno's --allow-read even the look for the addon throws. */
function permitted<T>(find: () => T): T {
  try {
    return find();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw missingAddon(`${process.platform}-${process.arch}`, [{ file: "native/*.node", reason }]);
  }
}

/** The error for a platform without a loadable addon. */
export function missingAddon(platform: string, attempts: readonly { file: string; reason: string }[]): NativeError {
  if (attempts.length === 0) {
    return new NativeError(
      "native-missing",
      `there is no native addon for ${platform}; build it in a checkout with \`npm run build:native\``,
      { platform, attempts },
    );
  }
  const tried = attempts.map(({ file, reason }) => `\n  ${file}: ${reason.split("\n")[0]}`).join("");
  return new NativeError(
    "native-missing",
    `the native addon for ${platform} could not be loaded. It is a package of its own: install with optional dependencies; in a ` +
      `checkout run \`npm run build:native\` (Deno needs --allow-ffi and --allow-read). Tried:${tried}`,
    { platform, attempts },
  );
}
