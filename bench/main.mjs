// `npm run bench -- <command>`: measurements of this library, side by side with its peers where they are at hand.

import { Command } from "commander";
import { UserError } from "../dist/errors.js";
import { removeAllCheckpoints } from "./checkpoint.mjs";
import { generateCommand } from "./generate.mjs";
import { growthCommand } from "./growth.mjs";
import { largePagesOption, setLargePages } from "./large-pages.mjs";
import { overheadCommand } from "./overhead.mjs";
import { quantisedCommand } from "./quantised.mjs";
import { targetsCommand } from "./targets.mjs";
import { trainCommand } from "./train.mjs";

/** Wrong options are the user's mistakes: exit code 2, as of the `reft` command. */
function exitWith({ exitCode }) {
  process.exit(exitCode === 0 ? 0 : 2);
}

const program = new Command("npm run bench --")
  .description(
    "Measures training and generation on random weights in real models' shapes. Weights are written once into the temporary folder (540 MB for the default shape); every measurement is a fresh process; results are a table, or JSON with --json. Run on a machine that does nothing else.",
  )
  .addHelpText(
    "after",
    `
Start with:
  $ npm run bench -- train
  $ npm run bench -- train --shape tiny --steps 3      does it work here? (the numbers mean nothing)
  $ npm run bench -- train --peer pyreft --python python3 --pyreft ../pyreft --pyvene ../pyvene
  $ npm run bench -- train --help                      what is measured, and how`,
  )
  .showHelpAfterError("(add --help for what can be asked)")
  .addOption(largePagesOption())
  .hook("preAction", (command) => setLargePages(command.opts().largePages))
  .exitOverride(exitWith);

for (const make of [trainCommand, targetsCommand, generateCommand, overheadCommand, growthCommand, quantisedCommand]) {
  program.addCommand(make().showHelpAfterError("(add --help for what can be asked)").exitOverride(exitWith));
}
program
  .command("clean")
  .description("Removes the checkpoints that measurements wrote into the temporary folder.")
  .action(() => {
    for (const name of removeAllCheckpoints()) console.log(`removed ${name}`);
  });

try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof UserError)) throw error;
  console.error(`error: ${error.message.trim()}`);
  process.exitCode = 2;
}
