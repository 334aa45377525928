/** Errors of devices: whose device it is, and whether the machine is to blame. */

/** An error of one rank's device; another rank that waits for a message may be the first to see it. */
export class DeviceError extends Error {
  /** Whose device it is. */
  readonly rank: number;
  /** The same in words, as messages say it. */
  readonly place: string;
  /** What the device was used for when the error was found. */
  readonly activity: string;

  /** An error of the device of `rank`. */
  constructor(rank: number, activity: string, message: string, place = `Rank ${rank}`) {
    super(message);
    this.place = place;
    this.rank = rank;
    this.activity = activity;
  }
}

/** How messages go on behind the device's name where the machine, or what is asked of it, is to blame and not a program. */
const ofMachine =
  /: (device lost|out of memory|\d+ bytes of \w+ (asked for in one buffer|exceed)|.* asks for [\d x]+ workgroups)/;

/**
 * Whether the reason of an error is a device that is lost, has no memory left, or is too small: one line says all that there is
 * to say, and a stack trace nothing.
 */
export function isOfMachine(error: unknown): boolean {
  if (error instanceof DeviceError && ofMachine.test(error.message)) return true;
  return error instanceof Error && isOfMachine(error.cause);
}
