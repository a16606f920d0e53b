// The running stack, as `demo --state FILE` describes it.

import { readFile } from "node:fs/promises";

export interface User { email: string; password: string; organisation: string; role: string }
export interface Stack {
  proxy: string;
  supabase: { url: string; anon_key: string };
  organisations: { id: string; name: string }[];
  users: User[];
  operator_token: string;
}

/** Reads the file that `STACK_STATE` names. */
export async function stack(): Promise<Stack> {
  const file = process.env.STACK_STATE;
  if (!file) throw new Error("STACK_STATE names no file: start `demo --state FILE`");
  return JSON.parse(await readFile(file, "utf8")) as Stack;
}
