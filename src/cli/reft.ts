/** The `reft` command: its words, read and carried out. */

import { readFileSync } from "node:fs";
import { fileError } from "../files/write-node.js";
import { chatCommand } from "./chat.js";
import { classifyCommand } from "./classify.js";
import { convertCommand } from "./convert.js";
import { demoCommand } from "./demo.js";
import { evalCommand } from "./eval.js";
import { reportFailure } from "./failure.js";
import { generateCommand } from "./generate.js";
import { infoCommand } from "./info.js";
import { runProgram } from "./program.js";
import { pullCommand } from "./pull.js";
import { pushCommand } from "./push.js";
import { openTerminal } from "./terminal.js";
import { trainCommand } from "./train.js";

const argv = process.argv.slice(2);
const debug = argv.includes("--debug") || Boolean(process.env.REFT_DEBUG);

// A reader that has seen enough (`reft … | head`) is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  process.exit(reportFailure(fileError(error, "write the output"), openTerminal(), debug));
});

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  version: string;
};
// Not process.exit: what was printed to a pipe must still get out.
process.exitCode = await runProgram(
  [
    demoCommand,
    trainCommand,
    generateCommand,
    chatCommand,
    classifyCommand,
    evalCommand,
    infoCommand,
    convertCommand,
    pushCommand,
    pullCommand,
  ],
  {
    version,
    terminal: openTerminal(),
    argv,
    debug,
  },
);
