/** Nothing is left out of twobp/ops and twobp/layers. */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as face from "../../lib/layers/mod.ts";
import * as ops from "../../lib/ops/mod.ts";
import { everyOperation } from "../ops/support.ts";
import { layers } from "./every.ts";

/** Operations that are parts of others, of an optimizer, or of the end of a step. */
const inner = /^(attention|selectiveScan|adamw|lion|look|sgd)/;

test("every layer, and every operation, is exported", async () => {
  for (const name of Object.keys(layers)) assert.ok(name in face, name);
  for (const { name } of await everyOperation()) assert.ok(inner.test(name) || name in ops, name);
});
