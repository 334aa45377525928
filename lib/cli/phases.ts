/** Where the time of a command goes. */

/** The parts of a run, one after the other, from the start of the process. */
export interface Phases {
  /** What ran until now, since the phase before. */
  end(what: string): void;
  /** All of them, in a sentence: "Time: 0.8 s to load, 4.2 s to compile kernels." */
  text(): string;
}

/** Begins with the process: loading it is a part of the first phase. */
export function timePhases(): Phases {
  const ended: { what: string; ms: number }[] = [];
  let since = 0; // the clock of the process
  return {
    end(what) {
      const now = performance.now();
      ended.push({ what, ms: now - since });
      since = now;
    },
    text: () => `Time: ${ended.map(({ what, ms }) => `${(ms / 1e3).toFixed(1)} s ${what}`).join(", ")}.`,
  };
}
