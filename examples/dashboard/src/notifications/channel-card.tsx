import { useState } from "preact/hooks";
import { can, canEdit, useApp } from "../app/context.ts";
import { refused } from "../data/load.ts";
import type { Refused } from "../data/proxy.ts";
import type { Channel, Status } from "../data/rows.ts";
import { Chip } from "../ui/chip.tsx";
import { Icon, icons } from "../ui/icons.tsx";
import { ErrorNote, sentence } from "../ui/states.tsx";
import { duration } from "../ui/units.ts";
import { kindTitle } from "./kinds.ts";
import { reasonWords } from "./reason.ts";
import { StatusChip } from "./status-chip.tsx";

interface TestReport {
  outcome: string;
  reason: string;
  took_ms: number;
}

interface Props {
  channel: Channel;
  status: Status | undefined;
  onEdit: () => void;
  onDelete: () => void;
}

export function ChannelCard({ channel, status, onEdit, onDelete }: Props) {
  const app = useApp();
  const [busy, setBusy] = useState(false);
  const [report, setReport] = useState<TestReport | null>(null);
  const [failure, setFailure] = useState<Refused | null>(null);
  const state = status?.state ?? "pending";
  const test = async () => {
    setBusy(true);
    setReport(null);
    setFailure(null);
    const organisation = app.organisation.id;
    const path = `/admin/organisations/${encodeURIComponent(organisation)}/channels/${channel.id}/test`;
    await app.proxy.request<TestReport>(path, { organisation, method: "POST" }).then(setReport, (error: unknown) => setFailure(refused(error)));
    setBusy(false);
  };
  return (
    <article class="card channel" aria-label={channel.name} data-channel={channel.name}>
      <header>
        <h3>{channel.name || "Channel without a name"}</h3>
        <StatusChip state={state} />
      </header>
      <p class="muted">{kindTitle(channel.kind)}{channel.is_default && ", gets what no route takes"}</p>
      {status?.reason && state !== "disabled" && <p class="reason">{sentence(reasonWords(status.reason, channel.kind))}</p>}
      {report && <p role="status" class="result"><Chip meaning={report.outcome === "delivered" ? "ok" : "warning"}>{report.outcome.replaceAll("_", " ")}</Chip> {sentence(report.reason)} <span class="muted">{duration(report.took_ms / 1000)}</span></p>}
      {failure && <ErrorNote error={failure} small />}
      <div class="actions">
        {can(app, "admin") && (
          <button type="button" class="small" disabled={busy || state !== "live"} title={state === "live" ? "" : "only a channel that is live can be tested"} onClick={test}>
            <Icon of={icons.Send} /> {busy ? "Sending, up to a minute" : "Send a test"}
          </button>
        )}
        {canEdit(app) && (
          <>
            <button type="button" class="small" aria-label={`Edit ${channel.name}`} onClick={onEdit}>Edit</button>
            <button type="button" class="small ghost danger" aria-label={`Delete ${channel.name}`} onClick={onDelete}>Delete</button>
          </>
        )}
      </div>
      {!can(app, "admin") && <p class="muted small-text">Owners and admins can send a test.</p>}
    </article>
  );
}
