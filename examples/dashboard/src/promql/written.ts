/**
 * Tells what the page writes into an editor from what a person types there. Only the second is reported: a
 * report of what the page wrote would come back as a value, and with somebody typing two values would chase
 * each other without end.
 */
import { Annotation, type EditorState, type Transaction, type TransactionSpec } from "@codemirror/state";

const written = Annotation.define<boolean>();

/** The change that makes the text `value`, or null if it is that already. */
export function write(state: EditorState, value: string): TransactionSpec | null {
  const now = state.doc.toString();
  if (value === now) return null;
  return { changes: { from: 0, to: now.length, insert: value }, annotations: written.of(true) };
}

/** Whether one of the changes came from a person. */
export function isTyped(transactions: readonly Transaction[]): boolean {
  return transactions.some((transaction) => transaction.docChanged && !transaction.annotation(written));
}
