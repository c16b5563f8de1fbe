// Run as a program of its own under limits: writes a file of the size of its second argument to its first, and says how that went.
import { writeSync } from "node:fs";
import { replaceFile, writeFailure } from "../../ts/files/write.ts";

const [path = "", size = "0"] = process.argv.slice(2);
const said = await replaceFile(path, "n".repeat(Number(size))).then(() => "written", writeFailure);
writeSync(2, said);
