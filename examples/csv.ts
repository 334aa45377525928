/**
 * Writes a schedule as PyTorch's CSV and reads it back; then reads one with a swapped pair of actions.
 * Prints the file, that both are the same, and the message that names what is wrong with the other.
 */
import { fromCsv, generate, toCsv, twoStage, UserError } from "twobp";

const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
const csv = toCsv(schedule);
console.log(csv.trimEnd());
const read = fromCsv(csv, { name: schedule.name });
console.log("the same:", JSON.stringify(read.actions) === JSON.stringify(schedule.actions));

try {
  fromCsv(csv.replace("1F0,1I0", "1I0,1F0"));
} catch (error) {
  if (!(error instanceof UserError)) throw error;
  console.log(error.message);
}
