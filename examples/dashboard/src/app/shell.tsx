/** The frame around every view: organisation, range, account, navigation. */
import type { SupabaseClient } from "@supabase/supabase-js";
import { useEffect, useLayoutEffect, useMemo, useState } from "preact/hooks";
import { Alerts } from "../alerts/alerts.tsx";
import { Alertmanager } from "../data/alertmanager.ts";
import { useLoad } from "../data/load.ts";
import { Prometheus } from "../data/prometheus.ts";
import type { Proxy } from "../data/proxy.ts";
import { organisations, Rows } from "../data/rows.ts";
import { HubPage } from "../hubs/hub-page.tsx";
import { HubList } from "../hubs/hub-list.tsx";
import { Notifications } from "../notifications/notifications.tsx";
import { Overview } from "../overview/overview.tsx";
import { RuleEditor } from "../rules/rule-editor.tsx";
import { RuleList } from "../rules/rule-list.tsx";
import { Icon } from "../ui/icons.tsx";
import { Empty, ErrorNote, Skeleton } from "../ui/states.tsx";
import type { Config } from "./config.ts";
import { type Access, type App, AppContext } from "./context.ts";
import { Find } from "./find.tsx";
import { Help } from "./help.tsx";
import { href, parse, useLocation } from "./location.ts";
import { parseRange } from "./range.ts";
import { useNow } from "./refresh.ts";
import { TopBar } from "./top-bar.tsx";
import { VIEWS } from "./views.ts";

interface Props {
  config: Config;
  supabase: SupabaseClient;
  proxy: Proxy;
  email: string;
  onSignOut: () => void;
}

/** As `GET /admin/whoami` answers. */
interface Whoami {
  organisations?: { id: string; role: string | null; scopes: string[]; is_default: boolean }[];
  organisations_unknown?: string;
}

async function readAccess(proxy: Proxy, supabase: SupabaseClient, signal: AbortSignal): Promise<Access[]> {
  const [whoami, named] = await Promise.all([
    proxy.request<Whoami>("/admin/whoami", { signal }),
    // Names are for people: without them the page works, too.
    organisations(supabase).catch(() => []),
  ]);
  if (whoami.organisations_unknown) throw new Error(whoami.organisations_unknown);
  const names = new Map(named.map(({ id, name }) => [id, name]));
  const found = (whoami.organisations ?? []).map(({ id, role, scopes, is_default }) => ({
    id,
    name: names.get(id) || id,
    role: role ?? "",
    scopes,
    is_default,
  }));
  return found.sort((a, b) => Number(b.is_default) - Number(a.is_default) || a.name.localeCompare(b.name));
}

export function Shell({ config, supabase, proxy, email, onSignOut }: Props) {
  const { path, params } = useLocation();
  const rangeText = params.get("range");
  const range = useMemo(() => parseRange(rangeText), [rangeText]);
  const clock = useNow("last" in range);
  const access = useLoad("access", 0, (signal) => readAccess(proxy, supabase, signal));
  const wanted = params.get("org");
  const chosen = access.data?.find(({ id }) => id === wanted) ?? (wanted ? undefined : access.data?.[0]);

  const app = useMemo<Omit<App, "range" | "now"> | null>(() => {
    if (!access.data || !chosen) return null;
    return {
      config,
      supabase,
      proxy,
      email,
      organisation: chosen,
      organisations: access.data,
      prometheus: new Prometheus(proxy, chosen.id),
      alertmanager: new Alertmanager(proxy, chosen.id),
      rows: new Rows(supabase, chosen.id),
    };
  }, [access.data, chosen, config, supabase, proxy, email]);

  const view = path[0] ?? "overview";
  const title = VIEWS.find(([id]) => id === view)?.[1] ?? "Not found";
  useEffect(() => {
    document.title = [path[1], title, chosen?.name].filter(Boolean).join(" · ");
  }, [title, path[1], chosen?.name]);

  if (access.error && !access.data) {
    return (
      <main class="alone">
        <ErrorNote error={access.error} retry={access.reload} />
        <button type="button" onClick={onSignOut}>Sign out</button>
      </main>
    );
  }
  if (!access.data) return <Frame view={view}><main class="view"><Skeleton shape="cards" rows={3} /><Skeleton shape="chart" /></main></Frame>;
  if (!app) {
    return (
      <main class="alone">
        <Empty
          title={wanted && access.data.length ? `You are not a member of ${wanted}` : "You are in no organisation yet"}
          action={wanted && access.data.length ? <a class="button" href="#/">Show {access.data[0]!.name}</a> : <button type="button" onClick={onSignOut}>Sign out</button>}
        >
          Ask an owner of the organisation to add {email}.
        </Empty>
      </main>
    );
  }
  return (
    <AppContext.Provider value={{ ...app, range, now: "last" in range ? clock.now : range.to * 1000 }}>
      <Frame view={view} top={<TopBar clock={clock} onSignOut={onSignOut} />}>
        {/* Another organisation is another page: nothing of the one before may be seen in it. */}
        <main class="view" id="main" tabIndex={-1} key={app.organisation.id}>
          <View path={path} />
        </main>
      </Frame>
      <Keys />
    </AppContext.Provider>
  );
}

function View({ path: [view = "overview", detail] }: { path: string[] }) {
  if (view === "overview") return <Overview />;
  if (view === "hubs") return detail ? <HubPage key={detail} name={detail} /> : <HubList />;
  if (view === "alerts") return <Alerts />;
  if (view === "rules") return detail ? <RuleEditor key={detail} id={detail} /> : <RuleList />;
  if (view === "notifications") return <Notifications />;
  return <Empty title="There is no such page" action={<a class="button" href={href("overview")}>Overview</a>} />;
}

function Frame({ view, top, children }: { view: string; top?: preact.ComponentChildren; children: preact.ComponentChildren }) {
  return (
    <div class="frame">
      <header class="top">
        <a class="skip" href={location.hash} onClick={(event) => (event.preventDefault(), document.getElementById("main")?.focus())}>
          Skip to content
        </a>
        <a class="product" href={href("overview")}><img src="/icon.svg" alt="" width="20" height="20" /> Hub monitor</a>
        {top}
      </header>
      <nav aria-label="Views">
        {VIEWS.map(([id, name, icon]) => (
          <a key={id} href={href(id)} aria-current={view === id ? "page" : undefined}>
            <Icon of={icon} /> <span>{name}</span>
          </a>
        ))}
      </nav>
      {children}
    </div>
  );
}

/** `/` and `?`, except where a character is meant as text. */
function Keys() {
  const [open, setOpen] = useState<"find" | "help" | null>(null);
  // With the page and not after it: a key that is pressed at once counts.
  useLayoutEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const target = event.composedPath()[0];
      const typing = target instanceof HTMLElement && (target.isContentEditable || target.matches("input, textarea, select"));
      if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
      if (event.key !== "/" && event.key !== "?") return;
      event.preventDefault();
      setOpen(event.key === "/" ? "find" : "help");
    };
    const asked = (event: Event) => setOpen((event as CustomEvent<"find" | "help">).detail);
    addEventListener("keydown", pressed);
    addEventListener("open-dialog", asked);
    return () => {
      removeEventListener("keydown", pressed);
      removeEventListener("open-dialog", asked);
    };
  }, []);
  // A view that was chosen closes what it was chosen in.
  useEffect(() => {
    const moved = (event: HashChangeEvent) => {
      const [before, after] = [event.oldURL, event.newURL].map((url) => parse(new URL(url || location.href).hash).path.join("/"));
      if (before !== after) setOpen(null);
    };
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  if (open === "find") return <Find onClose={() => setOpen(null)} />;
  if (open === "help") return <Help onClose={() => setOpen(null)} />;
  return null;
}
