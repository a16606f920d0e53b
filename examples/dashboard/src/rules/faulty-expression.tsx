import { tokenAt } from "../promql/token.ts";
import { sentence } from "../ui/states.tsx";
import { faultOf } from "./reason.ts";

/** An expression, and what the proxy says of it, under the characters that it is about. */
export function FaultyExpression({ expr, reason }: { expr: string; reason: string }) {
  if (!reason) return <code class="expr">{expr}</code>;
  const { at, words } = faultOf(reason, expr);
  const [from, to] = at === null ? [0, 0] : tokenAt(expr, at);
  return (
    <>
      <code class="expr">
        {expr.slice(0, from)}
        {to > from && <mark class="fault">{expr.slice(from, to)}</mark>}
        {expr.slice(to)}
      </code>
      <span class="reason">{sentence(words)}</span>
    </>
  );
}
