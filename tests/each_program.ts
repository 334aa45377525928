/**
 * Runs a program of this project with one command line after the other, each a line of JSON on standard input, in this one process. Ends
 * what each writes, on standard output and standard error, with a zero byte, its exit code and another zero byte.
 */
import process from "node:process";
import { createInterface } from "node:readline";

const [script] = process.argv.slice(2);

class Exit extends Error {}
let end: (code: number) => void;
process.exit = (code = 0) => {
  end(Number(code));
  throw new Exit(); // nothing behind it is to run
};
process.on("unhandledRejection", (error) => {
  if (error instanceof Exit) return;
  console.error(error);
  end(1);
});
for (const each of [process, process.stdout, process.stderr]) each.setMaxListeners(0); // each run listens to them

const written = (stream: NodeJS.WriteStream, text: string) =>
  new Promise<void>((done) => stream.write(text, () => done()));
let count = 0;
for await (const line of createInterface({ input: process.stdin })) {
  process.argv.splice(2, Infinity, ...JSON.parse(line));
  const ended = new Promise<number>((resolve) => end = resolve);
  // A module runs once under each name, and those that it imports once in all.
  import(new URL(`../${script}?${count++}`, import.meta.url).href).catch((error) => {
    if (!(error instanceof Exit)) throw error;
  });
  const code = await ended;
  for (const stream of [process.stdout, process.stderr]) await written(stream, `\0${code}\0`);
}
