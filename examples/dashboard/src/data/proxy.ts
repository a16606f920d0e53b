/** Requests to the proxy: with the user's token, and with errors in words. What is read is repeated by asker.ts. */
import type { SupabaseClient } from "@supabase/supabase-js";
import { EXPIRED } from "./careful-fetch.ts";
import { isOnline, OFFLINE } from "./network.ts";
import { isPassing, Refused } from "./refused.ts";

export { Refused };

export interface Asked {
  organisation?: string;
  method?: "GET" | "POST" | "DELETE";
  /** Sent as a form, as PromQL is: a long expression does not fit into an address. */
  form?: URLSearchParams;
  json?: unknown;
  signal?: AbortSignal;
}

/** What a browser takes for a step in a path: the request would be another one. */
const STEPS = /(?:^|[/\\])(?:\.|%2e){1,2}(?=[/\\]|$)|[\t\n\r]/i;

export class Proxy {
  constructor(
    private readonly url: string,
    private readonly supabase: SupabaseClient,
    /** Whose requests these are. In another tab, somebody else may have signed in. */
    private readonly user: string,
  ) {}

  async request<T>(path: string, asked: Asked = {}): Promise<T> {
    const method = asked.method ?? (asked.form || asked.json ? "POST" : "GET");
    let renewed = false;
    for (;;) {
      const answer = await this.send(path, method, asked);
      const text = await answer.text();
      const said = parseJson(text);
      if (answer.ok) return said as T;
      if (answer.status === 401 && !renewed) {
        renewed = true;
        const { data } = await this.supabase.auth.refreshSession();
        if (data.session) continue;
      }
      throw new Refused(answer.status, reasonOf(said, text, answer.status), answer.headers.get("X-Request-Id"), Number(answer.headers.get("Retry-After")) || null);
    }
  }

  /** Also what the PromQL editor's completion calls: only the path and the query string of `url` count. */
  async send(path: string, method: string, { organisation, form, json, signal }: Asked): Promise<Response> {
    if (STEPS.test(path.split(/[?#]/)[0]!)) throw new Refused(0, "a name that is only dots is none that can be asked for");
    if (!isOnline()) throw new Refused(0, OFFLINE);
    // Renews the token first if it is about to expire.
    const { data, error: notRenewed } = await this.supabase.auth.getSession();
    // Signed in, but not for now: the sign-in service does not answer.
    if (!data.session && notRenewed && isPassing({ status: notRenewed.status ?? 0 })) throw new Refused(0, EXPIRED);
    // Whatever status the renewal was refused with: asker.ts asks again after a 401, because a session may come back.
    if (!data.session) throw new Refused(401, "you are not signed in any more");
    if (data.session.user.id !== this.user) throw new Refused(401, "somebody else has signed in");
    const headers: Record<string, string> = { Authorization: `Bearer ${data.session.access_token}` };
    if (organisation) headers["X-Scope-OrgID"] = organisation;
    if (json !== undefined) headers["Content-Type"] = "application/json";
    const body = form ?? (json === undefined ? null : JSON.stringify(json));
    try {
      return await fetch(`${this.url}${path}`, { method, headers, body, signal: signal ?? null });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Refused(0, `the proxy at ${this.url} cannot be reached, or does not allow this page`);
    }
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The proxy says {error}, Alertmanager a text or {message}. */
function reasonOf(said: unknown, text: string, status: number): string {
  if (typeof said === "string") return said;
  const { error, message } = (said ?? {}) as { error?: string; message?: string };
  return error || message || text.slice(0, 300) || `status ${status}`;
}

/** What to do about it, for the person in front of the page. */
export function advice(status: number): string {
  if (status === 0) return "Check the connection, then try again.";
  if (status === 400 || status === 422) return "The query is wrong where the message says.";
  if (status === 401) return "Sign in again.";
  if (status === 403) return "Your role does not allow this, you are no longer a member, or you have to sign in with a second factor. Ask an owner of the organisation.";
  if (status === 404 || status === 406 || status === 412) return "This part is not set up, or not loaded yet. Try again in a minute.";
  if (status === 429 || status >= 500) return "Try again in a moment. If it stays, give the request ID to your operator.";
  return "";
}
