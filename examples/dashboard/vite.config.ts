import { defineConfig } from "vite";
import { budget } from "./build/budget.ts";
import { pages } from "./build/pages.ts";

export default defineConfig({
  base: "/",
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    target: "es2022",
    // Fonts and icons as files: the Content-Security-Policy has no place for data: addresses.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  plugins: [pages(), budget({ firstLoad: 150_000 })],
});
