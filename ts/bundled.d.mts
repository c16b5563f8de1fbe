/** The files that may be in a bundle, by their paths in the package; each resolves with where it can be read. */
export declare const bundled: Readonly<Record<string, () => Promise<{ readonly default: string }>>>;
