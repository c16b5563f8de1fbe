import type { WireTool } from "../generated/wire.ts";
import { isRecord } from "./fields.ts";
import { invalid, unsupported } from "./refusal.ts";

/** Most tools of a request, most characters of all of them as JSON, and how deep a schema may be nested. */
const [mostTools, mostText, mostDepth] = [128, 65_536, 64];

/** A tool by its function, as routes have it in their own shapes. */
export interface ToolFields {
  name?: unknown;
  description?: unknown;
  parameters?: unknown;
}

/** The tools that a template is shown. `param` is where each stands. Throws a Refusal. */
export function readTools(tools: readonly { fields: ToolFields; param: string }[]): WireTool[] {
  if (tools.length > mostTools) throw invalid("tools", `has ${tools.length} tools; it may have ${mostTools}`);
  const read = tools.map(({ fields: { name, description, parameters }, param }): WireTool => {
    if (typeof name !== "string" || !/^[\w.-]{1,128}$/.test(name)) {
      throw invalid(`${param}.name`, "must be a name of 1 to 128 letters, digits, _, - and .");
    }
    const text = description ?? undefined;
    if (text !== undefined && typeof text !== "string") throw invalid(`${param}.description`, "must be a string");
    const schema = parameters ?? undefined;
    if (schema !== undefined && !isRecord(schema)) throw invalid(`${param}.parameters`, "must be a JSON schema");
    if (isDeeper(schema, mostDepth)) throw invalid(`${param}.parameters`, `is nested deeper than ${mostDepth}`);
    const told = {
      ...(text !== undefined && { description: text }),
      ...(schema !== undefined && { parameters: schema }),
    };
    return { type: "function", function: { name, ...told } };
  });
  const length = read.length === 0 ? 0 : JSON.stringify(read).length;
  if (length > mostText) throw invalid("tools", `have ${length} characters of JSON; at most ${mostText} are taken`);
  return read;
}

function isDeeper(value: unknown, depth: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  return depth === 0 || Object.values(value).some((inner) => isDeeper(inner, depth - 1));
}

/** Whether the tools are offered. Those that must be called cannot be: nothing holds an answer to a grammar. */
export function offersTools(choice: unknown): boolean {
  if (choice === undefined || choice === null || choice === "auto") return true;
  if (choice === "none") return false;
  throw unsupported("tool_choice", "`tool_choice`: only `auto` and `none` can be had; a call cannot be forced");
}

/** The arguments of a call that the conversation has already, as an object. */
export function readArguments(value: unknown, param: string): Record<string, unknown> {
  if (typeof value !== "string") throw invalid(param, "must be a string with a JSON object");
  let read: unknown;
  try {
    read = value.trim() === "" ? {} : JSON.parse(value);
  } catch {
    // Said below.
  }
  if (!isRecord(read)) throw invalid(param, "must be a JSON object as a string");
  if (isDeeper(read, mostDepth)) throw invalid(param, `is nested deeper than ${mostDepth}`);
  return read;
}
