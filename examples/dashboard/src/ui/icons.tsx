/** The icons that are used, from Lucide. They are nodes of data, so nothing is parsed as HTML. */
import {
  ArrowDown, ArrowUp, Bell, BellOff, ChartLine, Check, CircleAlert, CircleCheck, CircleHelp, CircleOff, Clock, Code, Copy, Hourglass,
  type IconNode, Pause, Plus, Radio, RefreshCw, Router, Scale, Search, Send, TriangleAlert, User, X,
} from "lucide";
import { h } from "preact";

export const icons = {
  ArrowDown, ArrowUp, Bell, BellOff, ChartLine, Check, CircleAlert, CircleCheck, CircleHelp, CircleOff, Clock, Code, Copy, Hourglass,
  Pause, Plus, Radio, RefreshCw, Router, Scale, Search, Send, TriangleAlert, User, X,
};

/** Beside a word, which says the same: it is hidden from screen readers. */
export function Icon({ of, size = 16 }: { of: IconNode; size?: number }) {
  return (
    <svg
      class="icon" width={size} height={size} viewBox="0 0 24 24" fill="none" stroke="currentColor"
      stroke-width="2" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"
    >
      {of.map(([tag, attributes], at) => h(tag, { key: at, ...attributes } as Record<string, unknown>))}
    </svg>
  );
}
