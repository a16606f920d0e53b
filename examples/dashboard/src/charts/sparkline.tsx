/** A small line without axes. Gaps stay gaps. */
interface Props {
  values: (number | null)[];
  width?: number;
  height?: number;
  label: string;
}

export function Sparkline({ values, width = 120, height = 28, label }: Props) {
  const known = values.filter((value) => value !== null);
  const [min, max] = [Math.min(...known), Math.max(...known)];
  const x = (at: number) => ((at / Math.max(1, values.length - 1)) * (width - 2) + 1).toFixed(1);
  const y = (value: number) => (height - 2 - ((value - min) / (max - min || 1)) * (height - 4)).toFixed(1);
  let path = "";
  values.forEach((value, at) => {
    if (value === null) return;
    const goesOn = at > 0 && values[at - 1] !== null;
    path += `${goesOn ? "L" : "M"}${x(at)} ${y(value)}`;
  });
  return (
    <svg class="sparkline" width={width} height={height} viewBox={`0 0 ${width} ${height}`} role="img" aria-label={label}>
      <path d={path} fill="none" stroke="currentColor" stroke-width="1.5" />
    </svg>
  );
}
