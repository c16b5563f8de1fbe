import type { ModelInfo } from "../generated/wire.ts";
import { packageVersion } from "../version.ts";
import type { Settings } from "./options.ts";

/** The routes that gateways before several servers (smg, the former SGLang router) ask each of them for. */
export function gatewayRoutes(
  info: ModelInfo,
  { id, concurrency }: Settings,
): [path: string, get: () => Promise<Response>][] {
  const server = async (): Promise<Response> =>
    Response.json({
      model_id: id,
      served_model_name: id,
      version: await packageVersion(),
      context_length: info.maxPositions,
      max_running_requests: concurrency,
    });
  return [
    ["/version", async () => Response.json({ version: await packageVersion() })],
    ["/server_info", server],
    ["/get_server_info", server],
    ["/model_info", async () => Response.json({ is_generation: true, has_image_understanding: info.image !== null })],
  ];
}
