/** Which texts are read together in one pass. */

/**
 * The indices of texts in groups of like length, so that little is padding: shortest first, each group of at most `most` tokens,
 * padding included. A text longer than `most` is alone.
 */
export function groupsByLength(lengths: readonly number[], most: number): number[][] {
  const length = (n: number): number => lengths[n] ?? 0;
  const order = lengths.map((_, n) => n).sort((a, b) => length(a) - length(b));
  const groups: number[][] = [];
  for (const n of order) {
    const group = groups.at(-1);
    if (group !== undefined && (group.length + 1) * length(n) <= most) group.push(n);
    else groups.push([n]);
  }
  return groups;
}
