import { createServer } from "node:http";
import { OptionError } from "../errors.ts";
import type { OpenaiServer } from "../openai/handler.ts";
import { nodeListener } from "../openai/node.ts";

/** A handler behind an open port. */
export interface Listening {
  /** Its address, with the port that it has got. */
  readonly address: string;
  /** Lets the running answers end as the handler's `close` does, then closes the port and every connection. */
  close(): Promise<void>;
}

/** Opens a port on every runtime alike, by `node:http`. Port 0 is any free one. Throws an OptionError where it cannot be had. */
export async function listen(
  handler: OpenaiServer,
  { host, port }: { host: string; port: number },
): Promise<Listening> {
  // A proxy that keeps connections must not find one closed that it has just sent a request on: most keep them for 60 s.
  const server = createServer({ keepAliveTimeout: 75_000, maxHeaderSize: 16_384 }, nodeListener(handler));
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) => reject(notThere(error, host, port)));
    server.listen(port, host, resolve);
  });
  const bound = server.address();
  const open = typeof bound === "object" && bound !== null ? bound.port : port;
  return {
    address: `http://${host.includes(":") ? `[${host}]` : host}:${open}`,
    close: async () => {
      await handler.close();
      await new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      });
    },
  };
}

const reasons: Readonly<Record<string, string>> = {
  EADDRINUSE: "another program has it; give another port, or 0 for any free one",
  EACCES: "this user may not; ports below 1024 are the system's",
  EADDRNOTAVAIL: "this machine has no such address",
  ENOTFOUND: "there is no such name",
  EAI_AGAIN: "there is no such name",
};

function notThere(error: Error, host: string, port: number): OptionError {
  const { code = "" } = error as NodeJS.ErrnoException;
  const reason = reasons[code] ?? `the system says ${/^[A-Z_0-9]+$/.test(code) ? code : "no reason"}`;
  return new OptionError("option", `cannot listen at port ${port} of ${host}: ${reason}`, {
    option: code === "EADDRINUSE" || code === "EACCES" ? "port" : "host",
    suggestion: null,
  });
}

/** Whether a host is this machine to itself only. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(?:\.\d{1,3}){3}$/.test(host);
}
