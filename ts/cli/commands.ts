import type { Command } from "./command.ts";
import { describe } from "./commands/describe.ts";
import { doctor } from "./commands/doctor.ts";
import { inspect } from "./commands/inspect.ts";
import { score } from "./commands/score.ts";

/** Every command, in the order of the help. */
export const commands: readonly Command[] = [describe, score, inspect, doctor];
