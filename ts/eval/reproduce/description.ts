import { faults, type PublishedTable, pairs, qualityMethods, source, tenths } from "./table.ts";

export const description: PublishedTable = {
  name: "prefixkv-description",
  title: "PrefixKV, LLaVA-Description: perplexity and ROUGE-L",
  source,
  faults,
  data: {
    file: "detail_1k.json",
    images: "the COCO pictures that it names, beside it or under --images",
    samples: 1000,
  },
  keeps: tenths,
  rows: [
    pairs("7B", "Local", "66.0/.22 105/.14 70.0/.18 47.5/.17 33.8/.19 14.7/.30 5.50/.41 4.78/.50 4.03/.55"),
    pairs("7B", "H2O", "54.5/.28 48.3/.31 32.0/.33 18.3/.32 12.9/.34 7.50/.41 4.28/.51 4.16/.53 3.72/.57"),
    pairs("7B", "Elastic", "18.0/.29 14.0/.29 11.8/.29 7.38/.32 6.31/.36 5.97/.39 3.66/.54 3.55/.55 3.58/.57"),
    pairs("7B", "PrefixKV", "4.41/.43 3.69/.51 3.48/.55 3.41/.57 3.41/.58 3.41/.59 3.25/.63 3.20/.74 3.20/.76"),
    pairs("13B", "Local", "60.0/.15 139/.12 56.3/.21 16.1/.27 13.2/.31 7.06/.37 3.72/.48 3.72/.52 3.25/.55"),
    pairs("13B", "H2O", "12.4/.39 10.4/.39 8.50/.40 4.56/.46 3.78/.49 3.58/.49 3.16/.55 3.28/.57 3.06/.59"),
    pairs("13B", "Elastic", "14.9/.30 5.75/.35 4.41/.40 3.55/.50 3.36/.52 3.28/.53 2.97/.58 2.89/.60 3.02/.59"),
    pairs("13B", "PrefixKV", "3.72/.48 3.17/.53 2.97/.59 2.92/.60 2.89/.60 2.84/.61 2.77/.69 2.73/.74 2.73/.79"),
  ],
  ours: qualityMethods,
};
