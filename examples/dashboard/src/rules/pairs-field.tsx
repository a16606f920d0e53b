/** Labels or annotations: names with texts. */
import { useState } from "preact/hooks";
import type { Labels } from "../data/prometheus.ts";
import { Icon, icons } from "../ui/icons.tsx";

interface Props {
  title: string;
  help: string;
  value: Labels;
  onInput: (value: Labels) => void;
}

export function PairsField({ title, help, value, onInput }: Props) {
  // A list, because a name that is being written may for a moment be empty, or the same as another.
  const [pairs, setPairs] = useState<[string, string][]>(Object.entries(value));
  const same = JSON.stringify(Object.fromEntries(pairs.filter(([name]) => name))) === JSON.stringify(value);
  const shown = same ? pairs : Object.entries(value);
  const change = (next: [string, string][]) => {
    setPairs(next);
    onInput(Object.fromEntries(next.filter(([name]) => name)));
  };
  const replace = (at: number, pair: [string, string]) => change(shown.map((old, index) => (index === at ? pair : old)));
  return (
    <fieldset class="pairs-field">
      <legend>{title}</legend>
      <p class="muted small-text">{help}</p>
      {shown.map(([name, text], at) => (
        <div class="pair" key={at}>
          <input aria-label={`${title}: name`} value={name} onInput={(event) => replace(at, [event.currentTarget.value, text])} />
          <input aria-label={`${title}: ${name}`} value={text} onInput={(event) => replace(at, [name, event.currentTarget.value])} />
          <button type="button" class="ghost icon-only" aria-label={`Remove ${name || "this"}`} onClick={() => change(shown.filter((_, index) => index !== at))}>
            <Icon of={icons.X} />
          </button>
        </div>
      ))}
      <button type="button" class="ghost small" onClick={() => setPairs([...shown, ["", ""]])}><Icon of={icons.Plus} /> Add</button>
    </fieldset>
  );
}
