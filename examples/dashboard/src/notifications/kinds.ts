/** The kinds of channels that can be added here, with the fields that they need. docs/operations/alerts.md has all. */
export interface Field {
  name: string;
  label: string;
  secret: boolean;
  placeholder: string;
}

export const KINDS: Record<string, { title: string; fields: Field[] }> = {
  webhook: { title: "Webhook", fields: [secret("url", "Address", "https://example.com/hook")] },
  email: { title: "E-mail", fields: [{ name: "to", label: "To", secret: false, placeholder: "alice@example.com" }] },
  slack: { title: "Slack", fields: [secret("url", "Address of the incoming webhook", "https://hooks.slack.com/services/…")] },
  pagerduty: { title: "PagerDuty", fields: [secret("routing_key", "Routing key", "32 characters")] },
  opsgenie: { title: "Opsgenie", fields: [secret("api_key", "API key", "")] },
  telegram: {
    title: "Telegram",
    fields: [secret("bot_token", "Bot token", "123456:ABC…"), { name: "chat_id", label: "Chat ID", secret: false, placeholder: "-1001234" }],
  },
  discord: { title: "Discord", fields: [secret("url", "Address of the webhook", "https://discord.com/api/webhooks/…")] },
  msteams: { title: "Microsoft Teams", fields: [secret("url", "Address of the workflow", "https://…")] },
};

function secret(name: string, label: string, placeholder: string): Field {
  return { name, label, secret: true, placeholder };
}

export function kindTitle(kind: string): string {
  return KINDS[kind]?.title ?? kind;
}
