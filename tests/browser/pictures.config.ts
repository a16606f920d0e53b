/** Playwright's configuration for scripts/screenshots: the same browser and stack, other files. */
import base from "./playwright.config.ts";

export default {
  ...base,
  testMatch: /\.pictures\.ts$/,
  projects: [{ name: "pictures", use: { viewport: { width: 1280, height: 800 }, colorScheme: "light" as const } }],
};
