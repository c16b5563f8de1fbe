import type { Command } from "./command.ts";
import { calibrate } from "./commands/calibrate.ts";
import { chat } from "./commands/chat.ts";
import { compare } from "./commands/compare.ts";
import { describe } from "./commands/describe.ts";
import { doctor } from "./commands/doctor.ts";
import { evalCommand } from "./commands/eval.ts";
import { fit } from "./commands/fit.ts";
import { inspect } from "./commands/inspect.ts";
import { methods } from "./commands/methods.ts";
import { report } from "./commands/report.ts";
import { reproduce } from "./commands/reproduce.ts";
import { score } from "./commands/score.ts";
import { serve } from "./commands/serve.ts";

/** Every command, in the order of the help. */
export const commands: readonly Command[] = [
  describe,
  chat,
  serve,
  score,
  calibrate,
  fit,
  evalCommand,
  compare,
  reproduce,
  report,
  methods,
  inspect,
  doctor,
];
