import type { Rule, RuleState, RuleStatus } from "../data/rows.ts";
import { Chip, type Meaning } from "../ui/chip.tsx";
import { icons } from "../ui/icons.tsx";

const MEANING: Record<RuleState, Meaning> = {
  live: "ok",
  stored: "neutral",
  pending: "neutral",
  disabled: "neutral",
  failing: "critical",
  invalid: "critical",
  over_limit: "warning",
  error: "critical",
};
const WORDS: Partial<Record<RuleState, string>> = { over_limit: "over the limit", disabled: "off", stored: "stored" };
const WAITS = new Set<RuleState>(["stored", "pending"]);

export function StateChip({ rule, status }: { rule: Rule; status: RuleStatus | undefined }) {
  const state = status?.state ?? "pending";
  // The switch is known at once; that Mimir has let go of the rule comes after it.
  if (!rule.enabled && state !== "disabled") return <Chip meaning="neutral" icon={icons.Hourglass}>being switched off</Chip>;
  return (
    <span data-state={state}>
      <Chip meaning={MEANING[state]} {...(WAITS.has(state) ? { icon: icons.Hourglass } : {})}>{WORDS[state] ?? state}</Chip>
      {status?.notifies === false && <> <Chip meaning="warning" icon={icons.BellOff}>notifies nobody</Chip></>}
    </span>
  );
}
