import { defineConfig } from "@playwright/test";
import { chromium } from "./chromium.ts";

/** Debian's Chromium against one running stack (`target/debug/demo --state`). A spec sets widths and schemes itself. */
const browser = { browserName: "chromium" as const, launchOptions: { executablePath: chromium(), args: ["--no-sandbox"] } };

export default defineConfig({
  testDir: ".",
  outputDir: "out",
  globalSetup: "./stack.ts",
  // All specs share the stack, and two cores are not many.
  workers: 1,
  fullyParallel: false,
  forbidOnly: true,
  // What passes only then is named by scripts/test.
  retries: 1,
  timeout: 30_000,
  expect: { timeout: 10_000 },
  reporter: [["list"]],
  use: { ...browser, screenshot: "only-on-failure", trace: "off", locale: "en-GB", timezoneId: "Europe/Berlin" },
  projects: [{ name: "desktop", use: { viewport: { width: 1280, height: 800 }, colorScheme: "light" } }],
});
