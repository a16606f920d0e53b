/**
 * Writes what Cloudflare Pages needs beside the page: `config.json` (where things are) and `_headers` (which
 * of them the page may connect to). Both come from one source, so they cannot differ: `config.json` in this
 * folder, or the variables DASHBOARD_SUPABASE_URL, DASHBOARD_SUPABASE_ANON_KEY and DASHBOARD_PROXY_URL
 * (and DASHBOARD_REALTIME=false for a project without Realtime).
 */
import { existsSync, readFileSync } from "node:fs";
import type { Plugin } from "vite";

interface Config {
  supabaseUrl: string;
  supabaseAnonKey: string;
  proxyUrl: string;
  realtime?: boolean;
}

export function pages(): Plugin {
  return {
    name: "pages",
    generateBundle() {
      const { config, from } = read();
      console.log(`config.json and _headers are made from ${from}`);
      this.emitFile({ type: "asset", fileName: "config.json", source: `${JSON.stringify(config, null, 2)}\n` });
      this.emitFile({ type: "asset", fileName: "_headers", source: headers(config) });
    },
    configureServer(server) {
      server.middlewares.use("/config.json", (_, answer) => {
        answer.setHeader("Content-Type", "application/json");
        answer.end(JSON.stringify(read().config));
      });
    },
  };
}

function read(): { config: Config; from: string } {
  const { DASHBOARD_SUPABASE_URL, DASHBOARD_SUPABASE_ANON_KEY, DASHBOARD_PROXY_URL, DASHBOARD_REALTIME } = process.env;
  const given = [DASHBOARD_SUPABASE_URL, DASHBOARD_SUPABASE_ANON_KEY, DASHBOARD_PROXY_URL];
  if (given.some(Boolean)) {
    if (!given.every(Boolean)) throw new Error("DASHBOARD_SUPABASE_URL, DASHBOARD_SUPABASE_ANON_KEY and DASHBOARD_PROXY_URL belong together");
    const [supabaseUrl, supabaseAnonKey, proxyUrl] = given as [string, string, string];
    return { config: { supabaseUrl, supabaseAnonKey, proxyUrl, realtime: DASHBOARD_REALTIME !== "false" }, from: "the environment" };
  }
  const file = existsSync("config.json") ? "config.json" : "config.example.json";
  return { config: JSON.parse(readFileSync(file, "utf8")) as Config, from: file };
}

export function headers({ supabaseUrl, proxyUrl }: Config): string {
  const supabase = new URL(supabaseUrl).origin;
  const sources = ["'self'", new URL(proxyUrl).origin, supabase, supabase.replace(/^http/, "ws")];
  const policy = [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "font-src 'self'",
    `connect-src ${sources.join(" ")}`,
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
  ];
  return `/*
  Content-Security-Policy: ${policy.join("; ")}
  Referrer-Policy: no-referrer
  X-Content-Type-Options: nosniff
  Permissions-Policy: camera=(), geolocation=(), microphone=()
  Cross-Origin-Opener-Policy: same-origin

/config.json
  Cache-Control: no-cache

/assets/*
  Cache-Control: public, max-age=31536000, immutable
`;
}
