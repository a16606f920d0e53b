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
// Grows whenever somebody signs in or out. What was asked before belongs to somebody who is gone.
let generation = 0;
export let settings = { supabase_url: null, supabase_key: null };

/** A refusal or a failure, with the request's identifier. */
export class Failure extends Error {
  constructor(message, status, requestId, title) {
    super(message);
    Object.assign(this, { status, requestId, title });
  }
}

/** What was asked for by somebody who is no longer signed in here. Nobody gets the answer. */
export class Superseded extends Error {}

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

function keep(next) {
  session = next;
  try {
    if (session?.inTab) sessionStorage.setItem(KEY, JSON.stringify(session));
    else sessionStorage.removeItem(KEY);
  } catch {
    // Storage may be off; memory is enough.
  }
}

/** Begins anew, with nobody signed in. */
function begin() {
  generation += 1;
  refreshing = null;
  keep(null);
  return generation;
}

/** Waits for something that was asked in a generation. An answer or a failure that comes later is dropped. */
async function within(mine, answer) {
  try {
    return await answer;
  } finally {
    if (mine !== generation) throw new Superseded("somebody else is signed in here now, or nobody");
  }
}

export function useToken(token, inTab) {
  begin();
  keep({ token, inTab });
}

/** Forgets who is signed in, at once, and ends the session at Supabase. Throws if Supabase could not be told. */
export async function forget() {
  const { token, refresh, ends } = session ?? {};
  begin();
  if (!refresh) return;
  try {
    // Only a valid token ends its session.
    const valid = ends > Date.now() ? token : (await supabase("token?grant_type=refresh_token", { refresh_token: refresh })).access_token;
    await supabase("logout?scope=local", {}, valid);
  } catch (error) {
    // The session is not known there any more.
    if (![400, 401, 403, 404].includes(error.status)) throw error;
  }
}

async function supabase(path, body, token) {
  let answer;
  try {
    answer = await fetch(`${settings.supabase_url}/auth/v1/${path}`, {
      method: "POST",
      headers: { apikey: settings.supabase_key, authorization: `Bearer ${token ?? settings.supabase_key}`, "content-type": "application/json" },
      body: JSON.stringify(body),
      referrerPolicy: "no-referrer",
      signal: AbortSignal.timeout(20_000),
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
  keep({ token: said.access_token, refresh: said.refresh_token, ends: Date.now() + lifetime * 1000, email: said.user?.email, inTab: true });
}

export async function signIn(email, password) {
  adopt(await within(begin(), supabase("token?grant_type=password", { email, password })));
}

/** Refreshes once, however many requests need it. */
async function refresh() {
  const asked = refreshing ??= within(generation, supabase("token?grant_type=refresh_token", { refresh_token: session.refresh }))
    .then(adopt)
    .finally(() => { if (refreshing === asked) refreshing = null; });
  return asked;
}

export const email = () => session?.email;

/** Asks `/admin`. The path is below it, and its parts are encoded by `path`. */
export async function api(where, { method = "GET", body } = {}) {
  const mine = generation;
  const to = addressOf(where);
  if (session?.refresh && session.ends - Date.now() < 30_000) await within(mine, refresh().catch(() => {}));
  let { answer, said } = await within(mine, send(to, method, body));
  if (answer.status === 401 && session?.refresh) {
    const isFresh = await within(mine, refresh().then(() => true, () => false));
    if (isFresh) ({ answer, said } = await within(mine, send(to, method, body)));
  }
  if (answer.ok && said !== null) return said;
  if (answer.status === 401) dispatchEvent(new CustomEvent("signed-out", { detail: said?.error }));
  throw new Failure(said?.error ?? `The proxy answers ${answer.status}.`, answer.status, answer.headers.get("x-request-id"), titleOf(answer.status));
}

/** What would lead out of its place, as `..` does, is not asked: it would be another request, with the same token. */
function addressOf(where) {
  const to = new URL(where, base);
  if (to.href !== base.href + where) throw new Failure(`${where} is no path of the admin API.`, 0, null, "This was not asked");
  return to;
}

async function send(to, method, body) {
  if (!session) throw new Failure("Sign in again.", 401, null, "You are signed out");
  try {
    const answer = await fetch(to, {
      method,
      headers: { authorization: `Bearer ${session.token}`, ...(body === undefined ? {} : { "content-type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
    });
    return { answer, said: await answer.json().catch(() => null) };
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
  // Dots are not encoded, and a browser takes these parts for steps.
  const wrong = parts.find((one) => ["", ".", ".."].includes(one));
  if (wrong !== undefined) throw new Failure(`"${wrong}" is no identifier.`, 0, null, "This was not asked");
  return parts.map(encodeURIComponent).join("/");
}

/** Whether a text can be an organisation's identifier: an address may be written by anybody. */
export function isOrganisation(text) {
  return /^[\w!.*'()-]{1,150}$/.test(text) && text !== "." && text !== "..";
}

export function query(values) {
  const some = Object.entries(values).filter(([, value]) => value);
  return some.length ? `?${new URLSearchParams(some)}` : "";
}
