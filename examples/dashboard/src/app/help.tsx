import { Dialog } from "../ui/dialog.tsx";

const KEYS = [
  ["/", "find a hub, a rule or a view"],
  ["?", "this help"],
  ["Esc", "close what is open"],
  ["Ctrl Enter", "run the query that you are writing"],
  ["Ctrl Space", "complete a metric, a label or a function"],
];

export function Help({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keyboard and mouse" onClose={onClose}>
      <dl class="keys">
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt>{key!.split(" ").map((part) => <kbd key={part}>{part}</kbd>)}</dt>
            <dd>{what}</dd>
          </div>
        ))}
        <div>
          <dt>Drag in a chart</dt>
          <dd>show only that time; Back returns</dd>
        </div>
        <div>
          <dt>Click in a legend</dt>
          <dd>hide or show a hub</dd>
        </div>
      </dl>
      <p class="muted">The address holds what you see. Send it to a colleague who is a member.</p>
    </Dialog>
  );
}
