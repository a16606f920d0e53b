/** A channel that is new, or is changed. What the form does not have stays as it is. */
import { useState } from "preact/hooks";
import { useApp } from "../app/context.ts";
import { refused } from "../data/load.ts";
import type { Refused } from "../data/proxy.ts";
import { type Channel, type ChannelDraft, MASK } from "../data/rows.ts";
import { Dialog } from "../ui/dialog.tsx";
import { ErrorNote } from "../ui/states.tsx";
import { type Field, KINDS } from "./kinds.ts";

interface Props {
  /** Null for a new one. */
  channel: Channel | null;
  /** Whether there is no other channel. */
  first: boolean;
  onClose: () => void;
  onDone: () => void;
}

export function ChannelDialog({ channel, first, onClose, onDone }: Props) {
  const { rows } = useApp();
  const [kind, setKind] = useState(channel?.kind ?? "webhook");
  const [failure, setFailure] = useState<Refused | null>(null);
  const [busy, setBusy] = useState(false);
  const fields = KINDS[kind]?.fields ?? [];
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    setBusy(true);
    setFailure(null);
    await rows.saveChannel(draftOf(channel, kind, fields, form), channel?.id).then(onDone, (error: unknown) => setFailure(refused(error)));
    setBusy(false);
  };
  return (
    <Dialog title={channel ? "Change the channel" : "New channel"} onClose={onClose}>
      <form class="stack" onSubmit={submit}>
        <label>Name <input name="channel" required placeholder="on call" maxLength={100} defaultValue={channel?.name ?? ""} /></label>
        <label>
          Kind
          <select value={kind} disabled={channel !== null} onInput={(event) => setKind(event.currentTarget.value)}>
            {!(kind in KINDS) && <option value={kind}>{kind}</option>}
            {Object.entries(KINDS).map(([id, { title }]) => <option key={id} value={id}>{title}</option>)}
          </select>
        </label>
        {fields.map((field) => <FieldInput key={`${kind} ${field.name}`} field={field} channel={channel} />)}
        <label class="check"><input type="checkbox" name="default" defaultChecked={channel?.is_default ?? first} /> Gets what no route takes</label>
        <label class="check"><input type="checkbox" name="enabled" defaultChecked={channel?.enabled ?? true} /> On</label>
        {failure && <ErrorNote error={failure} small />}
        <div class="actions">
          <button type="submit" class="primary" disabled={busy}>{channel ? "Save" : "Add channel"}</button>
          <button type="button" onClick={onClose}>Cancel</button>
        </div>
      </form>
    </Dialog>
  );
}

function FieldInput({ field: { name, label, secret, placeholder }, channel }: { field: Field; channel: Channel | null }) {
  if (!secret) {
    const value = channel?.settings?.[name];
    return (
      <label>
        {label}
        <input name={name} required placeholder={placeholder} autocomplete="off" spellcheck={false} defaultValue={Array.isArray(value) ? value.join(", ") : String(value ?? "")} />
      </label>
    );
  }
  const kept = channel?.secrets?.[name] !== undefined;
  return (
    <label>
      {label}
      <input name={name} required={!kept} placeholder={kept ? "unchanged" : placeholder} autocomplete="off" spellcheck={false} />
      <span class="muted small-text">{kept ? "A secret, which nobody can read. Leave it empty to keep it." : "A secret: nobody can read it here again."}</span>
    </label>
  );
}

function draftOf(channel: Channel | null, kind: string, fields: Field[], form: FormData): ChannelDraft {
  const settings: Record<string, unknown> = { ...channel?.settings };
  const secrets: Record<string, string> = { ...channel?.secrets };
  for (const { name, secret } of fields) {
    const text = String(form.get(name) ?? "").trim();
    if (!secret) settings[name] = text.includes(",") ? text.split(",").map((part) => part.trim()).filter(Boolean) : text;
    else if (text) secrets[name] = text;
    else if (channel) secrets[name] = MASK;
  }
  return { name: String(form.get("channel")).trim(), kind, settings, secrets, is_default: form.has("default"), enabled: form.has("enabled") };
}
