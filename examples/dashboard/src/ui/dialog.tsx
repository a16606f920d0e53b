import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Icon, icons } from "./icons.tsx";

interface Props {
  title: string;
  /** Left out if it cannot be closed. */
  onClose?: () => void;
  children: ComponentChildren;
}

/** The browser's own dialog keeps the focus inside and gives it back afterwards. */
export function Dialog({ title, onClose, children }: Props) {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = element.current!;
    const before = document.activeElement;
    dialog.showModal();
    return () => {
      dialog.close();
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={element}
      aria-label={title}
      onCancel={(event) => {
        event.preventDefault();
        onClose?.();
      }}
      onMouseDown={(event) => event.target === element.current && onClose?.()}
    >
      <header>
        <h2>{title}</h2>
        {onClose && (
          <button type="button" class="ghost icon-only" aria-label="Close" onClick={onClose}>
            <Icon of={icons.X} />
          </button>
        )}
      </header>
      <div class="dialog-body">{children}</div>
    </dialog>
  );
}
