/**
 * Signing out on purpose. It works whatever Supabase answers, and in all tabs: a session that ended by itself
 * leaves on the page what somebody was writing, one that was left leaves nothing.
 */
import { isAuthSessionMissingError, type Session, type SupabaseClient } from "@supabase/supabase-js";
import { refused } from "../data/load.ts";
import type { Refused } from "../data/proxy.ts";

/** Where supabase-js keeps the session. */
export const SESSION_KEY = "dashboard-auth-token";
/** Who left last, and when: what the other tabs read. */
const LEFT_KEY = "dashboard-left";
const PATIENCE_MS = 10_000;

export type Store = Pick<Storage, "getItem" | "setItem" | "removeItem">;

/** Forgets the session in this browser, and then tells Supabase. Gives why that was not possible, or null. */
export async function leave(supabase: SupabaseClient, { user, access_token }: Session, store: Store = localStorage, patience = PATIENCE_MS): Promise<Refused | null> {
  try {
    store.setItem(LEFT_KEY, JSON.stringify({ user: user.id, at: Date.now() }));
    // supabase-js keeps a session that Supabase does not end, so it is not asked to. Nor does it put back one that it
    // is renewing when it finds it gone.
    store.removeItem(SESSION_KEY);
    // Without a session, this only forgets, and announces it to the tabs.
    await supabase.auth.signOut({ scope: "local" });
    // Here only; other devices stay signed in.
    const { error } = await atMost(patience, supabase.auth.admin.signOut(access_token, "local"));
    // There is no such session there any more.
    if (!error || isAuthSessionMissingError(error) || [401, 403, 404].includes(error.status ?? 0)) return null;
    return refused(error);
  } catch (error) {
    return refused(error);
  }
}

/** Whether somebody who is signed in since a time (ms) has left, in any tab. */
export function hasLeft(user: string, since: number, store: Store = localStorage): boolean {
  try {
    if (store.getItem(SESSION_KEY)) return false;
    const left = JSON.parse(store.getItem(LEFT_KEY) ?? "null") as { user: string; at: number } | null;
    return left?.user === user && left.at >= since;
  } catch {
    return false;
  }
}

function atMost<T>(milliseconds: number, work: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout>;
  const late = new Promise<never>((_, fail) => {
    timer = setTimeout(() => fail(new Error("it does not answer")), milliseconds);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}
