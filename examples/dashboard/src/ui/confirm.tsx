/** Asks before something is deleted, and says what goes with it. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { refused } from "../data/load.ts";
import type { Refused } from "../data/proxy.ts";
import { Dialog } from "./dialog.tsx";
import { ErrorNote } from "./states.tsx";

interface Props {
  title: string;
  /** The word on the button. */
  action: string;
  work: () => Promise<void>;
  onClose: () => void;
  onDone: () => void;
  children: ComponentChildren;
}

export function Confirm({ title, action, work, onClose, onDone, children }: Props) {
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<Refused | null>(null);
  const go = async () => {
    setBusy(true);
    setFailure(null);
    await work().then(onDone, (error: unknown) => setFailure(refused(error)));
    setBusy(false);
  };
  return (
    <Dialog title={title} onClose={onClose}>
      {children}
      {failure && <ErrorNote error={failure} small />}
      <div class="actions">
        <button type="button" class="danger" disabled={busy} onClick={go}>{action}</button>
        <button type="button" onClick={onClose}>Keep</button>
      </div>
    </Dialog>
  );
}
