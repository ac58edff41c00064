// Every measurement in a fresh process: its peak memory and start-up are its own, and nothing is warm from the one before.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { UserError } from "../dist/errors.js";
import { pagesFor } from "./large-pages.mjs";

/** How much of a failed process's last words is shown. */
const LAST_LINES = 25;

/** Runs bench/ours/<name>.mjs on a job; returns what it reports and `wallSeconds`, from start to exit. */
export function measureOurs(name, job) {
  const file = fileURLToPath(new URL(`ours/${name}.mjs`, import.meta.url));
  return measure(process.execPath, [file], job, pagesFor("ours"));
}

/** Runs bench/peers/<name>.py on a job. `peer` holds the interpreter and folders to import from. */
export function measurePeer(name, job, peer) {
  const file = fileURLToPath(new URL(`peers/${name}.py`, import.meta.url));
  const path = [...peer.paths, process.env.PYTHONPATH].filter(Boolean).join(delimiter);
  const env = { PYTHONPATH: path, TOKENIZERS_PARALLELISM: "false", HF_HUB_OFFLINE: "1", ...pagesFor("peer") };
  return measure(peer.python, [file], job, env);
}

/** The job goes in as a file and the result comes back as one: libraries print what they like on stdout. */
async function measure(command, args, job, env) {
  const folder = mkdtempSync(join(tmpdir(), "reft-job-"));
  try {
    const [jobFile, resultFile] = [join(folder, "job.json"), join(folder, "result.json")];
    writeFileSync(jobFile, JSON.stringify(job));
    const { code, seconds, words } = await spawned(command, [...args, jobFile, resultFile], env);
    if (code !== 0) throw failed(command, args, code, words);
    return { ...JSON.parse(readFileSync(resultFile, "utf8")), wallSeconds: seconds };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function spawned(command, args, env) {
  return new Promise((resolve, reject) => {
    const began = performance.now();
    const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
    let words = "";
    const hear = (data) => {
      words = (words + data).slice(-20_000);
    };
    child.stdout.on("data", hear);
    child.stderr.on("data", hear);
    child.on("error", () => reject(new UserError(`"${command}" cannot be started.`, "Pass --python PATH.")));
    child.on("close", (code, signal) => {
      const seconds = (performance.now() - began) / 1000;
      resolve({ code: signal ?? code, seconds, words });
    });
  });
}

function failed(command, [file], code, words) {
  const told = /^UserError: (.+)$/m.exec(words);
  if (told !== null) return new UserError(told[1], "");
  const tail = words.trim().split("\n").slice(-LAST_LINES).join("\n");
  const hint = code === "SIGKILL" ? "Out of memory, most likely: try a smaller shape, batch or --dtype bf16." : tail;
  return new UserError(`${command} ${file} ended with ${code}.`, hint);
}
