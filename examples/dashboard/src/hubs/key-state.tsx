import { can, useApp } from "../app/context.ts";
import type { DeviceKey } from "../data/rows.ts";
import { Chip } from "../ui/chip.tsx";
import { absolute, relative } from "../ui/units.ts";

const SOON_MS = 14 * 86_400_000;

export function KeyState({ of: key }: { of: DeviceKey | undefined }) {
  const app = useApp();
  if (!key) return <span class="muted">{can(app, "admin") ? "no key of this name" : "for owners and admins"}</span>;
  const expires = key.expires_at ? Date.parse(key.expires_at) : null;
  const hint = key.key_hint ? `${key.key_hint}…` : "";
  const title = expires ? `expires ${absolute(expires)}` : "does not expire";
  if (key.revoked_at) return <Chip meaning="neutral" title={`revoked ${absolute(Date.parse(key.revoked_at))}`}>revoked</Chip>;
  if (expires && expires + key.grace_seconds * 1000 < app.now) return <Chip meaning="critical" title={title}>expired</Chip>;
  if (expires && expires < app.now) return <Chip meaning="critical" title={title}>expired, in grace</Chip>;
  if (expires && expires < app.now + SOON_MS) return <Chip meaning="warning" title={title}>{`expires ${relative(expires, app.now)}`}</Chip>;
  return (
    <>
      <Chip meaning="ok" title={title}>valid</Chip> <code class="muted">{hint}</code>
    </>
  );
}
