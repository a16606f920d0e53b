import { tokenAt } from "../promql/token.ts";
import { sentence } from "../ui/states.tsx";
import { faultsOf, named } from "./reason.ts";

/** An expression, and what the proxy says of its rule, under the characters that it is about. */
export function FaultyExpression({ expr, reason }: { expr: string; reason: string }) {
  const faults = faultsOf(reason, expr);
  const at = faults.find((fault) => fault.at !== null)?.at ?? null;
  const [from, to] = at === null ? [0, 0] : tokenAt(expr, at);
  return (
    <>
      <code class="expr">
        {expr.slice(0, from)}
        {to > from && <mark class="fault">{expr.slice(from, to)}</mark>}
        {expr.slice(to)}
      </code>
      {faults.map((fault) => <span key={fault.words} class="reason">{sentence(named(fault))}</span>)}
    </>
  );
}
