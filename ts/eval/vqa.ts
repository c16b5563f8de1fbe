// Accuracy of short answers as the evaluation script of VQA has it (Antol et al. 2015, arXiv 1505.00468).

const articles = new Set(["a", "an", "the"]);
const numbers: ReadonlyMap<string, string> = new Map([
  ["none", "0"],
  ...["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"].map(
    (word, number): [string, string] => [word, String(number)],
  ),
]);
const punctuation = [...';/[]"{}()=+\\_-><@`,?!'];

/** Words that people write without one of their apostrophes. Those that are other words without it (we're, I'll) are not here. */
const contracted =
  "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's how'd " +
  "how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've o'clock oughtn't " +
  "'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd somebody'd've somebody'll somebody's someone'd " +
  "someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's they'd " +
  "they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's " +
  "where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll " +
  "you'd you'd've you'll you're you've";

const contractions: ReadonlyMap<string, string> = new Map(
  contracted
    .split(" ")
    .flatMap((word) =>
      [...word.matchAll(/'/g)].map(({ index }): [string, string] => [
        word.slice(0, index) + word.slice(index + 1),
        word,
      ]),
    ),
);

/**
 * An answer as VQA compares it: punctuation goes, or becomes a space where it stands between letters; then lower case, number words up to
 * ten and `none` as digits, no articles, and the apostrophes of contractions that lack one.
 */
export function normalAnswer(text: string): string {
  const line = text.replace(/[\n\t]/g, " ").trim();
  // A number with a comma makes punctuation go everywhere.
  const thousands = /\d,\d/.test(line);
  let plain = line;
  for (const mark of punctuation) {
    const atEnd = line.includes(`${mark} `) || line.includes(` ${mark}`);
    plain = plain.replaceAll(mark, atEnd || thousands ? "" : " ");
  }
  return plain
    .replace(/\.(?!\d)/g, "")
    .toLowerCase()
    .split(/\s+/)
    .map((word) => numbers.get(word) ?? word)
    .filter((word) => word !== "" && !articles.has(word))
    .map((word) => contractions.get(word) ?? word)
    .join(" ");
}

/**
 * Accuracy of a short answer, 0 to 1. With several people's answers it is the VQA accuracy (Antol et al. 2015, arXiv 1505.00468): each
 * person is left out once, min(1, equal ones of the others / 3) is taken, and the mean of these is the accuracy; with ten people that is
 * 0, 0.3, 0.6, 0.9 and 1 for none, one, two, three and more equal ones. With a single accepted answer it is 1 where both are equal. Both
 * sides are normalised as VQA does.
 *
 * @example
 * ```ts
 * import { vqaAccuracy } from "prefixkv/eval";
 *
 * const people = ["2", "2", "two", "3", "3", "3", "3", "3", "3", "3"];
 * console.log(vqaAccuracy("The triangle.", ["triangle"]), vqaAccuracy("two", people)); // 1 0.9
 * ```
 */
export function vqaAccuracy(text: string, answers: readonly string[]): number {
  const said = normalAnswer(text);
  const people = answers.length;
  const equal = answers.filter((answer) => normalAnswer(answer) === said).length;
  if (people <= 1) return equal;
  const ofOthers = (others: number): number => Math.min(1, others / 3);
  return (equal * ofOthers(equal - 1) + (people - equal) * ofOthers(equal)) / people;
}

/** With fewer people than this, who are each left out once, no answer reaches 1. */
const fewestPeople = 4;

/** Accuracy of a sample's short answer: the VQA accuracy, or, with too few accepted answers for it, whether one is equal. */
export function accuracyOf(text: string, answers: readonly string[]): number {
  if (answers.length >= fewestPeople) return vqaAccuracy(text, answers);
  const said = normalAnswer(text);
  return answers.some((answer) => normalAnswer(answer) === said) ? 1 : 0;
}
