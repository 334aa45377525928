/** Sums over replicas, played message by message: who has added up what, and when. */

/** A link: what so many bytes take. */
export type Link = (bytes: number) => number;

/** Where the replicas are, and what connects them. */
export interface Place {
  /** Of each replica its host. */
  readonly hosts: readonly number[];
  readonly inside: Link;
  readonly between: Link;
}

/** A message of a round: a piece, as its sender has it, to be added up or to stand in place of what is there. */
interface Message {
  from: number;
  to: number;
  piece: number;
  bytes: number;
  adds: boolean;
}

/**
 * Plays rounds of messages, each over when the last of its messages has come; bytes of a sender on one kind of link follow each other.
 * Parts are sets of replicas, so that adding one up twice is found out.
 */
function play({ hosts, inside, between }: Place, pieces: number, rounds: readonly Message[][]) {
  const has = hosts.map((_, own) => Array.from({ length: pieces }, () => new Set([own])));
  let time = 0;
  for (const round of rounds) {
    const load = new Map<string, number>();
    const sent = round.map((message) => new Set(has[message.from][message.piece]));
    for (const [at, { from, to, piece, bytes, adds }] of round.entries()) {
      const key = `${from} ${hosts[from] === hosts[to]}`;
      load.set(key, (load.get(key) ?? 0) + bytes);
      if (!adds) has[to][piece] = sent[at];
      else {
        for (const each of sent[at]) {
          if (has[to][piece].has(each)) throw new Error(`${each} is added twice`);
          has[to][piece].add(each);
        }
      }
    }
    time += Math.max(0, ...[...load].map(([key, bytes]) => (key.endsWith("true") ? inside : between)(bytes)));
  }
  return { time, isWhole: has.every((own) => own.every((parts) => parts.size === hosts.length)) };
}

/** What a sum of so many bytes takes, and whether all have all of it. */
export function playSum(way: "direct" | "ring" | "tree" | "hierarchical", place: Place, bytes: number) {
  const { hosts } = place, count = hosts.length, all = [...hosts.keys()];
  if (way === "direct") {
    const pairs = all.flatMap((from) =>
      all.filter((to) => to !== from).map((to) => ({ from, to, bytes: bytes / count }))
    );
    return play(place, count, [
      pairs.map((pair) => ({ ...pair, piece: pair.to, adds: true })),
      pairs.map((pair) => ({ ...pair, piece: pair.from, adds: false })),
    ]);
  }
  /** Rounds of several rings at once; of `share` bytes a member makes pieces, which are numbered from `base`. */
  const rings = (
    members: readonly (readonly number[])[],
    per: number,
    pieceOf: (ring: number, at: number) => number[],
    adds: boolean,
  ) =>
    Array.from({ length: members[0].length - 1 }, (_, turn) =>
      members.flatMap((ring, r) =>
        ring.flatMap((from, at) => {
          const size = ring.length, piece = ((at - turn + (adds ? -1 : 0)) % size + 2 * size) % size;
          return pieceOf(r, piece).map((each) => ({ from, to: ring[(at + 1) % size], piece: each, bytes: per, adds }));
        })
      ));
  if (way === "ring") {
    const one = (adds: boolean) => rings([all], bytes / count, (_, at) => [at], adds);
    return play(place, count, [...one(true), ...one(false)]);
  }
  if (way === "tree") {
    const up: Message[][] = [];
    for (let reach = 1; reach < count; reach *= 2) {
      const pairs = all.filter((at) => at % (2 * reach) === 0 && at + reach < count);
      up.push(pairs.map((to) => ({ from: to + reach, to, piece: 0, bytes, adds: true })));
    }
    const down = up.toReversed().map((round) =>
      round.map(({ from, to, ...rest }) => ({ ...rest, from: to, to: from, adds: false }))
    );
    return play(place, 1, [...up, ...down]);
  }
  const groups = [...new Set(hosts)].map((host) => all.filter((at) => hosts[at] === host));
  const own = groups[0].length, across = Array.from({ length: own }, (_, at) => groups.map((group) => group[at]));
  // Piece `at` of a host is cut into as many as there are hosts; after the rings inside, member at has piece at.
  const cut = (at: number) => groups.map((_, host) => at * groups.length + host);
  const piece = bytes / own / groups.length;
  const inside = (adds: boolean) => rings(groups, piece, (_, at) => cut(at), adds);
  const between = (adds: boolean) => rings(across, piece, (at, host) => [cut(at)[host]], adds);
  return play(place, own * groups.length, [...inside(true), ...between(true), ...between(false), ...inside(false)]);
}
