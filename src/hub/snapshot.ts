/** Brings one revision of a repository into the cache: asks for the listing, picks the needed files, downloads them. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { datasetInfo, type ListFileEntry, listFiles, modelInfo } from "@huggingface/hub";
import { UserError } from "../errors.js";
import { parseWeightIndex, weightsFile, weightsIndexFile } from "../files/checkpoint.js";
import { fileError } from "../files/write-node.js";
import { isCommit, nameBlob, repoFolder, writeRef } from "./cache.js";
import { downloadBlob, type RemoteFile } from "./download.js";
import { type HubContext, hubRequest, pageOf, withRetries } from "./request.js";

export type OnProgress = (progress: { readonly file: string; readonly done: number; readonly total: number }) => void;

const smallFiles = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.jinja",
  "chat_template.json",
];
/** The older form of a tokenizer; many repositories hold both. */
const vocabularyFiles = ["vocab.json", "merges.txt"];
/** Two connections fill a line that one leaves idle between files; more only compete. */
const parallel = 2;
/** Real models have some hundred files at most; a listing without end must not fill the memory. */
const maxListed = 10_000;

/** What a revision lists, and how to download of it. */
export interface Revision {
  readonly context: HubContext;
  /** The repository's folder in the cache. */
  readonly repo: string;
  readonly commit: string;
  /** A model's files at the top by name; all of a data set's by path. */
  readonly listed: ReadonlyMap<string, RemoteFile>;
  bring(files: readonly RemoteFile[]): Promise<void>;
  /** Where a file lies that was brought. */
  blobOf(file: RemoteFile): string;
}

/**
 * Brings the files that are wanted of a revision.
 *
 * @returns them in the order in which they are to get their names: what tells that a snapshot is whole comes last.
 */
export type Choose = (revision: Revision) => Promise<readonly RemoteFile[]>;

/**
 * Downloads what is missing of a revision; its files get their names only when all of them are there.
 *
 * @returns the commit that the revision is at.
 */
export async function fetchSnapshot(context: HubContext, choose: Choose, onProgress: OnProgress): Promise<string> {
  const { type, id, revision, settings } = context;
  const repo = repoFolder(settings.cacheDir, id, type);
  const commit = await askCommit(context);
  const listed = await askFiles(context, commit);
  const blobOf = (file: RemoteFile): string => join(repo, "blobs", file.etag);
  const download: Download = async (file, context) => {
    const url = `${pageOf(context)}/resolve/${commit}/${file.path.split("/").map(encodeURIComponent).join("/")}`;
    await downloadBlob(context, file, url, blobOf(file), (done) => {
      onProgress({ file: file.path, done, total: file.size });
    });
  };
  const bring = (files: readonly RemoteFile[]): Promise<void> => inParallel(files, context, download);
  const files = await choose({ context, repo, commit, listed, bring, blobOf });
  try {
    for (const file of files) {
      await nameBlob(blobOf(file), join(repo, "snapshots", commit, file.path), settings.symlinks);
    }
  } catch (error) {
    throw fileError(error, `write into the cache ${repo}`);
  }
  await writeRef(repo, revision, commit);
  return commit;
}

/** The files that run a model: configuration and tokenizer, then the weights. */
export const chooseModel: Choose = async ({ context, listed, bring, blobOf }) => {
  const small = pickSmall(context, listed);
  await bring(small);
  const index = listed.has(weightsFile) ? undefined : small.find(({ path }) => path === weightsIndexFile);
  const weights = await pickWeights(context, listed, index && blobOf(index));
  await bring(weights);
  return [...small, ...weights];
};

/** The hub client's functions with our own way of asking: they would show the token to any host they are sent to. */
function asking(context: HubContext): { hubUrl: string; fetch: typeof fetch } {
  const ask: typeof fetch = (input, init) => hubRequest(context, String(input), init?.headers);
  return { hubUrl: context.settings.endpoint, fetch: ask };
}

async function askCommit(context: HubContext): Promise<string> {
  const { id: name, revision } = context;
  const ask = { name, revision, additionalFields: ["sha"] as "sha"[], ...asking(context) };
  const { sha } = await withRetries(context, () => (context.type === "model" ? modelInfo(ask) : datasetInfo(ask)));
  if (typeof sha === "string" && isCommit(sha)) return sha;
  throw strangeHub(context, `a commit ${JSON.stringify(sha)}`);
}

/** The files at the top of a model's repository by name, or all of a data set's by path. */
async function askFiles(context: HubContext, commit: string): Promise<ReadonlyMap<string, RemoteFile>> {
  const { type, id } = context;
  const asked = { repo: { type, name: id }, recursive: type === "dataset", revision: commit };
  return withRetries(context, async () => {
    const files = new Map<string, RemoteFile>();
    for await (const entry of listFiles({ ...asked, ...asking(context) })) {
      if (entry.type === "file") files.set(entry.path, remoteFile(context, entry));
      if (files.size > maxListed) throw tooMany(context);
    }
    return files;
  });
}

function tooMany({ type, id }: HubContext): UserError {
  return new UserError(
    `${id} has more than ${maxListed} files, which are more than are listed.`,
    `Choose another ${type === "model" ? "model" : "data set"}, or download what you need of it and name a file.`,
  );
}

/** The etag becomes a file's name, so it must be a hash and nothing else. */
function remoteFile(context: HubContext, { path, size, oid, lfs }: ListFileEntry): RemoteFile {
  const etag = lfs?.oid ?? oid ?? "";
  const bytes = lfs?.size ?? size;
  if (!(lfs ? /^[0-9a-f]{64}$/ : /^[0-9a-f]{40}$/).test(etag) || !Number.isSafeInteger(bytes) || bytes < 0) {
    throw strangeHub(context, `${JSON.stringify(path)} with hash ${JSON.stringify(etag)} and size ${bytes}`);
  }
  return { path, size: bytes, etag, lfs: lfs !== undefined };
}

function strangeHub({ id, settings }: HubContext, what: string): UserError {
  return new UserError(
    `${settings.endpoint} lists ${what} for ${id}.`,
    "That is no Hugging Face hub: check HF_ENDPOINT.",
  );
}

function pickSmall(context: HubContext, listed: ReadonlyMap<string, RemoteFile>): RemoteFile[] {
  const wanted = [...smallFiles];
  if (!listed.has("tokenizer.json")) wanted.push(...vocabularyFiles);
  if (!listed.has(weightsFile)) wanted.push(weightsIndexFile);
  if (!listed.has("config.json")) {
    throw new UserError(
      `${context.id} has no config.json: it is not a transformers model.`,
      "Choose a repository with config.json and model.safetensors; GGUF and adapter repositories have none.",
    );
  }
  return wanted.flatMap((name) => listed.get(name) ?? []);
}

async function pickWeights(
  context: HubContext,
  listed: ReadonlyMap<string, RemoteFile>,
  indexBlob: string | undefined,
): Promise<RemoteFile[]> {
  const whole = listed.get(weightsFile);
  if (whole !== undefined) return [whole];
  if (indexBlob === undefined) throw noWeights(context, listed);
  const shards = parseWeightIndex(await readFile(indexBlob, "utf8"), `${weightsIndexFile} of ${context.id}`);
  return [...shards.keys()].sort().map((shard) => {
    const file = listed.get(shard);
    if (file !== undefined) return file;
    throw new UserError(
      `${context.id} lacks ${shard}, which its index names.`,
      "Tell its authors, or choose another revision.",
    );
  });
}

function noWeights({ id, revision }: HubContext, listed: ReadonlyMap<string, RemoteFile>): UserError {
  const pickle = [...listed.keys()].find((name) => /^pytorch_model.*\.bin/.test(name));
  const there = pickle === undefined ? "" : `, only ${pickle}, a format that can run code`;
  return new UserError(
    `${id} (revision "${revision}") has no ${weightsFile}${there}.`,
    `Convert it with Python, AutoModelForCausalLM.from_pretrained("${id}").save_pretrained("folder"), and give that folder.`,
  );
}

type Download = (file: RemoteFile, context: HubContext) => Promise<void>;

/** A few at a time, in order; the first failure stops the others, whose half-downloaded files are kept. */
async function inParallel(files: readonly RemoteFile[], context: HubContext, download: Download): Promise<void> {
  const queue = [...files];
  const failed = new AbortController();
  const signal = context.signal ? AbortSignal.any([context.signal, failed.signal]) : failed.signal;
  const worker = async (): Promise<void> => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      signal.throwIfAborted();
      try {
        await download(file, { ...context, signal });
      } catch (error) {
        failed.abort(error);
        throw error;
      }
    }
  };
  // All are waited for: none may go on writing after this has failed.
  await Promise.allSettled(Array.from({ length: parallel }, worker));
  signal.throwIfAborted();
}
