import { icons } from "../ui/icons.tsx";

/** The views: the first part of a path, the name, the icon. */
export const VIEWS = [
  ["overview", "Overview", icons.ChartLine],
  ["hubs", "Hubs", icons.Router],
  ["alerts", "Alerts", icons.Bell],
  ["rules", "Rules", icons.Scale],
  ["notifications", "Notifications", icons.Send],
] as const;
