import { join } from "node:path";
import { after, before, beforeEach } from "node:test";
import { HubServer, smallFiles } from "./hub_server.ts";
import { temporaryFolder } from "./temporary_folder.ts";

/** A hub for the tests of the calling file, which has its files anew before each. */
export function testHub(
  name: string,
  shardBytes?: number,
): { server: HubServer; folder: string; freshCache(): string } {
  const folder = temporaryFolder(name);
  const server = new HubServer(smallFiles(shardBytes));
  let caches = 0;
  before(() => server.start());
  after(() => server.stop());
  beforeEach(() => {
    server.reset();
    server.files = smallFiles(shardBytes);
  });
  return { server, folder, freshCache: () => join(folder, `cache-${caches++}`) };
}
