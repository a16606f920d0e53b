/** `/`: go to a hub, a rule or a view by a part of its name. */
import { useMemo, useState } from "preact/hooks";
import { useLoad } from "../data/load.ts";
import { HEARTBEAT } from "../overview/panels.ts";
import { Dialog } from "../ui/dialog.tsx";
import { useApp } from "./context.ts";
import { href } from "./location.ts";
import { VIEWS } from "./views.ts";

const SHOWN = 12;

export function Find({ onClose }: { onClose: () => void }) {
  const { prometheus, rows } = useApp();
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const hubs = useLoad(`hubs ${rows.organisation}`, 0, async (signal) =>
    (await prometheus.instant(`count by (hub) (last_over_time(${HEARTBEAT}[1d]))`, undefined, signal)).map(({ metric }) => metric.hub ?? ""),
  );
  const rules = useLoad(`rules ${rows.organisation}`, 0, rows.rules);
  const found = useMemo(() => {
    const all = [
      ...VIEWS.map(([id, name]) => ({ kind: "view", name: name as string, href: href(id) })),
      ...(hubs.data ?? []).sort().map((name) => ({ kind: "hub", name, href: href("hubs", name) })),
      ...(rules.data ?? []).map(({ id, name }) => ({ kind: "rule", name, href: href("rules", id) })),
    ];
    const wanted = text.trim().toLowerCase();
    return all.filter(({ name }) => name.toLowerCase().includes(wanted)).slice(0, SHOWN);
  }, [text, hubs.data, rules.data]);
  const chosen = Math.min(at, found.length - 1);
  const go = (target: string) => {
    onClose();
    location.hash = target;
  };
  const pressed = (event: KeyboardEvent) => {
    if (event.key === "ArrowDown") setAt(Math.min(chosen + 1, found.length - 1));
    else if (event.key === "ArrowUp") setAt(Math.max(chosen - 1, 0));
    else if (event.key === "Enter" && found[chosen]) go(found[chosen].href);
    else return;
    event.preventDefault();
  };
  return (
    <Dialog title="Go to" onClose={onClose}>
      <input
        type="text"
        role="combobox"
        aria-label="Find a hub, a rule or a view"
        aria-expanded="true"
        aria-controls="find-results"
        aria-activedescendant={found[chosen] ? `find-${chosen}` : undefined}
        placeholder="Hub, rule or view"
        autofocus
        value={text}
        onInput={(event) => (setText(event.currentTarget.value), setAt(0))}
        onKeyDown={pressed}
      />
      <ul class="find" id="find-results" role="listbox" aria-label="Results">
        {found.map(({ kind, name, href }, index) => (
          <li key={href} id={`find-${index}`} role="option" aria-selected={index === chosen} onClick={() => go(href)}>
            {name} <span class="muted">{kind}</span>
          </li>
        ))}
      </ul>
      {!found.length && <p class="muted">Nothing has this in its name.</p>}
    </Dialog>
  );
}
