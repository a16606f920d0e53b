/** From a position to the characters that a fault there is about, as `[from, to]`. */
export function tokenAt(text: string, at: number): [number, number] {
  if (!text) return [0, 0];
  // A fault at the end is about what is missing after the last character.
  if (at >= text.trimEnd().length) {
    const end = text.trimEnd().length;
    return [Math.max(0, end - 1), Math.max(end, 1)];
  }
  const rest = text.slice(at);
  const token = /^(?:[\w:]+|"(?:[^"\\]|\\.)*"?|[<>=!~]+|\s*\S)/.exec(rest)?.[0] ?? rest[0]!;
  return [at, at + token.length];
}
