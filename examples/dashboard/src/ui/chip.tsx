/** A state as a word with a shape and a colour. */
import type { IconNode } from "lucide";
import { Icon, icons } from "./icons.tsx";

export type Meaning = "ok" | "warning" | "critical" | "neutral";

const SHAPE: Record<Meaning, IconNode> = {
  ok: icons.CircleCheck,
  warning: icons.TriangleAlert,
  critical: icons.CircleAlert,
  neutral: icons.CircleOff,
};

interface Props {
  meaning: Meaning;
  icon?: IconNode;
  title?: string;
  children: string;
}

export function Chip({ meaning, icon, title, children }: Props) {
  return (
    <span class={`chip ${meaning}`} title={title}>
      <Icon of={icon ?? SHAPE[meaning]} size={13} />
      {children}
    </span>
  );
}
