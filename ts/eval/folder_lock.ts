import { join } from "node:path";
import { tryLock } from "../files/lock.ts";
import { badFiles } from "./errors.ts";
import { attempt } from "./lines.ts";

/** Holds a folder of results while `use` writes into it; refuses one that another evaluation holds. */
export async function withFolder<T>(folder: string, use: (check: () => Promise<void>) => Promise<T>): Promise<T> {
  const file = join(folder, ".lock");
  const lock = await attempt(file, () => tryLock(file));
  if (!("release" in lock))
    throw badFiles(folder, `another evaluation writes into it${lock.holder}; wait for its end, or take another folder`);
  const check = async (): Promise<void> => {
    if (!(await lock.held())) throw badFiles(folder, "another evaluation has taken the folder over from this one");
  };
  try {
    return await use(check);
  } finally {
    await lock.release();
  }
}
