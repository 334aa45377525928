/**
 * A mistake of the caller that one line can explain: a bad flag, an impossible schedule, shapes that do not fit.
 * Command lines print its message alone, without a stack trace, and exit with code 2.
 */
export class UserError extends Error {
  /** Always "UserError". */
  override name = "UserError";
}
