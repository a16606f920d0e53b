// Who is signed in, and requests with that credential.
//
// A token that was typed in is an operator's key, often, and valid for months: it stays in memory, and
// a reload forgets it, unless the tab is told to keep it. What Supabase gives ends within the hour; it
// is kept for the tab, in sessionStorage, which no other tab reads and which ends with it. Neither is
// ever in the address.

const KEY = "mimir-tenant-proxy-console";
export const base = new URL(".", location.href.split("#")[0]);

let session = null;
let refreshing = null;
export let settings = { supabase_url: null, supabase_key: null };

/** A refusal or a failure, with the request's identifier. */
export class Failure extends Error {
  constructor(message, status, requestId, title) {
    super(message);
    Object.assign(this, { status, requestId, title });
  }
}

export async function start() {
  try {
    settings = await (await fetch(new URL("console/settings.json", base))).json();
  } catch {
    // Without it, a token can still be typed in.
  }
  try {
    session = JSON.parse(sessionStorage.getItem(KEY));
  } catch {
    session = null;
  }
  return session !== null;
}

function keep(next, inTab) {
  session = { ...next, inTab };
  try {
    if (inTab) sessionStorage.setItem(KEY, JSON.stringify(session));
    else sessionStorage.removeItem(KEY);
  } catch {
    // Storage may be off; memory is enough.
  }
}

export function useToken(token, inTab) {
  keep({ token }, inTab);
}

export function forget() {
  const { token, refresh } = session ?? {};
  keep(null, false);
  session = null;
  if (refresh) void supabase("logout?scope=local", {}, token).catch(() => {});
}

async function supabase(path, body, token) {
  let answer;
  try {
    answer = await fetch(`${settings.supabase_url}/auth/v1/${path}`, {
      method: "POST",
      headers: { apikey: settings.supabase_key, authorization: `Bearer ${token ?? settings.supabase_key}`, "content-type": "application/json" },
      body: JSON.stringify(body),
      referrerPolicy: "no-referrer",
    });
  } catch {
    throw new Failure("Supabase cannot be reached. Check the network, and that it allows this origin.", 0);
  }
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    throw new Failure(String(said.error_description ?? said.msg ?? said.message ?? `Supabase answers ${answer.status}`), answer.status);
  }
  return said;
}

function adopt(said) {
  const lifetime = Number(said.expires_in ?? 3600);
  keep({ token: said.access_token, refresh: said.refresh_token, ends: Date.now() + lifetime * 1000, email: said.user?.email }, true);
}

export async function signIn(email, password) {
  adopt(await supabase("token?grant_type=password", { email, password }));
}

/** Refreshes once, however many requests need it. */
async function refresh() {
  refreshing ??= supabase("token?grant_type=refresh_token", { refresh_token: session.refresh })
    .then(adopt)
    .finally(() => { refreshing = null; });
  return refreshing;
}

export const email = () => session?.email;

/** Asks `/admin`. The path is below it, and its parts are encoded by `path`. */
export async function api(where, { method = "GET", body } = {}) {
  if (session?.refresh && session.ends - Date.now() < 30_000) await refresh().catch(() => {});
  let answer = await send(where, method, body);
  if (answer.status === 401 && session?.refresh) {
    const isFresh = await refresh().then(() => true, () => false);
    if (isFresh) answer = await send(where, method, body);
  }
  const requestId = answer.headers.get("x-request-id");
  const said = await answer.json().catch(() => null);
  if (answer.ok && said !== null) return said;
  if (answer.status === 401) dispatchEvent(new CustomEvent("signed-out", { detail: said?.error }));
  throw new Failure(said?.error ?? `The proxy answers ${answer.status}.`, answer.status, requestId, titleOf(answer.status));
}

async function send(where, method, body) {
  try {
    return await fetch(new URL(where, base), {
      method,
      headers: { authorization: `Bearer ${session?.token}`, ...(body === undefined ? {} : { "content-type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
    });
  } catch {
    throw new Failure("Check the network, and that the proxy runs.", 0, null, "The proxy cannot be reached");
  }
}

function titleOf(status) {
  if (status === 403) return "You may not see this";
  if (status === 404) return "Not there";
  if (status === 409) return "It has changed meanwhile";
  if (status === 503) return "Temporarily not available";
  return undefined;
}

/** A path of `/admin` with its parts encoded. */
export function path(...parts) {
  return parts.map(encodeURIComponent).join("/");
}

export function query(values) {
  const some = Object.entries(values).filter(([, value]) => value);
  return some.length ? `?${new URLSearchParams(some)}` : "";
}
