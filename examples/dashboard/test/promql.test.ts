import assert from "node:assert/strict";
import { test } from "node:test";
import { EditorState } from "@codemirror/state";
import { isTyped, write } from "../src/promql/written.ts";

test("what the page writes into the editor is not reported as typed, and the text that is there is not written again", () => {
  const state = EditorState.create({ doc: "up" });
  const typed = state.update({ changes: { from: 2, insert: "t" } });
  assert.ok(isTyped([typed]));
  assert.equal(write(typed.state, "upt"), null, "the editor's own text comes back as a value");
  const replaced = typed.state.update(write(typed.state, "down")!);
  assert.equal(replaced.state.doc.toString(), "down");
  assert.ok(!isTyped([replaced]));
  assert.ok(isTyped([replaced, replaced.state.update({ changes: { from: 0, insert: "x" } })]), "both in one update");
});
