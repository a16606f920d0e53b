import { Chip, type Meaning } from "../ui/chip.tsx";
import { icons } from "../ui/icons.tsx";

const MEANING: Record<string, Meaning> = { live: "ok", pending: "neutral", disabled: "neutral", over_limit: "warning", invalid: "critical", error: "critical" };

/** What has become of a channel or of a route. */
export function StatusChip({ state }: { state: string }) {
  const icon = state === "pending" ? { icon: icons.Hourglass } : {};
  return <Chip meaning={MEANING[state] ?? "neutral"} {...icon}>{state === "disabled" ? "off" : state.replace("_", " ")}</Chip>;
}
