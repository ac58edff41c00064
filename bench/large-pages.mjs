// Which of the measured processes ask the system for large pages (src/cli/large-pages.ts): everyone's first touch of memory and
// every step are faster with them, so a table says who has them.

import { Option } from "commander";
import { beginningAgainHelps, largePages } from "../dist/cli/large-pages.js";

const meanings = {
  none: "no process asks for large pages",
  ours: "large pages: reft's processes ask for them, as the reft command does, and its peers do not",
  all: "large pages: every process asks for them",
};

/** As users of the `reft` command get it. */
let who = beginningAgainHelps() ? "ours" : "none";

export function largePagesOption() {
  return new Option("--large-pages <who>", "who asks the system for large pages (before the command's name)")
    .choices(Object.keys(meanings))
    .default(who, `${who} here, as the reft command does`);
}

export function setLargePages(choice) {
  who = choice;
}

/** What the environment of a measured process has more. */
export function pagesFor(program) {
  return who === "all" || who === program ? largePages : { GLIBC_TUNABLES: "" };
}

export function largePagesLine() {
  return meanings[who];
}
