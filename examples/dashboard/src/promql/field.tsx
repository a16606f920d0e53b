/** A field for PromQL. A plain text field until the editor is loaded, with the same text and size. */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { useApp } from "../app/context.ts";
import type { Editor } from "./editor.ts";

export interface Mark {
  at: number;
  words: string;
}

interface Props {
  value: string;
  label: string;
  readOnly?: boolean;
  /** A fault that the server found, under the characters that it is about. */
  mark?: Mark | null;
  onInput: (value: string) => void;
  /** Ctrl-Enter, or Enter in a field of one line. */
  onSubmit?: (value: string) => void;
  /** Whether the text can be parsed. */
  onCheck?: (ok: boolean) => void;
}

export function PromqlField({ value, label, readOnly = false, mark = null, onInput, onSubmit, onCheck }: Props) {
  const { proxy, organisation } = useApp();
  const place = useRef<HTMLDivElement>(null);
  const editor = useRef<Editor | null>(null);
  const [loaded, setLoaded] = useState(false);
  const calls = useRef({ onInput, onSubmit, onCheck });
  calls.current = { onInput, onSubmit, onCheck };
  const text = useRef(value);
  text.current = value;

  useEffect(() => {
    let gone = false;
    // If it cannot be loaded, the plain field stays.
    import("./editor.ts").then(
      ({ createEditor }) => {
        if (gone || !place.current) return;
        editor.current = createEditor(place.current, {
          value: text.current,
          label,
          readOnly,
          organisation: organisation.id,
          proxy,
          onInput: (value) => calls.current.onInput(value),
          onSubmit: (value) => calls.current.onSubmit?.(value),
          onCheck: (ok) => calls.current.onCheck?.(ok),
        });
        setLoaded(true);
      },
      () => undefined,
    );
    return () => {
      gone = true;
      editor.current?.destroy();
      editor.current = null;
      setLoaded(false);
    };
  }, [organisation.id, readOnly]);

  // At the commit, and not after the next paint as an effect: by then more may have been typed, and the value of
  // this render would take it away.
  useLayoutEffect(() => editor.current?.setValue(value), [value]);
  useLayoutEffect(() => editor.current?.setMark(mark), [mark?.at, mark?.words, loaded]);

  return (
    <div class="promql">
      {!loaded && (
        <textarea
          aria-label={label}
          value={value}
          readOnly={readOnly}
          rows={1}
          spellcheck={false}
          onInput={(event) => onInput(event.currentTarget.value)}
        />
      )}
      <div ref={place} hidden={!loaded} />
    </div>
  );
}
