import { faults, type PublishedTable, pairs, qualityMethods, source, tenths } from "./table.ts";

export const mmVetTable: PublishedTable = {
  name: "prefixkv-mm-vet",
  title: "PrefixKV, MM-Vet: perplexity and ROUGE-L",
  source,
  faults,
  data: { file: "mm-vet.json", images: "the folder `images` beside it, or --images", samples: 218 },
  keeps: tenths,
  rows: [
    pairs("7B", "Local", "109/.11 90.0/.08 99.0/.13 99.0/.16 66.0/.16 28.4/.27 12.4/.34 7.88/.41 6.28/.46"),
    pairs("7B", "H2O", "158/.25 120/.26 72.5/.29 35.3/.31 18.6/.30 10.3/.39 7.09/.44 6.22/.46 5.72/.49"),
    pairs("7B", "Elastic", "40.5/.25 21.0/.25 14.9/.29 11.3/.29 9.06/.32 7.63/.38 5.97/.46 5.56/.48 5.53/.54"),
    pairs("7B", "PrefixKV", "7.38/.39 5.97/.41 5.72/.46 5.53/.46 5.50/.48 5.44/.50 5.38/.59 5.28/.74 5.28/.77"),
    pairs("13B", "Local", "135/.15 120/.14 77.0/.24 53.8/.26 40.5/.27 18.0/.34 9.06/.42 6.63/.39 5.41/.43"),
    pairs("13B", "H2O", "31.6/.36 30.6/.38 20.8/.40 10.6/.43 7.75/.39 6.28/.44 5.63/.46 5.25/.47 4.88/.56"),
    pairs("13B", "Elastic", "34.3/.28 11.6/.34 8.00/.37 6.31/.44 5.81/.44 5.44/.49 4.97/.52 4.81/.51 4.81/.56"),
    pairs("13B", "PrefixKV", "6.28/.40 5.16/.46 4.88/.52 4.78/.52 4.72/.55 4.72/.57 4.72/.64 4.69/.75 4.72/.79"),
  ],
  ours: qualityMethods,
};
