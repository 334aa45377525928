/**
 * Lints the documentation of the public names: every one has a comment, and every type that a signature names is public. Of all faces
 * together, where each type has a home; and one by one of those that people write parts of their own with, which have all that
 * their signatures name. The others stand on these and on one another: alone, each would need 30 to 110 types of others.
 */
import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import process from "node:process";

const alone = ["lib/schedules/mod.ts", "lib/ops/mod.ts", "lib/layers/mod.ts"];

const files = readdirSync("lib", { recursive: true, encoding: "utf8" });
const faces = ["mod.ts", ...files.filter((file) => /^[^/\\]+[/\\]mod\.ts$/.test(file)).map((file) => `lib/${file}`)];
for (const each of [faces, ...alone.map((face) => [face])]) {
  try {
    execFileSync(process.execPath, ["doc", "--lint", "--quiet", ...each], { stdio: ["ignore", "ignore", "inherit"] });
  } catch {
    console.error(`The documentation of ${each.length > 1 ? "the faces" : `${each[0]} alone`} is not complete.`);
    process.exit(1);
  }
}
console.log(`${faces.length} faces are documented, ${alone.length} of them alone.`);
