/** What `deno test` has printed until now, counted: a run that is ended before its last line has counts too. */

/** Tests that have ended. */
export interface TestCounts {
  /** Version of this form. */
  readonly schema: 1;
  readonly passed: number;
  readonly failed: number;
  readonly ignored: number;
  /** Names of those that failed. */
  readonly failures: readonly string[];
  /** Whether the run came to its end. */
  readonly complete: boolean;
}

/** Counts the tests in what `deno test` prints, without colours; steps of tests, which stand indented, are not counted. */
export function testCounts(printed: string): TestCounts {
  const counts = { ok: 0, FAILED: 0, ignored: 0 };
  const failures: string[] = [];
  const output = printed.replace(/^-+ output -+\n[^]*?^-+ output end -+$/gm, ""); // what tests print themselves
  for (const [, name, end] of output.matchAll(/^(\S.*) \.\.\. (ok|FAILED|ignored) \(.*\)$/gm)) {
    counts[end as keyof typeof counts]++;
    if (end === "FAILED") failures.push(name);
  }
  const complete = /^(?:ok|FAILED) \| \d+ passed/m.test(output);
  return { schema: 1, passed: counts.ok, failed: counts.FAILED, ignored: counts.ignored, failures, complete };
}
