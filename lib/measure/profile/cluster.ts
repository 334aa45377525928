/** What a profile says of a cluster: its medians, for every function that takes costs. */
import { expectValue } from "../../rules.ts";
import type { Cluster, ClusterStage } from "../../schedules/price/cluster.ts";
import { type Profile, profileRule } from "./profile.ts";

/**
 * The medians of a profile, as a cluster file has them: for `clusterCosts`, and so for `simulate`, `twoStage` and `search`.
 *
 * ```ts
 * import { simulate } from "twobp";
 * import { clusterOf, fromTrace } from "twobp/measure";
 * import { clusterCosts } from "twobp/schedules";
 *
 * const text = "stage,kind,ms\n0,F,17\n0,B,33\n1,F,17\n1,B,31\n1,B,32\n1,B,33\n";
 * const costs = clusterCosts(clusterOf(await fromTrace([{ name: "times.csv", text }])));
 * console.log(costs.duration({ kind: "B", stage: 1, microbatches: [0] }, 1, 0)); // 32
 * ```
 *
 * @throws {UserError} For what is no profile.
 */
export function clusterOf(profile: Profile): Cluster {
  expectValue("clusterOf: the profile", profile, profileRule);
  const { ranks, stages, messages, hosts, tails } = profile;
  const medians = (list: Profile["hosts"]) =>
    list.some((each) => each !== undefined) ? list.map((each) => each ? short(each.median) : null) : undefined;
  const [host, tail] = [medians(hosts), medians(tails)];
  return {
    ranks,
    stages: stages.map(({ f, i, w, b }): ClusterStage => {
      const widths = Object.entries(w ?? {}).map(([width, { median }]) => [width, short(median)] as const);
      const isSingle = widths.length === 1 && widths[0][0] === "1";
      return {
        ...(f && { f: short(f.median) }),
        ...(i && { i: short(i.median) }),
        ...(widths.length > 0 && { w: isSingle ? widths[0][1] : Object.fromEntries(widths) }),
        ...(b && { b: short(b.median) }),
      };
    }),
    messages: messages.map(({ from, to, what, time }) => ({ from, to, what, time: short(time.median) })),
    ...(host && { hosts: host }),
    ...(tail && { tails: tail }),
  };
}

/** To a nanosecond, as traces are. */
const short = (time: number) => Number(time.toFixed(6));
