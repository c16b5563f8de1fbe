// How fast something grows.

export interface Slope {
  /** Growth from one value to the next, by least squares. */
  slope: number;
  /** The standard error of the slope. */
  error: number;
}

/** The slope of the straight line through `values`, one apart. */
export function slope(values: readonly number[]): Slope {
  const n = values.length;
  if (n < 3) throw new RangeError(`a slope needs at least 3 values, found ${n}`);
  const middle = (n - 1) / 2;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  const width = values.reduce((sum, _, index) => sum + (index - middle) ** 2, 0);
  const slope = values.reduce((sum, value, index) => sum + (index - middle) * (value - mean), 0) / width;
  const rest = values.reduce((sum, value, index) => sum + (value - mean - slope * (index - middle)) ** 2, 0);
  return { slope, error: Math.sqrt(rest / (n - 2) / width) };
}
