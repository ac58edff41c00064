// What every measured process of ours shares: its job, its peak memory, its result.

import { readFileSync, writeFileSync } from "node:fs";

/** The job this process was started for. */
export function readJob() {
  return JSON.parse(readFileSync(process.argv[2], "utf8"));
}

/** Leaves the result for the process that asked. */
export function report(result) {
  writeFileSync(process.argv[3], JSON.stringify(result));
}

/** A figure of Linux's account of this process in bytes; undefined elsewhere. */
function account(name, file = "status") {
  try {
    const found = new RegExp(`^${name}:\\s*(\\d+) kB$`, "m").exec(readFileSync(`/proc/self/${file}`, "latin1"));
    return found === null ? undefined : 1024 * Number(found[1]);
  } catch {
    return undefined;
  }
}

/**
 * Milliseconds between two looks at memory of its own, and at files, which the system has to count page by page: often at first,
 * when sessions come and go and short runs are over.
 */
const intervals = { own: 50, firstFiles: 200, files: 2000 };
const firstSeconds = 6;

/**
 * Follows the most memory this process has resident, mapped weights included. Linux's "resident" counts a page of a file once
 * for each session that maps it, though it is in memory once; its "proportional" share counts it once (and what other processes
 * map too, libraries, by their share). The peak is the most of its own together with files as last looked at, and no more than
 * what the system counts: files that a closed session read are not there any more. Elsewhere it is the system's count.
 */
export function watchMemory() {
  let files = 0;
  let peak = 0;
  const lookAtOwn = () => {
    peak = Math.max(peak, (account("RssAnon") ?? 0) + files);
  };
  const lookAtFiles = () => {
    files = account("Pss_File", "smaps_rollup") ?? 0;
    lookAtOwn();
  };
  setInterval(lookAtOwn, intervals.own).unref();
  const began = performance.now();
  const keepLooking = () => {
    lookAtFiles();
    const first = performance.now() - began < 1000 * firstSeconds;
    setTimeout(keepLooking, first ? intervals.firstFiles : intervals.files).unref();
  };
  keepLooking();
  return {
    peak() {
      lookAtFiles();
      const resident = 1024 * process.resourceUsage().maxRSS;
      return files === 0 ? resident : Math.min(peak, resident);
    },
  };
}
