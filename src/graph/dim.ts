/** Dimensions: a number, or a symbolic expression in canonical form, so that equal sizes are equal strings. */

/** A size: known (16), a symbol ("B"), a product ("64*B*T") or a sum ("P+T", in brackets inside a product). */
export type Dim = number | string;

/** A product is a coefficient times sorted atoms; an atom is a symbol or a bracketed sum. */
function factors(dim: Dim): { coefficient: number; atoms: string[] } {
  if (typeof dim === "number") return { coefficient: dim, atoms: [] };
  let coefficient = 1;
  const atoms: string[] = [];
  let depth = 0;
  let atom = "";
  if (isSum(dim)) return { coefficient, atoms: [`(${dim})`] };
  for (const c of `${dim}*`) {
    if (c === "*" && depth === 0) {
      if (/^\d+$/.test(atom)) coefficient *= Number(atom);
      else atoms.push(atom);
      atom = "";
      continue;
    }
    if (c === "(") depth++;
    if (c === ")") depth--;
    atom += c;
  }
  return { coefficient, atoms };
}

/** Whether a dim is a sum at its top level. */
export function isSum(dim: string): boolean {
  let depth = 0;
  for (const c of dim) {
    if (c === "(") depth++;
    else if (c === ")") depth--;
    else if (c === "+" && depth === 0) return true;
  }
  return false;
}

/** The product of dims in canonical form: `times("T", 64, "B")` is "64*B*T". */
export function times(...dims: readonly Dim[]): Dim {
  let coefficient = 1;
  const atoms: string[] = [];
  for (const dim of dims) {
    const f = factors(dim);
    coefficient *= f.coefficient;
    atoms.push(...f.atoms);
  }
  if (atoms.length === 0 || coefficient === 0) return coefficient;
  atoms.sort();
  if (coefficient === 1 && atoms.length === 1) return (atoms[0] as string).replace(/^\((.*)\)$/, "$1");
  return (coefficient === 1 ? atoms : [String(coefficient), ...atoms]).join("*");
}

/** How often each product of atoms occurs in a sum of dims; numbers count under "". */
function coefficients(dims: readonly Dim[]): Map<string, number> {
  const found = new Map<string, number>();
  for (const term of dims.flatMap((d) => (typeof d === "number" ? [d] : splitSum(d)))) {
    const { coefficient, atoms } = factors(term);
    const key = coefficient === 0 ? "" : atoms.join("*");
    found.set(key, (found.get(key) ?? 0) + coefficient);
  }
  return found;
}

/** The sum that `coefficients` took apart. */
function sum(terms: ReadonlyMap<string, number>): Dim {
  const known = terms.get("") ?? 0;
  const rest = [...terms].filter(([key, n]) => key !== "" && n !== 0).sort(([a], [b]) => (a < b ? -1 : 1));
  if (rest.length === 0) return known;
  return [...rest.map(([key, n]) => times(n, key)), ...(known === 0 ? [] : [known])].join("+");
}

/** The sum of dims in canonical form: `plus("T", "P")` is "P+T", `plus("T", "T")` is "2*T". */
export function plus(...dims: readonly Dim[]): Dim {
  return sum(coefficients(dims));
}

/** a − b where that is a dim: both numbers, or nothing of b that is not in a. */
export function minus(a: Dim, b: Dim): Dim | undefined {
  if (typeof a === "number" && typeof b === "number") return a - b;
  const terms = coefficients([a]);
  for (const [key, n] of coefficients([b])) terms.set(key, (terms.get(key) ?? 0) - n);
  return [...terms.values()].some((n) => n < 0) ? undefined : sum(terms);
}

/** A dim that is a multiple of `parts`, divided by it. */
export function divide(dim: Dim, parts: number): Dim {
  const { coefficient, atoms } = factors(dim);
  if (coefficient % parts !== 0) throw new Error(`internal: ${dim} does not come in ${parts} parts`);
  return times(coefficient / parts, ...atoms.map((a) => a.replace(/^\((.*)\)$/, "$1")));
}

/** The factors of a product: "64*B*(P+T)" is [64, "B", "P+T"]. */
export function splitProduct(dim: string): Dim[] {
  const { coefficient, atoms } = factors(dim);
  const rest = atoms.map((a) => a.replace(/^\((.*)\)$/, "$1"));
  return coefficient === 1 ? rest : [coefficient, ...rest];
}

/** The terms of a sum: "P+T+1" is ["P", "T", 1]. */
export function splitSum(dim: string): Dim[] {
  const terms: Dim[] = [];
  let depth = 0;
  let term = "";
  for (const c of `${dim}+`) {
    if (c === "+" && depth === 0) {
      terms.push(/^\d+$/.test(term) ? Number(term) : term);
      term = "";
      continue;
    }
    if (c === "(") depth++;
    if (c === ")") depth--;
    term += c;
  }
  return terms;
}
