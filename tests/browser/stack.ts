import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const REPOSITORY = join(dirname(fileURLToPath(import.meta.url)), "../..");
const PATIENCE_MS = 120_000;

export interface User {
  email: string;
  password: string;
  organisation: string;
  role: string;
  memberships: { organisation: string; role: string }[];
}

/** What `demo --state` writes. */
export interface Stack {
  proxy: string;
  private: string;
  dashboard: string | null;
  console: string;
  supabase: { url: string; anon_key: string };
  postgres: string;
  mimir: string;
  organisations: { id: string; name: string }[];
  users: User[];
  operator_token: string;
  device_key: string;
  webhook_receiver: string;
}

/** The running stack. */
export function stack(): Stack {
  const file = process.env.STACK_STATE;
  if (!file) throw new Error("there is no stack; Playwright starts it");
  return JSON.parse(readFileSync(file, "utf8")) as Stack;
}

/**
 * Starts the stack for the whole run and returns what ends it. STACK_STATE names the file of one that runs
 * already, for work on a spec. It ends with us, however we end: it watches its standard input.
 */
export default async function start(): Promise<() => Promise<void>> {
  if (process.env.STACK_STATE) return async () => {};
  const folder = mkdtempSync(join(tmpdir(), "mtp-browser-"));
  const file = join(folder, "state.json");
  const program = process.env.DEMO_BINARY ?? resolve(REPOSITORY, process.env.CARGO_TARGET_DIR ?? "target", "debug/demo");
  const demo = spawn(program, ["--state", file], { cwd: REPOSITORY, stdio: ["pipe", "pipe", "pipe"] });
  let said = "";
  const keep = (piece: Buffer) => (said = (said + piece.toString()).slice(-8000));
  demo.stdout.on("data", keep);
  demo.stderr.on("data", keep);
  const ended = new Promise<void>((resolve) => demo.once("close", () => resolve()));
  let running = true;
  void ended.then(() => (running = false));
  const deadline = Date.now() + PATIENCE_MS;
  while (!existsSync(file)) {
    if (!running || Date.now() > deadline) {
      demo.kill("SIGKILL");
      throw new Error(`the stack does not start\n${said}`);
    }
    await new Promise((go) => setTimeout(go, 100));
  }
  process.env.STACK_STATE = file;
  return async () => {
    demo.stdin.end();
    await ended;
    rmSync(folder, { recursive: true, force: true });
  };
}
