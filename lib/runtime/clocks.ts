/** How far clocks are apart, from messages there and back. */
import { UserError } from "../errors.ts";

/** A message there and back: when it was sent and when its answer arrived, by one clock, and in between what another one told. */
export interface ClockSample {
  readonly sent: number;
  readonly told: number;
  readonly arrived: number;
}

/** What is to be added to a clock's own time `at`, at least and at most, so that it is another's. */
export interface ClockBounds {
  /** The time of its own, in milliseconds. */
  readonly at: number;
  /** The least that is to be added, in milliseconds. */
  readonly low: number;
  /** The most. */
  readonly high: number;
}

/** How a device's clock goes against that of the first process, in milliseconds. */
export interface Clock {
  /** A time of its own. */
  readonly at: number;
  /** What is to be added to it. */
  readonly offset: number;
  /** What is to be added besides for each millisecond later: 1e-6 where it is slow by a second in twelve days. */
  readonly drift: number;
  /** How wrong that may be between the two readings: half the shortest way there and back, of processes and device together. */
  readonly error: number;
  /** Devices of one number read one clock: between them nothing is wrong. */
  readonly group: number;
}

/** The clocks of all devices, by peer, on the way to one. */
export interface Clocks {
  /** One for each device. */
  readonly peers: readonly Clock[];
  /** The most that times of two devices may be wrong against each other, in milliseconds; 0 where all read one clock. */
  readonly error: number;
}

/** What `readClocks` has found at one moment: plain data. */
export interface ClockReading {
  /** Of each device, by peer. */
  readonly peers: readonly PeerReading[];
}

/** A device's part in a reading. */
export interface PeerReading {
  /** From the device's clock to that of its process. */
  readonly device: ClockBounds;
  /** From there to that of the first process. */
  readonly process: ClockBounds;
  /** Clocks of one machine tick alike. */
  readonly machine: string;
  /** Whether the first process is there, too. */
  readonly isNear: boolean;
  /** Whether it is a software driver's, which reads the machine's own clock. */
  readonly software: boolean;
}

/** The rates of any two clocks differ by less: quartz is good to some 50 millionths. */
const mostDrift = 1e-4;

/** What the sample with the shortest way there and back leaves open: the told time is one between its two ends. */
export function boundsOf(samples: readonly ClockSample[]): ClockBounds {
  const { sent, told, arrived } = samples.reduce((best, each) =>
    each.arrived - each.sent < best.arrived - best.sent ? each : best
  );
  return { at: told, low: sent - told, high: arrived - told };
}

/** From a clock by way of a second to a third; between the two looks the second may have drifted. */
export function chained(first: ClockBounds, second: ClockBounds): ClockBounds {
  const moved = Math.max(...[first.low, first.high].map((offset) => Math.abs(first.at + offset - second.at)));
  const slack = mostDrift * moved;
  return { at: first.at, low: first.low + second.low - slack, high: first.high + second.high + slack };
}

/**
 * The clock by two looks at it: the middle of what each leaves open, and the line through both. What is on a straight line is off by no
 * more than the larger half of what is open, as long as it is between the two; a clock that ticks as the other one does,
 * `isSteady`, is within all bounds at once.
 */
export function clockThrough(
  looks: readonly ClockBounds[],
  isSteady = false,
): Omit<Clock, "group"> {
  const [first] = looks, last = looks[looks.length - 1];
  if (isSteady) {
    const low = Math.max(...looks.map((look) => look.low)), high = Math.min(...looks.map((look) => look.high));
    if (low <= high) return { at: first.at, offset: (low + high) / 2, drift: 0, error: (high - low) / 2 };
  }
  const middle = ({ low, high }: ClockBounds) => (low + high) / 2;
  return {
    at: first.at,
    offset: middle(first),
    drift: last.at > first.at ? (middle(last) - middle(first)) / (last.at - first.at) : 0,
    error: Math.max(...looks.map(({ low, high }) => (high - low) / 2)),
  };
}

/**
 * Puts the clocks of all devices on that of the first process, by one reading before what is to be drawn and one behind it.
 *
 * Software drivers of one machine read its own clock (on Linux CLOCK_MONOTONIC): where the readings do not contradict that, they are
 * one, exactly. The clocks of processes of one machine differ by an offset alone. All others have a drift too, taken as steady
 * between the readings.
 *
 * @throws {UserError} When the readings are of other devices, or in the wrong order.
 */
export function clocksBetween(before: ClockReading, after: ClockReading): Clocks {
  if (before.peers.length !== after.peers.length) {
    throw new UserError(
      `clocksBetween: both readings must be of the same devices, and these are of ${before.peers.length} and ${after.peers.length}`,
    );
  }
  const looks = before.peers.map((first, peer) =>
    [first, after.peers[peer]].map(({ device, process }) => chained(device, process))
  );
  if (looks.some(([first, last]) => last.at < first.at)) {
    throw new UserError("clocksBetween: the first reading must be the earlier one, and it is the later one");
  }
  const groups: { readonly peers: number[]; readonly machine?: string }[] = [];
  before.peers.forEach(({ software, machine }, peer) => {
    const group = software ? groups.find((each) => each.machine === machine) : undefined;
    if (group && overlap([...group.peers, peer].flatMap((each) => looks[each]))) group.peers.push(peer);
    else groups.push({ peers: [peer], ...software ? { machine } : {} });
  });
  const peers: Clock[] = [];
  groups.forEach((group, number) => {
    const [one] = group.peers, { software, isNear } = before.peers[one];
    const steady = software && isNear;
    const all = group.peers.map((peer) => looks[peer]);
    const clock = clockThrough(steady ? all.flat() : [0, 1].map((at) => tightest(all.map((each) => each[at]))), steady);
    for (const peer of group.peers) peers[peer] = { ...clock, group: number };
  });
  return clocksOf(peers);
}

/** These clocks, or of many some: their groups numbered from 0, and how wrong any two may be. */
export function clocksOf(some: readonly Clock[]): Clocks {
  const groups = [...new Map(some.map((clock) => [clock.group, clock])).values()];
  const [one = 0, other = 0] = groups.map(({ error }) => error).sort((a, b) => b - a);
  return {
    peers: some.map((clock) => ({ ...clock, group: groups.findIndex(({ group }) => group === clock.group) })),
    error: groups.length > 1 ? one + other : 0,
  };
}

/** Whether looks at one clock may be of one: nothing but a drift in between keeps their bounds from having a point in common. */
function overlap(looks: readonly ClockBounds[]): boolean {
  const slack = mostDrift * (Math.max(...looks.map(({ at }) => at)) - Math.min(...looks.map(({ at }) => at)));
  return Math.max(...looks.map(({ low }) => low)) <= Math.min(...looks.map(({ high }) => high)) + slack;
}

const tightest = (looks: readonly ClockBounds[]) =>
  looks.reduce((best, each) => each.high - each.low < best.high - best.low ? each : best);

/** A time of a device's clock on the first process's. */
export function onFirstClock({ at, offset, drift }: Clock, time: number): number {
  return time + offset + drift * (time - at);
}
