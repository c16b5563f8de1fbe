/** Charts and pages of what a cache keeps, and of what that costs: HTML that opens without a network, and SVG. */
import "../required.ts";

export type { ChartFile, Report } from "./chart.ts";
export { type DescribeInput, describeReport } from "./describe.ts";
export { evalReport } from "./eval.ts";
export type { Picture, Run } from "./runs.ts";
