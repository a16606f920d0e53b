import "./ui/style.css";
import { createClient } from "@supabase/supabase-js";
import { render } from "preact";
import { loadConfig } from "./app/config.ts";
import { showTheme } from "./app/theme.ts";
import { carefulFetch } from "./data/careful-fetch.ts";
import { refused } from "./data/load.ts";
import { SESSION_KEY } from "./session/leaving.ts";
import { Session } from "./session/session.tsx";
import { ErrorNote } from "./ui/states.tsx";

const place = document.getElementById("app")!;

async function start(): Promise<void> {
  showTheme();
  const config = await loadConfig();
  const supabase = createClient(config.supabaseUrl, config.supabaseAnonKey, {
    // The fragment is the page's own; people sign in with a password here.
    auth: { detectSessionInUrl: false, storageKey: SESSION_KEY },
    global: { fetch: carefulFetch(config.supabaseAnonKey) },
  });
  render(<Session config={config} supabase={supabase} />, place);
}

start().catch((error: unknown) => render(<main class="alone"><ErrorNote error={refused(error)} retry={() => location.reload()} /></main>, place));
