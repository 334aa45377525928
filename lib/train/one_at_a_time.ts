/** Calls that wait for one another: what was asked for first is done first, and whole. */
export function oneAtATime(): <Result>(work: () => Promise<Result>) => Promise<Result> {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const result = last.then(work);
    last = result.catch(() => {}); // whoever asked for it is told
    return result;
  };
}
