/** What memory the machine has left. */
export { freemem as freeMemory } from "node:os";
