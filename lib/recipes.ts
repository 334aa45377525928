/** How models and optimizers of this library were made, so that another process can make the same. */

/** Which function has made something, and what it was given. */
export interface Recipe {
  readonly maker: string;
  readonly given: readonly unknown[];
}

const recipes = new WeakMap<object, Recipe>();

/** Notes how `what` was made. Functions cannot be told to another process: what was given one has no recipe. */
export function made<T extends object>(maker: string, given: readonly unknown[], what: T): T {
  try {
    recipes.set(what, { maker, given: structuredClone(given) });
  } catch {
    // no recipe
  }
  return what;
}

/** How it was made; undefined for what is one's own, and for what has been changed since, which is another object. */
export function recipeOf(what: object): Recipe | undefined {
  return recipes.get(what);
}
