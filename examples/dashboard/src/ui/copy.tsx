import { useState } from "preact/hooks";
import { Icon, icons } from "./icons.tsx";

export function Copy({ text, what }: { text: string; what: string }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return (
    <button type="button" class="plain copy" aria-label={done ? `copied ${what}` : `copy ${what}`} onClick={copy}>
      <Icon of={done ? icons.Check : icons.Copy} size={13} />
    </button>
  );
}
