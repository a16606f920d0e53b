import { can, useApp } from "../app/context.ts";

/** Where an organisation without data begins. */
export function FirstKey() {
  const app = useApp();
  if (!can(app, "admin")) return <p class="muted">A device writes with a device key. An owner or an admin of the organisation can make one.</p>;
  return <p class="muted">Make a <a href={`${app.config.proxyUrl}/admin/console#/devices`}>device key</a> and give it to a sender, such as Prometheus or Alloy.</p>;
}
