/**
 * Prometheus' own PromQL mode in CodeMirror, with completion through the proxy. Loaded when a field for
 * PromQL is first shown.
 *
 * It lives in a shadow root: CodeMirror then adopts its style sheets instead of writing <style> elements,
 * which the page's Content-Security-Policy would refuse.
 */
import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { HighlightStyle, bracketMatching, syntaxHighlighting, syntaxTree } from "@codemirror/language";
import { EditorState, Prec, StateEffect, StateField } from "@codemirror/state";
import { Decoration, type DecorationSet, EditorView, keymap } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { PromQLExtension } from "@prometheus-io/codemirror-promql";
import type { Proxy } from "../data/proxy.ts";
import type { Mark } from "./field.tsx";
import { tokenAt } from "./token.ts";
import { isTyped, write } from "./written.ts";

interface Options {
  value: string;
  label: string;
  readOnly: boolean;
  organisation: string;
  proxy: Proxy;
  onInput: (value: string) => void;
  onSubmit: (value: string) => void;
  onCheck: (ok: boolean) => void;
}

export interface Editor {
  setValue(value: string): void;
  setMark(mark: Mark | null): void;
  destroy(): void;
}

export function createEditor(host: HTMLElement, options: Options): Editor {
  const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
  const promql = new PromQLExtension().setComplete({
    remote: {
      url: "",
      apiPrefix: "/prometheus/api/v1",
      httpMethod: "GET",
      fetchFn: (input, init) => complete(options, String(input), init),
    },
  });
  const submit = (view: EditorView) => {
    options.onSubmit(view.state.doc.toString());
    return true;
  };
  const view = new EditorView({
    root,
    parent: root,
    doc: options.value,
    extensions: [
      EditorView.domEventHandlers({ beforeinput: typeOver }),
      Prec.highest(keymap.of([{ key: "Mod-Enter", run: submit }])),
      promql.asExtension(),
      markField,
      history(),
      bracketMatching(),
      closeBrackets(),
      autocompletion({ icons: false }),
      syntaxHighlighting(highlight),
      theme,
      EditorView.lineWrapping,
      EditorView.contentAttributes.of({ "aria-label": options.label }),
      EditorState.readOnly.of(options.readOnly),
      keymap.of([...completionKeymap, ...closeBracketsKeymap, ...historyKeymap, ...defaultKeymap]),
      EditorView.updateListener.of((update) => {
        if (!update.docChanged) return;
        if (isTyped(update.transactions)) options.onInput(update.state.doc.toString());
        options.onCheck(isWhole(update.state));
      }),
    ],
  });
  options.onCheck(isWhole(view.state));
  return {
    setValue(value) {
      const change = write(view.state, value);
      if (change) view.dispatch(change);
    },
    setMark: (mark) => view.dispatch({ effects: setMark.of(mark) }),
    destroy() {
      promql.destroy();
      view.destroy();
    },
  };
}

function complete({ proxy, organisation }: Options, url: string, init?: RequestInit): Promise<Response> {
  // The proxy does not serve Mimir's flags, and completion asks for them only to know of optional functions.
  if (url.includes("/status/flags")) return Promise.resolve(Response.json({ status: "success", data: {} }));
  return proxy.send(url, "GET", { organisation, ...(init?.signal ? { signal: init.signal } : {}) });
}

/**
 * Typing over selected text. Chromium would give the new text the colours of the old one by a style attribute,
 * which the Content-Security-Policy refuses with a message in the console.
 */
function typeOver(event: InputEvent, view: EditorView): boolean {
  const { main } = view.state.selection;
  if (event.inputType !== "insertText" || !event.data || main.empty || view.composing) return false;
  event.preventDefault();
  const text = event.data;
  const insert = () => view.state.update(view.state.replaceSelection(text), { userEvent: "input.type" });
  const handled = view.state.facet(EditorView.inputHandler).some((handle) => handle(view, main.from, main.to, text, insert));
  if (!handled) view.dispatch(insert());
  return true;
}

/** Whether the text is not empty and can be parsed: only then it is worth a question to the server. */
function isWhole(state: EditorState): boolean {
  let whole = state.doc.toString().trim() !== "";
  syntaxTree(state).iterate({
    enter: (node) => {
      if (node.type.isError) whole = false;
      return whole;
    },
  });
  return whole;
}

const setMark = StateEffect.define<Mark | null>();

/** The mark goes with the first edit: what the server said was about the text before. */
const markField = StateField.define<DecorationSet>({
  create: () => Decoration.none,
  update(marks, transaction) {
    if (transaction.docChanged) marks = Decoration.none;
    for (const effect of transaction.effects) {
      if (!effect.is(setMark)) continue;
      const mark = effect.value;
      const [from, to] = mark ? tokenAt(transaction.newDoc.toString(), mark.at) : [0, 0];
      if (!mark || from === to) marks = Decoration.none;
      else marks = Decoration.set([fault(mark.words).range(from, to)]);
    }
    return marks;
  },
  provide: (field) => EditorView.decorations.from(field),
});

function fault(words: string): Decoration {
  return Decoration.mark({ class: "fault", attributes: { title: words } });
}

const highlight = HighlightStyle.define([
  { tag: tags.name, color: "var(--text)" },
  { tag: [tags.number, tags.modifier], color: "var(--code-number)" },
  { tag: tags.string, color: "var(--code-string)" },
  { tag: [tags.keyword, tags.function(tags.variableName), tags.special(tags.variableName)], color: "var(--code-keyword)" },
  { tag: tags.labelName, color: "var(--code-label)" },
  { tag: tags.comment, color: "var(--muted)" },
  { tag: tags.invalid, color: "var(--critical)" },
]);

const theme = EditorView.theme({
  "&": {
    backgroundColor: "var(--field)", color: "var(--text)", border: "1px solid var(--control)", borderRadius: "6px",
    fontSize: "13px", minHeight: "32px",
  },
  "&.cm-focused": { outline: "2px solid var(--accent)", outlineOffset: "1px" },
  ".cm-content": { fontFamily: "var(--mono)", caretColor: "var(--text)", padding: "6px 0", lineHeight: "20px" },
  ".cm-line": { padding: "0 8px" },
  ".cm-cursor": { borderLeftColor: "var(--text)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground, ::selection": {
    backgroundColor: "var(--accent-wash) !important",
  },
  ".cm-matchingBracket": { backgroundColor: "var(--accent-wash) !important", color: "inherit" },
  ".fault": {
    backgroundColor: "var(--critical-wash)", outline: "1px solid var(--critical)", borderRadius: "2px",
  },
  // The mode's own squiggle is a data: image, which the Content-Security-Policy refuses.
  ".cm-lintRange-error, .cm-lintRange-warning": {
    backgroundImage: "none", borderBottom: "2px dotted var(--critical)", paddingBottom: "0",
  },
  ".cm-lintPoint::after": { borderBottomColor: "var(--critical)" },
  ".cm-tooltip": {
    backgroundColor: "var(--raised)", color: "var(--text)", border: "1px solid var(--line)", borderRadius: "6px",
    boxShadow: "var(--shadow)", overflow: "hidden",
  },
  ".cm-tooltip-autocomplete > ul": { fontFamily: "var(--mono) !important", fontSize: "12px", maxHeight: "200px !important" },
  ".cm-tooltip-autocomplete > ul > li": { padding: "3px 8px !important" },
  ".cm-tooltip-autocomplete > ul > li[aria-selected]": { backgroundColor: "var(--accent) !important", color: "var(--on-accent) !important" },
  ".cm-completionDetail": { fontStyle: "normal", opacity: "0.75", marginLeft: "12px" },
  ".cm-completionMatchedText": { textDecoration: "none", fontWeight: "600" },
  ".cm-diagnostic": { fontFamily: "var(--sans)", fontSize: "12px", padding: "6px 8px", borderLeft: "3px solid var(--critical)" },
});
