import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";

/** A folder for the tests of the calling file, which goes after them. */
export function temporaryFolder(name: string): string {
  const folder = mkdtempSync(join(tmpdir(), `prefixkv-${name}-`));
  after(() => rmSync(folder, { recursive: true }));
  return folder;
}
