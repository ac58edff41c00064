/** `reft convert`: adapters from and to Python's libraries. */

import { resolve } from "node:path";
import { z } from "zod";
import { UserError } from "../errors.js";
import { openFolder } from "../files/folder-node.js";
import { writeFolderAtomic } from "../files/write-node.js";
import { AutoModelForCausalLM } from "../load.js";
import { type ActivationName, activations } from "../ops/index.js";
import { adapterFiles, maxAdapterBytes } from "../reft/adapter.js";
import { type AdapterFormat, adapterFormat, adapterOnModel, readAnyAdapter } from "../reft/convert.js";
import { writeEasySteer } from "../reft/easysteer-files.js";
import { type EditDType, editDTypes } from "../reft/intervention.js";
import type { PlainAdapter, Said, Written } from "../reft/plain-adapter.js";
import { writePyreft } from "../reft/pyreft-files.js";
import type { CliCommand } from "./command.js";
import { flagsOf, given, parseOptions, type RawOptions } from "./flags.js";
import { modelFields } from "./open-model.js";
import { checkOutputFolder } from "./output-folder.js";
import { showDownloads } from "./progress.js";
import { count, fileSize } from "./render.js";
import type { Terminal } from "./terminal.js";

const targets = ["reft", "pyreft", "easysteer"] as const;

const whatSchema = z.strictObject({
  to: z.enum(targets).describe("whose files to write"),
  overwrite: z.boolean().default(false).describe("write into a folder that is not empty"),
  json: z.boolean().default(false).describe("print one JSON object"),
});
const saidSchema = z.strictObject({
  base: z.string().optional().meta({
    description: "the model that it was trained on, for --to reft; pyreft does not save it",
    placeholder: "model",
  }),
  revision: modelFields.revision,
  positions: z.string().optional().describe("the prompt tokens that are edited: l1, f7+l7, all, -2"),
  shareWeights: z.boolean().optional().describe("one edit serves both ends of f7+l7"),
  actFn: z
    .enum(Object.keys(activations) as [ActivationName, ...ActivationName[]])
    .optional()
    .describe("the activation that it was trained with; linear if not given"),
  dtype: z
    .enum(editDTypes as [EditDType, ...EditDType[]])
    .optional()
    .describe("what linear parts are computed in; as the files hold them if not given"),
  dropout: z.number().min(0).max(0.99).optional().describe("for further training; 0 if not given"),
  intervention: z.string().optional().describe("the class of the edits, where the files do not say it: nodireft"),
});
const schema = z.strictObject({
  in: z.string().min(1),
  out: z.string().min(1),
  ...whatSchema.shape,
  ...saidSchema.shape,
});
type ConvertOptions = z.infer<typeof schema>;

export const convertCommand: CliCommand = {
  name: "convert",
  summary: "turn an adapter of pyreft, EasySteer or AdapterHub into one of ours, or ours into theirs",
  description: `Reads the folder of an adapter, finds out whose it is, and writes it anew for another library. Nothing in a foreign file is executed.

pyreft and EasySteer save neither the base model nor the positions, activation or dropout of an edit: say them with the flags below. What you do not say is taken for granted, and named on stderr; check it, since a wrong activation or position gives wrong answers without an error.

In several of pyreft's data sets "l1" means the last but one prompt token: write --positions=-2 for adapters trained with these.`,
  words: [
    ["in", "the folder to read"],
    ["out", "the folder to write"],
  ],
  flags: [...flagsOf(whatSchema, "Options:"), ...flagsOf(saidSchema, "What foreign files do not say:")],
  examples: [
    [
      "reft convert from-python my-reft --to reft --base meta-llama/Llama-2-7b-hf --positions f7+l7 --share-weights",
      "run here what pyreft trained",
    ],
    ["reft convert my-reft for-python --to pyreft", "load in Python: pyreft.ReftModel.load"],
    ["reft convert my-reft for-vllm --to easysteer", "serve in vLLM"],
  ],
  run: async (raw: RawOptions, { terminal }) => {
    const options = parseOptions(schema, raw);
    if (resolve(options.in) === resolve(options.out))
      throw new UserError(`${options.in} is to be read and written.`, "Choose another folder to write.");
    await checkOutputFolder(options.out, { mayHoldFiles: options.overwrite });
    const folder = await openFolder(options.in, maxAdapterBytes);
    const { positions, shareWeights, actFn, dtype, dropout, intervention } = options;
    const said: Said = given({ positions, shareWeights, actFn, dtype, dropout, intervention });
    const from = await adapterFormat(folder);
    refuseNothingToDo(from, options);
    const adapter = await readAnyAdapter(folder, said);
    const { files, lost, assumed } = await written(adapter, said, options, terminal);
    await writeFolderAtomic(options.out, files, { overwrite: options.overwrite });
    report({ from, files, lost, assumed, edits: adapter.edits.length }, options, terminal);
    return 0;
  },
};

function refuseNothingToDo(from: AdapterFormat | undefined, { in: folder, to }: ConvertOptions): void {
  if (from === "reft" && to === "reft")
    throw new UserError(`${folder} is an adapter of ours already.`, "Use it as it is: reft generate --adapter.");
}

type Converted = Written & { readonly assumed: readonly string[] };

async function written(
  adapter: PlainAdapter,
  said: Said,
  options: ConvertOptions,
  terminal: Terminal,
): Promise<Converted> {
  if (options.to === "pyreft") return { ...writePyreft(adapter), assumed: adapter.assumed };
  if (options.to === "easysteer") return { ...writeEasySteer(adapter), assumed: adapter.assumed };
  const base = options.base ?? adapter.base;
  if (base === undefined)
    throw new UserError(
      `${options.in} does not say which model it was trained on.`,
      "Name it with --base: a Hugging Face id or a folder.",
    );
  const display = showDownloads(terminal, base);
  const model = await AutoModelForCausalLM.fromPretrained(base, {
    onProgress: display.onProgress,
    ...given({ revision: options.revision }),
  }).finally(display.stop);
  try {
    const { reft, assumed } = adapterOnModel(adapter, model, said);
    return { files: adapterFiles(reft), lost: [], assumed };
  } finally {
    await model.dispose();
  }
}

interface Outcome extends Converted {
  readonly from: AdapterFormat | undefined;
  readonly edits: number;
}

function report({ from, files, lost, assumed, edits }: Outcome, options: ConvertOptions, terminal: Terminal): void {
  const sizes = Object.values(files).map((file) => (typeof file === "string" ? Buffer.byteLength(file) : file.length));
  const bytes = sizes.reduce((a, b) => a + b, 0);
  if (options.json) {
    const { in: source, out, to } = options;
    terminal.result(
      JSON.stringify({ in: source, out, from, to, edits, files: Object.keys(files), bytes, assumed, lost }),
    );
    return;
  }
  for (const thing of assumed) terminal.note(`assumed: ${thing}`);
  for (const thing of lost) terminal.note(`not in the files: ${thing}`);
  terminal.result(
    `${options.out}: ${count(edits, "edit")} of ${from === "adapterhub" ? "AdapterHub" : from}'s, written for ${options.to} (${count(sizes.length, "file")}, ${fileSize(bytes)})`,
  );
}
