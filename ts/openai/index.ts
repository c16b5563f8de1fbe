/** A model behind the chat completions of OpenAI's HTTP interface. */
import "../required.ts";

export { type OpenaiServer, openai } from "./handler.ts";
export { type NodeRequest, type NodeResponse, nodeListener } from "./node.ts";
export type { OpenaiOptions } from "./options.ts";
