import { useState } from "preact/hooks";
import { Icon, icons } from "../ui/icons.tsx";
import { Menu } from "../ui/menu.tsx";
import { absolute, clock as clockText } from "../ui/units.ts";
import { useApp } from "./context.ts";
import { parse, setParams } from "./location.ts";
import { formatRange, PRESETS } from "./range.ts";
import { REFRESH_SECONDS } from "./refresh.ts";
import { applyTheme, storedTheme, type Theme } from "./theme.ts";

interface Clock {
  hidden: boolean;
  refresh: () => void;
}

export function TopBar({ clock, onSignOut }: { clock: Clock; onSignOut: () => void }) {
  return (
    <>
      <OrganisationSwitch />
      <span class="spring" />
      <button type="button" class="ghost find-button" aria-label="Find" onClick={() => dispatchEvent(new CustomEvent("open-dialog", { detail: "find" }))}>
        <Icon of={icons.Search} /> <span>Find</span> <kbd>/</kbd>
      </button>
      <RangePicker clock={clock} />
      <Account onSignOut={onSignOut} />
    </>
  );
}

const SEARCH_FROM = 8;

function OrganisationSwitch() {
  const { organisation, organisations } = useApp();
  const [text, setText] = useState("");
  const shown = organisations.filter(({ name, id }) => `${name} ${id}`.toLowerCase().includes(text.toLowerCase()));
  if (organisations.length === 1) return <span class="organisation strong">{organisation.name}</span>;
  const choose = (id: string) => {
    // A hub or a rule of one organisation is none of another.
    const { path, params } = parse(location.hash);
    const next = new URLSearchParams({ org: id });
    const range = params.get("range");
    if (range) next.set("range", range);
    location.hash = `#/${path[0] ?? "overview"}?${next}`;
  };
  return (
    <Menu name={`Organisation: ${organisation.name}`} class="organisation" label={<span class="strong ellipsis">{organisation.name}</span>}>
      {(close) => (
        <>
          {organisations.length >= SEARCH_FROM && (
            <input type="search" aria-label="Find an organisation" placeholder="Find" value={text} onInput={(event) => setText(event.currentTarget.value)} />
          )}
          <ul>
            {shown.map(({ id, name, role }) => (
              <li key={id}>
                <button type="button" class="item" aria-current={id === organisation.id} onClick={() => (close(), choose(id))}>
                  <span>{name}</span> <span class="muted">{role}</span>
                </button>
              </li>
            ))}
          </ul>
        </>
      )}
    </Menu>
  );
}

function RangePicker({ clock }: { clock: Clock }) {
  const { range } = useApp();
  const text = formatRange(range);
  const relative = "last" in range;
  const label = relative ? text : `${clockText(range.from * 1000)} to ${clockText(range.to * 1000)}`;
  return (
    <div class="range" role="group" aria-label="Time range">
      <div class="segments">
        {PRESETS.map(([name]) => (
          <button key={name} type="button" aria-pressed={text === name} onClick={() => setParams({ range: name })}>
            {name}
          </button>
        ))}
      </div>
      <Menu name={`Time range: ${label}`} class="range-menu" label={<><Icon of={icons.Clock} /> <span class={relative ? "narrow-only" : ""}>{label}</span></>}>
        {(close) => <CustomRange close={close} />}
      </Menu>
      <button type="button" class="ghost icon-only refresh" onClick={clock.refresh} disabled={!relative} aria-label="Refresh now" title={relative ? (clock.hidden ? "paused while the page is hidden" : `refreshes every ${REFRESH_SECONDS} s`) : "this range has ended: there is nothing to refresh"}>
        <Icon of={relative ? icons.RefreshCw : icons.Pause} />
      </button>
    </div>
  );
}

function CustomRange({ close }: { close: () => void }) {
  const { range, now } = useApp();
  const [from, to] = "last" in range ? [now / 1000 - range.last, now / 1000] : [range.from, range.to];
  const [wrong, setWrong] = useState("");
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const [start, end] = [form.get("from"), form.get("to")].map((value) => Date.parse(String(value)) / 1000);
    if (!start || !end || start >= end) return setWrong("The end must be after the start.");
    setParams({ range: formatRange({ from: start, to: end }) });
    close();
  };
  return (
    <form class="stack" onSubmit={submit}>
      <div class="narrow-only presets">
        {PRESETS.map(([name]) => (
          <button key={name} type="button" onClick={() => (setParams({ range: name }), close())}>{name}</button>
        ))}
      </div>
      <label>From <input type="datetime-local" name="from" required defaultValue={local(from)} /></label>
      <label>To <input type="datetime-local" name="to" required defaultValue={local(to)} /></label>
      <p class="muted">Times of {Intl.DateTimeFormat().resolvedOptions().timeZone}.</p>
      {wrong && <p class="field-error" role="alert">{wrong}</p>}
      <button type="submit" class="primary">Show</button>
    </form>
  );
}

/** As an input of dates and times has it: local, without a zone. */
function local(seconds: number): string {
  const date = new Date(seconds * 1000);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

const THEMES: [Theme, string][] = [
  ["system", "System"],
  ["light", "Light"],
  ["dark", "Dark"],
];

function Account({ onSignOut }: { onSignOut: () => void }) {
  const { email, organisation, now } = useApp();
  const [theme, setTheme] = useState(storedTheme());
  return (
    <Menu name={`Account of ${email}`} class="account right" label={<Icon of={icons.User} />}>
      {(close) => (
        <div class="stack">
          <div>
            <p class="strong ellipsis">{email}</p>
            <p class="muted">{organisation.role} of {organisation.name}</p>
          </div>
          <fieldset class="segments">
            <legend class="hidden">Colours</legend>
            {THEMES.map(([id, name]) => (
              <button key={id} type="button" aria-pressed={theme === id} onClick={() => (applyTheme(id), setTheme(id))}>{name}</button>
            ))}
          </fieldset>
          <button type="button" onClick={() => (close(), dispatchEvent(new CustomEvent("open-dialog", { detail: "help" })))}>Help <kbd>?</kbd></button>
          <button type="button" onClick={onSignOut}>Sign out</button>
          <p class="muted small-text">{absolute(now)}</p>
        </div>
      )}
    </Menu>
  );
}
