// What a measurement was taken on: machine, versions, date. Every table states it.

import { readFileSync } from "node:fs";
import { arch, cpus, loadavg, platform, release, totalmem } from "node:os";
import { largePagesLine } from "./large-pages.mjs";

function versionOf(name) {
  return JSON.parse(readFileSync(new URL(`../node_modules/${name}/package.json`, import.meta.url), "utf8")).version;
}

/** Facts of this machine now. */
export function machineFacts() {
  const processors = cpus();
  return {
    cpu: processors[0]?.model.trim() ?? "unknown processor",
    cores: processors.length,
    memoryBytes: totalmem(),
    system: `${platform()} ${release()} ${arch()}`,
    loadAtStart: loadavg()[0],
    versions: { node: process.versions.node, onnxruntime: versionOf("onnxruntime-node") },
    largePages: largePagesLine(),
    date: new Date().toISOString().slice(0, 10),
  };
}

/** The facts in three lines; `peers` are versions that a peer's process told of itself. */
export function machineLines(facts, peers = {}) {
  const versions = Object.entries({ ...facts.versions, ...peers }).map(([name, version]) => `${name} ${version}`);
  const memory = `${Math.round(facts.memoryBytes / 2 ** 30)} GiB`;
  return [
    `${facts.cpu}, ${facts.cores} cores, ${memory}, ${facts.system}`,
    `${versions.join(", ")}; ${facts.date}`,
    facts.largePages,
  ];
}

/** A warning where something else is using the processor, which makes every time below an upper bound. */
export function busyNote({ loadAtStart, cores }) {
  if (platform() === "win32" || loadAtStart < 0.25 * cores) return [];
  return [
    `The machine was busy: load ${loadAtStart.toFixed(1)} on ${cores} cores at the start. Times are not to be quoted.`,
  ];
}
