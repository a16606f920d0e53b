/** Prints what a browser loads, compressed, and ends the build if the first load is over its budget. */
import { gzipSync } from "node:zlib";
import type { Plugin } from "vite";

export function budget({ firstLoad }: { firstLoad: number }): Plugin {
  return {
    name: "budget",
    apply: "build",
    generateBundle(_, bundle) {
      const chunks = Object.values(bundle).filter((part) => part.type === "chunk");
      const byName = new Map(chunks.map((chunk) => [chunk.fileName, chunk]));
      const first = new Set<string>();
      const follow = (name: string) => {
        if (first.has(name)) return;
        first.add(name);
        byName.get(name)?.imports.forEach(follow);
      };
      chunks.filter((chunk) => chunk.isEntry).forEach((chunk) => follow(chunk.fileName));
      let total = 0;
      for (const chunk of chunks) {
        const size = gzipSync(chunk.code, { level: 9 }).length;
        if (first.has(chunk.fileName)) total += size;
        console.log(`${first.has(chunk.fileName) ? "first load" : "later     "}  ${kb(size)}  ${chunk.fileName}`);
      }
      console.log(`first load in all: ${kb(total)} of JavaScript (gzip), budget ${kb(firstLoad)}`);
      if (total > firstLoad) this.error(`the first load is ${total - firstLoad} bytes over its budget`);
    },
  };
}

function kb(bytes: number): string {
  return `${(bytes / 1000).toFixed(1)} kB`.padStart(9);
}
