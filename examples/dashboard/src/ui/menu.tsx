/** A button with something under it. Escape and a click elsewhere close it. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

interface Props {
  label: ComponentChildren;
  name: string;
  class?: string;
  children: (close: () => void) => ComponentChildren;
}

export function Menu({ label, name, class: extra = "", children }: Props) {
  const [open, setOpen] = useState(false);
  const element = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (!open) return;
    element.current?.querySelector<HTMLElement>(".menu-body :is(input, button, a)")?.focus();
    const outside = (event: Event) => element.current?.contains(event.target as Node) || setOpen(false);
    document.addEventListener("pointerdown", outside);
    return () => document.removeEventListener("pointerdown", outside);
  }, [open]);
  const close = () => {
    setOpen(false);
    button.current?.focus();
  };
  return (
    <div class={`menu ${extra}`} ref={element} onKeyDown={(event) => event.key === "Escape" && open && (event.stopPropagation(), close())}>
      <button ref={button} type="button" aria-label={name} aria-expanded={open} onClick={() => setOpen(!open)}>
        {label}
      </button>
      {open && <div class="menu-body">{children(close)}</div>}
    </div>
  );
}
