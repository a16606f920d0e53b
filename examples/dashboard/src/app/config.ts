/** Where things are. Read at start from /config.json, so that one build serves every deployment. */
export interface Config {
  supabaseUrl: string;
  /** The publishable ("anon") key. Row-level security is what protects the rows, not this key. */
  supabaseAnonKey: string;
  proxyUrl: string;
  /** Whether the project has Realtime. Without it rows are polled, and no socket is tried. */
  realtime?: boolean;
}

export async function loadConfig(): Promise<Config> {
  const answer = await fetch("/config.json", { cache: "no-cache" });
  if (!answer.ok) throw new Error(`/config.json is missing (status ${answer.status}); README.md says how to make it`);
  const config = (await answer.json()) as Partial<Config>;
  for (const name of ["supabaseUrl", "supabaseAnonKey", "proxyUrl"] as const) {
    if (typeof config[name] !== "string" || !config[name]) throw new Error(`/config.json has no ${name}`);
  }
  return { ...(config as Config), proxyUrl: config.proxyUrl!.replace(/\/+$/, "") };
}
