/**
 * What supabase-js sends with. Without a network it does not try. Nor does it ask for rows with the publishable
 * key, which supabase-js takes when a session has expired and cannot be renewed: row-level security would
 * answer that nothing is there.
 */
import { isOnline, OFFLINE } from "./network.ts";

export const EXPIRED = "the session has expired and could not be renewed";

export function carefulFetch(anonKey: string, send: typeof fetch = (...asked) => fetch(...asked)): typeof fetch {
  return async (input, init) => {
    if (!isOnline()) throw new Error(OFFLINE);
    const url = input instanceof Request ? input.url : String(input);
    const isAnonymous = new Headers(init?.headers).get("Authorization") === `Bearer ${anonKey}`;
    if (isAnonymous && new URL(url).pathname.includes("/rest/v1/")) throw new Error(EXPIRED);
    return send(input, init);
  };
}
