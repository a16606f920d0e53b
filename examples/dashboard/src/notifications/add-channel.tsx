import { useState } from "preact/hooks";
import { useApp } from "../app/context.ts";
import { refused } from "../data/load.ts";
import type { Refused } from "../data/proxy.ts";
import { Dialog } from "../ui/dialog.tsx";
import { ErrorNote } from "../ui/states.tsx";
import { KINDS } from "./kinds.ts";

export function AddChannel({ first, onClose, onDone }: { first: boolean; onClose: () => void; onDone: () => void }) {
  const { rows } = useApp();
  const [kind, setKind] = useState("webhook");
  const [failure, setFailure] = useState<Refused | null>(null);
  const [busy, setBusy] = useState(false);
  const fields = KINDS[kind]!.fields;
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const part = (secret: boolean) => Object.fromEntries(fields.filter((field) => field.secret === secret).map(({ name }) => [name, String(form.get(name) ?? "").trim()]));
    setBusy(true);
    setFailure(null);
    const channel = { name: String(form.get("channel")).trim(), kind, settings: part(false), secrets: part(true), is_default: form.has("default") };
    await rows.addChannel(channel).then(onDone, (error: unknown) => setFailure(refused(error)));
    setBusy(false);
  };
  return (
    <Dialog title="New channel" onClose={onClose}>
      <form class="stack" onSubmit={submit}>
        <label>Name <input name="channel" required placeholder="on call" maxLength={100} /></label>
        <label>
          Kind
          <select value={kind} onInput={(event) => setKind(event.currentTarget.value)}>
            {Object.entries(KINDS).map(([id, { title }]) => <option key={id} value={id}>{title}</option>)}
          </select>
        </label>
        {fields.map(({ name, label, secret, placeholder }) => (
          <label key={`${kind} ${name}`}>
            {label}
            <input name={name} required placeholder={placeholder} autocomplete="off" spellcheck={false} />
            {secret && <span class="muted small-text">A secret: nobody can read it here again.</span>}
          </label>
        ))}
        <label class="check"><input type="checkbox" name="default" defaultChecked={first} /> Gets what no route takes</label>
        {failure && <ErrorNote error={failure} small />}
        <div class="actions">
          <button type="submit" class="primary" disabled={busy}>Add channel</button>
          <button type="button" onClick={onClose}>Cancel</button>
        </div>
      </form>
    </Dialog>
  );
}
