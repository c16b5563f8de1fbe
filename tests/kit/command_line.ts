import type { Streams } from "../../ts/cli/command.ts";
import { run } from "../../ts/cli/run.ts";
import { FakeNative } from "./fake_native.ts";

/** Runs a command line against the fake and keeps what it wrote; `lines` are its standard input. */
export async function cli(
  args: readonly string[],
  { fake = new FakeNative(), lines = [], ...given }: Partial<Streams> & { fake?: FakeNative; lines?: string[] } = {},
): Promise<{ code: number; out: string; err: string; fake: FakeNative }> {
  let [out, err] = ["", ""];
  const code = await run([...args], {
    out: (text) => {
      out += text;
    },
    err: (text) => {
      err += text;
    },
    interactive: false,
    color: false,
    signal: new AbortController().signal,
    ask: async () => lines.shift(),
    onInterrupt: () => {},
    door: async () => ({ native: fake, file: "native/fake.node" }),
    ...given,
  });
  return { code, out, err, fake };
}
