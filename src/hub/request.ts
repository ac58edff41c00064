/** Requests to the hub: the token stays on the hub's origin, passing faults are retried, refusals to read become advice. */
import { setTimeout as sleep } from "node:timers/promises";
import { UserError } from "../errors.js";
import type { RepoType } from "./cache.js";
import type { HubSettings } from "./settings.js";

/** What every request of one resolution shares. */
export interface HubContext {
  readonly settings: HubSettings;
  readonly type: RepoType;
  readonly id: string;
  readonly revision: string;
  readonly fetch: typeof fetch;
  readonly signal: AbortSignal | undefined;
  readonly patience: Patience;
  /** What becomes of a transfer that breaks off, for the advice; "what has arrived is kept" if not given. */
  readonly brokenOff?: string;
}

/** How a caller may talk to the hub. */
export interface ContextOptions {
  /** "model" if not given. */
  readonly type?: RepoType | undefined;
  readonly fetch?: typeof fetch | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly patience?: Partial<Patience> | undefined;
}

/** The context of requests about a repository, defaults filled in. */
export function hubContext(settings: HubSettings, id: string, revision: string, options: ContextOptions): HubContext {
  return {
    settings,
    type: options.type ?? "model",
    id,
    revision,
    fetch: options.fetch ?? fetch,
    signal: options.signal,
    patience: { ...defaultPatience, ...options.patience },
  };
}

/** A GET if nothing else is said. */
export interface HubMessage {
  readonly method?: string;
  readonly headers?: HeadersInit | undefined;
  /** Can be sent again as it is. */
  readonly body?: string | Blob;
}

/** Times in milliseconds. */
export interface Patience {
  /** Pauses before the 2nd, 3rd, … attempt; one more attempt than there are pauses. */
  readonly pauses: readonly number[];
  /** Without a byte for this long an attempt counts as failed. */
  readonly stall: number;
  /** How often to look whether another process has finished the same download. */
  readonly poll: number;
}

export const defaultPatience: Patience = { pauses: [500, 1000, 2000, 4000], stall: 30_000, poll: 500 };

/** The network or the hub is not there, as opposed to a hub that refuses. */
export class HubUnreachable extends UserError {
  override readonly name: string = "HubUnreachable";
}

/** A fault that may be gone the next time. */
export class PassingFault extends Error {
  /** Milliseconds that the server asks us to wait. */
  readonly wait: number | undefined;

  constructor(message: string, wait?: number) {
    super(message);
    this.wait = wait;
  }
}

const maxRedirects = 10;
/** A server may ask for any pause; beyond a minute a person would rather hear about it. */
const maxWait = 60_000;
/** Nobody answers at that address: another attempt seconds later would only keep an offline user waiting. */
const absentCodes = new Set(["ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH"]);

/**
 * One GET.
 *
 * @returns an answer of status 2xx or 416.
 * @throws PassingFault, UserError for a refusal, HubUnreachable, or whatever `fetch` throws.
 */
export async function hubRequest(
  context: HubContext,
  url: string,
  headers: HeadersInit = {},
  signal: AbortSignal | undefined = context.signal,
): Promise<Response> {
  return checkStatus(context, await send(context, url, { headers }, signal));
}

/**
 * One request that follows redirects itself, so that the token goes to no origin but the hub's, and a body to none but
 * the one it was sent to.
 *
 * @returns an answer of any status.
 */
export async function send(
  context: HubContext,
  url: string,
  { method = "GET", headers, body }: HubMessage,
  signal: AbortSignal | undefined = context.signal,
): Promise<Response> {
  const { endpoint, token } = context.settings;
  const home = new URL(endpoint).origin;
  let at = new URL(url);
  for (let hop = 0; hop <= maxRedirects; hop++) {
    const sent = new Headers(headers);
    sent.delete("authorization");
    if (token !== undefined && at.origin === home) sent.set("authorization", `Bearer ${token}`);
    const response = await context.fetch(at.href, {
      method,
      headers: sent,
      body: body ?? null,
      redirect: "manual",
      signal: signal ?? null,
    });
    const location = response.headers.get("location");
    if (response.status < 300 || response.status > 399 || location === null) return response;
    await response.body?.cancel();
    const next = new URL(location, at);
    if (next.protocol !== "https:" && next.protocol !== at.protocol) {
      throw new UserError(
        `${at.origin} redirects to the unprotected ${next.origin}.`,
        "Check HF_ENDPOINT and the network.",
      );
    }
    if (body !== undefined && (next.origin !== at.origin || (response.status !== 307 && response.status !== 308))) {
      throw new UserError(
        `${at.origin} redirects what is sent to it to ${next.origin} (status ${response.status}).`,
        "Check HF_ENDPOINT and the name: a repository that was renamed takes uploads under its new name.",
      );
    }
    at = next;
  }
  throw new UserError(`${home} redirects more than ${maxRedirects} times.`, "Check HF_ENDPOINT and the network.");
}

/** Runs the work again after each passing fault, with growing pauses; `progressed` starts the count anew. */
export async function withRetries<T>(
  context: HubContext,
  work: () => Promise<T>,
  progressed: () => boolean = () => false,
): Promise<T> {
  const { pauses } = context.patience;
  for (let attempt = 0; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      context.signal?.throwIfAborted();
      const fault = asFault(context, error);
      if (progressed()) attempt = 0;
      const pause = pauses[attempt];
      if (pause === undefined) {
        throw unreachable(context, `failed ${pauses.length + 1} times: ${fault.message}`, error);
      }
      await sleep(Math.max(pause, fault.wait ?? 0), undefined, context.signal ? { signal: context.signal } : {}).catch(
        () => context.signal?.throwIfAborted(),
      );
    }
  }
}

/** The fault to retry after; throws what no retry would mend. */
function asFault(context: HubContext, error: unknown): PassingFault {
  if (error instanceof PassingFault) return error;
  if (error instanceof SyntaxError) {
    throw new UserError(
      `${context.settings.endpoint} does not answer like a Hugging Face hub.`,
      "Check HF_ENDPOINT, and whether this network wants you to log in first.",
      { cause: error },
    );
  }
  // fetch reports every network fault as a TypeError with the reason as its cause.
  if (!(error instanceof TypeError) || error.cause === undefined) throw error;
  const reason = error.cause instanceof Error ? error.cause : error;
  const code = "code" in reason ? String(reason.code) : "";
  if (absentCodes.has(code) || /CERT|TLS|SSL|CONNECT_TIMEOUT/.test(code)) {
    throw unreachable(context, `cannot be reached: ${reason.message || code}`, error);
  }
  return new PassingFault(reason.message || code);
}

function unreachable({ id, settings, brokenOff }: HubContext, what: string, cause: unknown): HubUnreachable {
  return new HubUnreachable(
    `${settings.endpoint} ${what} (asked for ${id}).`,
    "Check the network and HF_ENDPOINT (behind a proxy, Node 24 needs NODE_USE_ENV_PROXY=1), then run the same again: " +
      (brokenOff ?? "what has arrived is kept."),
    { cause },
  );
}

async function checkStatus(context: HubContext, response: Response): Promise<Response> {
  const { status } = response;
  if (response.ok || status === 416) return response;
  await response.body?.cancel();
  checkPassing(response);
  throw refusal(context, status, response.headers.get("x-error-code"));
}

/** Throws PassingFault for a status that may be another one the next time. */
export function checkPassing({ status, headers }: Response): void {
  if (status >= 500 || status === 429 || status === 408) {
    const seconds = Number(headers.get("retry-after") ?? Number.NaN);
    throw new PassingFault(
      `status ${status}`,
      Number.isFinite(seconds) ? Math.min(seconds * 1000, maxWait) : undefined,
    );
  }
}

/** A repository's page, under which its files lie too. */
export function pageOf({ type, id, settings }: Pick<HubContext, "type" | "id" | "settings">): string {
  return `${settings.endpoint}/${type === "model" ? "" : "datasets/"}${id}`;
}

function refusal(context: HubContext, status: number, code: string | null): UserError {
  const { type, id, revision, settings } = context;
  const page = pageOf(context);
  if (code === "GatedRepo" || (status === 403 && code === null)) {
    return new UserError(
      `${id} is gated: its authors ask you to accept a licence first (status ${status}).`,
      `Accept it at ${page}, then set HF_TOKEN to a token of your account that may read it.`,
    );
  }
  if (code === "RevisionNotFound") {
    return new UserError(`${id} has no revision "${revision}".`, `Choose one that ${page} lists, or leave it out.`);
  }
  if (status === 404 || (status === 401 && code === "RepoNotFound")) {
    return new UserError(
      `${id} (revision "${revision}") does not exist at ${settings.endpoint}, or is private.`,
      `Check the spelling; for a private one set HF_TOKEN. If you meant a ${type === "model" ? "folder" : "file"}: there is none called ${id} here.`,
    );
  }
  if (status === 401 || status === 403) {
    return settings.token === undefined
      ? new UserError(
          `${id} needs a login (status ${status}).`,
          `If ${page} asks you to accept a licence, do; then set HF_TOKEN to a token of your account.`,
        )
      : new UserError(
          `The hub does not accept your token for ${id} (status ${status}).`,
          `Check HF_TOKEN, and accept the licence at ${page} if it asks you to.`,
        );
  }
  return new UserError(
    `${settings.endpoint} refuses ${id} (status ${status}).`,
    `Check the ${type === "model" ? "model" : "data set"}'s name and HF_ENDPOINT.`,
  );
}

/** A stranger's text on a terminal: without control characters, and short. */
export function printable(text: string): string {
  return text
    .replace(/\p{Cc}+/gu, " ")
    .trim()
    .slice(0, 300);
}
