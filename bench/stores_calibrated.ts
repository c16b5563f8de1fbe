// Stores that a calibration goes before, for stores.ts: calibrated on texts of the model's own, so that nothing of the measured text is known.
import { type CacheOption, clla, cskv, kvquant, kvtuner, type Model, skvq } from "../ts/index.ts";

type Case = [name: string, cache: CacheOption];

const starts = [
  "The history of",
  "In the garden",
  "How to cook",
  "Dear Sir,",
  "The theory of",
  "Once upon a time",
  "A list of",
  "The government",
];

/** Eight texts of some 300 tokens, which the model makes up. */
async function texts(model: Model): Promise<string[]> {
  const found: string[] = [];
  for (const [seed, prompt] of starts.entries()) {
    const { text } = await model.generate({ prompt, maxTokens: 300, temperature: 1, seed, ignoreEos: true });
    found.push(prompt + text);
  }
  return found;
}

/** Cases by the name that `--only` asks for; those that nobody asks for are not calibrated. */
export async function calibrated(model: Model, window: number, wanted: (name: string) => boolean): Promise<Case[]> {
  const own = await texts(model);
  const samples = own.map((prompt) => ({ prompt }));
  const cases: Case[] = [];
  if (wanted("cskv")) {
    for (const init of ["covariance", "asvd"] as const) {
      for (const heads of ["each", "joint"] as const) {
        const calibration = await model.calibrateCskv({ samples, init, heads, most: 0.75 });
        const name = `cskv, ${init}${heads === "joint" ? ", heads together" : ""}`;
        const of = (keys: number, values: number, bits?: "8" | "4"): Case => {
          const shares = keys === values ? `${keys}` : `${keys} of keys and ${values} of values`;
          return [
            `${name}, ${shares}${bits ? `, in ${bits} bits` : ""}`,
            cskv({ calibration, keys, values, window, ...(bits && { bits }) }),
          ];
        };
        cases.push(of(0.75, 0.75), of(0.5, 0.5), of(0.25, 0.25));
        if (init === "covariance") cases.push(of(0.25, 0.75), of(0.75, 0.75, "4"), of(0.5, 0.5, "4"));
      }
    }
  }
  if (wanted("clla")) {
    const calibration = await model.calibrateClla({ samples });
    const of = (latent: number, bits?: "8" | "4"): Case => [
      `clla, ${latent}${bits ? `, in ${bits} bits` : ""}`,
      clla({ calibration, latent, window, ...(bits && { bits }) }),
    ];
    cases.push(of(0.5), of(0.25), of(0.5, "4"));
  }
  if (wanted("kvquant")) {
    for (const bits of [4, 2]) {
      const calibration = await model.calibrateKvquant({ samples, bits });
      cases.push([`kvquant, ${bits} bits`, kvquant({ calibration, window })]);
    }
  }
  if (wanted("skvq")) {
    const calibration = await model.calibrateChannels({ samples, group: 32 });
    for (const bits of [4, 2]) {
      cases.push([`skvq in an order, ${bits} bits, groups of 32`, skvq({ calibration, bits, window, sinks: 5 })]);
    }
    cases.push(["skvq without an order, 2 bits, groups of 32", skvq({ window, sinks: 5, bits: 2, group: 32 })]);
  }
  if (wanted("kvtuner")) {
    // The end of each text is the answer whose distributions are to stay.
    const answered = own.slice(0, 2).map((text) => {
      const at = text.lastIndexOf(" ", Math.floor(text.length * 0.75));
      return { prompt: text.slice(0, at), answer: text.slice(at) };
    });
    const calibration = await model.calibrateBits({ samples: answered, window, groups: 4, trials: 20 });
    for (const { bits } of calibration.points) {
      if (bits >= 2.5 && bits <= 6) {
        cases.push([`kvtuner, searched, ${bits.toFixed(2)} bits`, kvtuner({ calibration, bits, window })]);
      }
    }
  }
  return cases;
}
