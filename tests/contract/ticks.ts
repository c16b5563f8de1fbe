/** How alive an event loop is. */
export interface Ticks {
  /** The share of the ticks of a 5 ms timer that came. */
  share: number;
  /** The longest time between two, in milliseconds. */
  gap: number;
}

/** Counts the ticks of this thread until the returned function is called, which gives them. */
export function countTicks(): () => Ticks {
  const period = 5;
  const start = performance.now();
  let last = start;
  let count = 0;
  let gap = 0;
  const timer = setInterval(() => {
    const now = performance.now();
    gap = Math.max(gap, now - last);
    last = now;
    count += 1;
  }, period);
  return () => {
    clearInterval(timer);
    return { share: (count * period) / (performance.now() - start), gap };
  };
}
