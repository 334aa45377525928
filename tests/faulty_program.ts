/** Runs a program of this project on devices that fail: the faults as JSON, the script, and its arguments. */
import process from "node:process";
import { inject } from "./faults.ts";

const [faults, script] = process.argv.splice(2, 2);
inject(JSON.parse(faults));
import(new URL(`../${script}`, import.meta.url).href);
