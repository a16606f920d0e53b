import { test as base, expect, type Page } from "@playwright/test";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { stack as read, type Stack, type User } from "./stack.ts";

interface Fixtures {
  stack: Stack;
  /** Fails a test at whose end the page has logged an error or a script has failed. `allow` is for what a test provokes. */
  errors: { allow(pattern: RegExp): void };
}

export const test = base.extend<Fixtures>({
  // eslint-disable-next-line no-empty-pattern
  stack: async ({}, use) => use(read()),
  errors: async ({ page }, use) => {
    const seen: string[] = [];
    const allowed: RegExp[] = [];
    page.on("console", (message) => {
      if (message.type() === "error") seen.push(`${message.text()} (${message.location().url})`);
    });
    page.on("pageerror", (error) => seen.push(String(error)));
    await use({ allow: (pattern) => void allowed.push(pattern) });
    expect(seen.filter((text) => !allowed.some((pattern) => pattern.test(text)))).toEqual([]);
  },
});

export { expect };

/** A member of organisation A with this role; `user(stack, "admin", 1)` is one of B. */
export function user(stack: Stack, role: string, organisation = 0): User {
  const wanted = stack.organisations[organisation]?.id;
  const found = stack.users.find(
    (one) => one.memberships.length === 1 && one.role === role && one.organisation === wanted,
  );
  if (!found) throw new Error(`no ${role} of organisation ${organisation}`);
  return found;
}

/** The user who is in both organisations. */
export function memberOfBoth(stack: Stack): User {
  const found = stack.users.find((one) => one.memberships.length > 1);
  if (!found) throw new Error("no member of both");
  return found;
}

/** Node 20 has none, and the stand-in for Supabase has no Realtime: `dashboard-live.spec.ts` has its own. */
class NoSocket {
  constructor() {
    throw new Error("there are no sockets here");
  }
}

/** The real supabase-js, outside of any page. */
export function supabase(stack: Stack): SupabaseClient {
  return createClient(stack.supabase.url, stack.supabase.anon_key, {
    auth: { persistSession: false, autoRefreshToken: false },
    realtime: { transport: NoSocket as unknown as typeof WebSocket },
  });
}

/** The same as a user. */
export async function signedIn(stack: Stack, as: User): Promise<SupabaseClient> {
  const client = supabase(stack);
  const { error } = await client.auth.signInWithPassword({ email: as.email, password: as.password });
  if (error) throw error;
  return client;
}

/** A user's access token. */
export async function token(stack: Stack, as: User): Promise<string> {
  const { data } = await (await signedIn(stack, as)).auth.getSession();
  if (!data.session) throw new Error("no session");
  return data.session.access_token;
}

/** Signs in by a form with an e-mail address and a password, as the dashboard's and the console's are. */
export async function signIn(page: Page, as: User): Promise<void> {
  await page.getByLabel(/e-?mail/i).fill(as.email);
  await page.getByLabel(/password/i).fill(as.password);
  await page.getByRole("button", { name: /sign in/i }).click();
}
