/** File patterns as data set cards have them (*, **, ?, [a-z]), matched in steps that no pattern can make explode. */

type Token = "*" | ((letter: string) => boolean);

/**
 * Whether a path matches a pattern: * and ? stay inside a folder, ** stands for any number of folders.
 *
 * Takes at most (length of pattern) × (length of path) steps: patterns come from strangers, and as a regular expression one
 * with many stars could run for ever.
 */
export function matchesGlob(path: string, pattern: string): boolean {
  const segments = path.split("/");
  const wanted = pattern.replace(/^(\.?\/)+/, "").split("/");
  const fits = (want: string, segment: string): boolean => matches(tokensOf(want), [...segment], isStar, accepts);
  // "data/**" means what lies under data, at any depth.
  if (wanted.at(-1) === "**") wanted.push("*");
  return matches(wanted, segments, (want) => want === "**", fits);
}

const isStar = (token: Token): boolean => token === "*";
const accepts = (token: Token, letter: string): boolean => token !== "*" && token(letter);

/** The usual match with one star to come back to, of letters in a name and of names in a path. */
function matches<P, T>(
  pattern: readonly P[],
  items: readonly T[],
  star: (part: P) => boolean,
  fits: (part: P, item: T) => boolean,
): boolean {
  let [p, i, back, taken] = [0, 0, -1, 0];
  while (i < items.length) {
    const part = pattern[p];
    if (p < pattern.length && star(part as P)) {
      back = p++;
      taken = i;
    } else if (p < pattern.length && fits(part as P, items[i] as T)) {
      p++;
      i++;
    } else if (back >= 0) {
      p = back + 1;
      i = ++taken;
    } else return false;
  }
  return pattern.slice(p).every(star);
}

function tokensOf(segment: string): Token[] {
  const tokens: Token[] = [];
  for (const [text, inside] of segment.matchAll(/\[([!^]?\]?[^\]]*)\]|[\s\S]/gu)) {
    if (inside !== undefined) tokens.push(letterIn(inside));
    else if (text === "*") tokens.push("*");
    else if (text === "?") tokens.push(() => true);
    else tokens.push((letter) => letter === text);
  }
  return tokens;
}

/** The letters of [a-z_] or, negated, of [!a-z_]. */
function letterIn(inside: string): (letter: string) => boolean {
  const negated = /^[!^]/.test(inside);
  const letters = [...(negated ? inside.slice(1) : inside)];
  const ranges: (readonly [string, string])[] = [];
  for (let i = 0; i < letters.length; i++) {
    const [from, dash, to] = letters.slice(i, i + 3) as [string, string?, string?];
    const isRange = dash === "-" && to !== undefined;
    ranges.push([from, isRange ? to : from]);
    if (isRange) i += 2;
  }
  return (letter) => ranges.some(([from, to]) => from <= letter && letter <= to) !== negated;
}
