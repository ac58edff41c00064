/** A hub on 127.0.0.1 for tests: API, listing, redirects to a second origin for large files, ranges, login, faults, and uploads. */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { isUpload, takeUpload, type UploadFault } from "./hub-uploads.js";

export interface HubRepo {
  /** A model if not said otherwise. */
  readonly type?: "dataset";
  readonly id: string;
  readonly files: Readonly<Record<string, Uint8Array | string>>;
  /** 40 hex digits; what "main" and every name in `refs` stand for. */
  readonly commit?: string;
  /** Other branches and tags at the same commit. */
  readonly refs?: readonly string[];
  /** Files stored by their SHA-256 and served by the second origin; every *.safetensors file is. */
  readonly lfs?: readonly string[];
  readonly gated?: boolean;
  /** An old name that redirects here. */
  readonly alias?: string;
  /** Shown only to those with a token. */
  readonly private?: boolean;
  /** Revisions with files of their own, by branch or commit. */
  readonly branches?: Readonly<Record<string, Pick<HubRepo, "files" | "commit">>>;
}

/** A misbehaviour, used up after `times` answers (default: never); `path` is a file's name, or "api". */
export interface HubFault {
  readonly path: string;
  readonly kind:
    | "drop"
    | "status"
    | "wrongBytes"
    | "wrongSize"
    | "tooLong"
    | "noRange"
    | "stall"
    | "otherRange"
    | "html";
  times?: number;
  /** drop, stall: bytes sent before; status: which. */
  readonly value?: number;
}

export interface HubRequest {
  readonly method: string;
  readonly path: string;
  readonly origin: "hub" | "cdn";
  readonly range: string | undefined;
  readonly authorization: string | undefined;
  readonly encoding: string | undefined;
}

export interface HubCommit {
  readonly id: string;
  readonly branch: string;
  readonly title: string;
  /** Names of the files in it. */
  readonly files: readonly string[];
}

export interface HubServer {
  readonly endpoint: string;
  /** Every request so far, in order. */
  readonly requests: HubRequest[];
  readonly repos: HubRepo[];
  readonly faults: HubFault[];
  readonly uploadFaults: UploadFault[];
  /** Every commit that was pushed, in order. */
  readonly commits: HubCommit[];
  /** What is called when a file's answer is about to start. */
  onFile: ((path: string) => void) | undefined;
  close(): Promise<void>;
}

export const defaultCommit = "0123456789abcdef0123456789abcdef01234567";

function bytesOf(content: Uint8Array | string): Buffer {
  return Buffer.from(content as Uint8Array);
}

export function sha256(content: Uint8Array | string): string {
  return createHash("sha256").update(content).digest("hex");
}

/** The name Git gives to a file's content. */
export function gitSha1(content: Uint8Array | string): string {
  const bytes = bytesOf(content);
  return createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
}

function isLfs(repo: HubRepo, path: string): boolean {
  return path.endsWith(".safetensors") || (repo.lfs?.includes(path) ?? false);
}

/** The name of a file's content in the cache. */
export function etagOf(repo: HubRepo, path: string): string {
  return isLfs(repo, path) ? sha256(repo.files[path]!) : gitSha1(repo.files[path]!);
}

/**
 * Starts a hub with these repositories; with a token, it wants that token for gated ones and for uploads, and no other
 * but `readToken`, which may not upload. `owner` is the only one under whose name repositories may be made.
 */
export async function startHub(
  repos: HubRepo[],
  options: { token?: string; readToken?: string; owner?: string } = {},
): Promise<HubServer> {
  const hub = createServer((request, response) => answer("hub", request, response));
  const cdn = createServer((request, response) => answer("cdn", request, response));
  /** Large files that were sent, by their SHA-256. */
  const stored = new Map<string, Buffer>();
  const endpoint = await listen(hub);
  const cdnEndpoint = await listen(cdn);
  const state: HubServer = {
    endpoint,
    requests: [],
    repos,
    faults: [],
    uploadFaults: [],
    commits: [],
    onFile: undefined,
    close: async () => {
      for (const server of [hub, cdn]) {
        server.closeAllConnections();
        await new Promise((done) => server.close(done));
      }
    },
  };

  function answer(origin: "hub" | "cdn", request: IncomingMessage, response: ServerResponse): unknown {
    const { authorization, range } = request.headers;
    const url = new URL(request.url ?? "/", endpoint);
    const encoding = request.headers["accept-encoding"]?.toString();
    state.requests.push({ method: request.method ?? "", path: url.pathname, origin, range, authorization, encoding });
    const tokens = [options.token, options.readToken].map((token) => `Bearer ${token}`);
    if (authorization !== undefined && options.token !== undefined && !tokens.includes(authorization)) {
      return fail(response, 401, "InvalidToken");
    }
    if (isUpload(request))
      return takeUpload({ ...options, hub: state, cdn: cdnEndpoint, stored }, url, request, response);
    if (origin === "cdn") return sendCdn(url, request, response);
    const found = route(url.pathname);
    if (found === undefined) return fail(response, 401, "RepoNotFound");
    const { repo, rest, api } = found;
    if (repo.private && authorization === undefined) return fail(response, 401, "RepoNotFound");
    if (found.alias) {
      const place = api ? `/api/${repo.type ?? "model"}s` : repo.type === "dataset" ? "/datasets" : "";
      return response.writeHead(307, { location: `${place}/${repo.id}${rest}${url.search}` }).end();
    }
    if (api) return sendApi(repo, rest, url, response);
    if (repo.gated && authorization === undefined) return fail(response, 401, "GatedRepo");
    return sendResolve(repo, rest, request, response);
  }

  function route(path: string): { repo: HubRepo; rest: string; api: boolean; alias: boolean } | undefined {
    const [start = "", , kind] = /^\/(api\/(model|dataset)s\/|datasets\/)?/.exec(path) ?? [];
    const api = kind !== undefined;
    const type = kind === "dataset" || start === "/datasets/" ? "dataset" : undefined;
    const tail = path.slice(start.length);
    for (const repo of state.repos) {
      if (repo.type !== type) continue;
      for (const name of [repo.id, repo.alias]) {
        if (name !== undefined && tail.startsWith(`${name}/`)) {
          return { repo, rest: tail.slice(name.length), api, alias: name !== repo.id };
        }
      }
    }
    return undefined;
  }

  /** The repository as it is at a revision. */
  function at(repo: HubRepo, revision: string): HubRepo | undefined {
    const own = repo.branches?.[revision];
    if (own !== undefined) return { ...repo, ...own };
    return ["main", commitOf(repo), ...(repo.refs ?? [])].includes(revision) ? repo : undefined;
  }

  function takeFault(path: string, kinds: readonly HubFault["kind"][]): HubFault | undefined {
    const fault = state.faults.find((one) => one.path === path && kinds.includes(one.kind) && one.times !== 0);
    if (fault?.times !== undefined) fault.times--;
    return fault;
  }

  function sendApi(found: HubRepo, rest: string, url: URL, response: ServerResponse): unknown {
    const fault = takeFault("api", ["status", "html"]);
    if (fault?.kind === "html") return response.writeHead(200, { "content-type": "text/html" }).end("<html>log in");
    if (fault !== undefined) return fail(response, fault.value ?? 500);
    const [, kind, revision = ""] = /^\/(revision|tree)\/([^/]+)$/.exec(rest) ?? [];
    const repo = at(found, decodeURIComponent(revision));
    if (repo === undefined) return fail(response, 404, "RevisionNotFound");
    if (kind === "revision") {
      return sendJson(response, { _id: "1", id: repo.id, sha: commitOf(repo), private: repo.private ?? false });
    }
    // Two pages, as the hub does for long listings.
    const all = listing(repo, url.searchParams.get("recursive") === "true");
    const second = url.searchParams.get("cursor") === "2";
    const half = Math.ceil(all.length / 2);
    const next = new URL(url);
    next.searchParams.set("cursor", "2");
    return sendJson(
      response,
      second ? all.slice(half) : all.slice(0, half),
      second ? {} : { link: `<${next}>; rel="next"` },
    );
  }

  function sendResolve(found: HubRepo, rest: string, request: IncomingMessage, response: ServerResponse): unknown {
    const [, revision, encoded] = /^\/resolve\/([^/]+)\/(.+)$/.exec(rest) ?? [];
    const path = decodeURIComponent(encoded ?? "");
    const repo = at(found, decodeURIComponent(revision ?? ""));
    if (repo === undefined) return fail(response, 404, "RevisionNotFound");
    if (repo.files[path] === undefined) return fail(response, 404, "EntryNotFound");
    const headers = { "x-repo-commit": commitOf(repo), etag: `"${etagOf(repo, path)}"` };
    if (!isLfs(repo, path)) return sendFile(path, bytesOf(repo.files[path]), headers, request, response);
    response.writeHead(302, {
      ...headers,
      "x-linked-etag": `"${etagOf(repo, path)}"`,
      "x-linked-size": bytesOf(repo.files[path]).length,
      location: `${cdnEndpoint}/cdn/${repo.id}/${encodeURIComponent(path)}?signed=1&oid=${etagOf(repo, path)}`,
    });
    return response.end();
  }

  function sendCdn(url: URL, request: IncomingMessage, response: ServerResponse): unknown {
    const repo = state.repos.find(({ id }) => url.pathname.startsWith(`/cdn/${id}/`));
    const path = decodeURIComponent(url.pathname.split("/").at(-1) ?? "");
    const revisions = repo === undefined ? [] : [repo, ...Object.values(repo.branches ?? {})];
    const contents = revisions.flatMap(({ files }) => files[path] ?? []);
    const content = contents.find((one) => sha256(one) === url.searchParams.get("oid"));
    if (content === undefined) return fail(response, 404);
    return sendFile(path, bytesOf(content), { etag: '"cdn"' }, request, response);
  }

  function sendFile(
    path: string,
    content: Buffer,
    headers: Record<string, string>,
    request: IncomingMessage,
    response: ServerResponse,
  ): unknown {
    state.onFile?.(path);
    const status = takeFault(path, ["status"]);
    if (status !== undefined) return fail(response, status.value ?? 500);
    const asked = /^bytes=(\d+)-$/.exec(request.headers.range ?? "");
    let from = asked && !takeFault(path, ["noRange"]) ? Number(asked[1]) : undefined;
    if (from !== undefined && from >= content.length) return fail(response, 416);
    if (from !== undefined && takeFault(path, ["otherRange"])) from += 1;
    if (takeFault(path, ["wrongSize"])) content = content.subarray(0, -1);
    const long = takeFault(path, ["tooLong"]);
    let body = long ? Buffer.concat([content, Buffer.alloc(1000)]) : content.subarray(from ?? 0);
    if (takeFault(path, ["wrongBytes"])) body = Buffer.from(body).fill(0x7e, 0, 1);
    if (from !== undefined) headers["content-range"] = `bytes ${from}-${content.length - 1}/${content.length}`;
    if (!long) headers["content-length"] = String(body.length);
    response.writeHead(from === undefined ? 200 : 206, headers);
    if (request.method === "HEAD") return response.end();
    const cut = takeFault(path, ["drop", "stall"]);
    if (cut === undefined) return response.end(body);
    return response.write(body.subarray(0, cut.value ?? 0), () => {
      // Later, so that the bytes travel before the connection breaks.
      if (cut.kind === "drop") setTimeout(() => response.destroy(), 20);
    });
  }

  return state;
}

export function commitOf(repo: HubRepo): string {
  return repo.commit ?? defaultCommit;
}

/** The top of the repository, where what lies deeper shows as its folder; or all of it. */
function listing(repo: HubRepo, recursive: boolean): unknown[] {
  const folders = new Set<string>();
  const files: unknown[] = [];
  for (const [path, content] of Object.entries(repo.files)) {
    const [top = "", ...deeper] = path.split("/");
    if (deeper.length > 0) folders.add(top);
    if (deeper.length === 0 || recursive) {
      const size = bytesOf(content).length;
      const lfs = { oid: sha256(content), size, pointerSize: 134 };
      const large = isLfs(repo, path) ? { lfs, xetHash: sha256(path) } : {};
      files.push({ type: "file", path, size, oid: gitSha1(content), ...large });
    }
  }
  return [...Array.from(folders, (path) => ({ type: "directory", path, size: 0, oid: gitSha1(path) })), ...files];
}

export function sendJson(response: ServerResponse, value: unknown, headers: Record<string, string> = {}): void {
  response.writeHead(200, { "content-type": "application/json", ...headers }).end(JSON.stringify(value));
}

export function fail(response: ServerResponse, status: number, code?: string, error?: string): void {
  const headers = { ...(code && { "x-error-code": code }), ...(error && { "content-type": "application/json" }) };
  response.writeHead(status, headers).end(error && JSON.stringify({ error }));
}

async function listen(server: Server): Promise<string> {
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
