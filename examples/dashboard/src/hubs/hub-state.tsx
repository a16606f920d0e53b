import { Chip } from "../ui/chip.tsx";
import { icons } from "../ui/icons.tsx";
import type { Hub } from "./hubs.ts";

export function HubState({ of: { state } }: { of: Hub }) {
  if (state === "silent") return <Chip meaning="warning">silent</Chip>;
  if (state === "new") return <Chip meaning="neutral" icon={icons.Hourglass}>no data yet</Chip>;
  return <Chip meaning="ok">reports</Chip>;
}
