/** Which process of a job says why it ends, where several have the same reason. */
import { processNumber } from "./launcher.ts";
import { joinJob } from "./job.ts";

/** So long a process that fails waits for the reasons of others, in milliseconds: one that does not fail tells none. */
const patienceMs = 1000;

/**
 * Tells the others why this process fails, and whether it is the one to say so: not where another has the same reason and a lower number, or
 * a reason that this one only repeats.
 */
export async function isFirstToSay(text: string): Promise<boolean> {
  try {
    const job = await joinJob(), { mail, rank, size } = job;
    job.reason = text.split("\n")[0];
    const others = Array.from({ length: size }, (_, at) => at).filter((at) => at !== rank);
    for (const to of others) mail.tell(to, "last word", text);
    const late = new Promise<undefined>((resolve) => void setTimeout(() => resolve(undefined), patienceMs));
    const told = await Promise.all(
      others.map(async (from) =>
        [from, await Promise.race([mail.hear(from, "last word"), late]).catch(() => undefined)] as const
      ),
    );
    const bare = (line: string) => line.replace(/^[\w ]+: /, "").split("\n")[0];
    return !told.some(([from, said]) =>
      typeof said === "string" && (said === text ? from < rank : text.includes(bare(said)))
    );
  } catch {
    return processNumber() === 0; // MPI itself is what is wrong, and all have met that
  }
}
