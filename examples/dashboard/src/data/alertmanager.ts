/** Alertmanager's API v2, as Mimir serves it through the proxy. */
import type { Labels } from "./prometheus.ts";
import type { Proxy } from "./proxy.ts";

export interface Matcher {
  name: string;
  value: string;
  isRegex: boolean;
  isEqual: boolean;
}
export interface ManagedAlert {
  fingerprint: string;
  labels: Labels;
  annotations: Labels;
  startsAt: string;
  updatedAt: string;
  receivers: { name: string }[];
  status: { state: "active" | "suppressed" | "unprocessed"; silencedBy: string[]; inhibitedBy: string[]; mutedBy?: string[] };
}
export interface AlertGroup {
  labels: Labels;
  receiver: { name: string };
  alerts: ManagedAlert[];
}
export interface Silence {
  id: string;
  matchers: Matcher[];
  startsAt: string;
  endsAt: string;
  createdBy: string;
  comment: string;
  status: { state: "active" | "pending" | "expired" };
}

const API = "/alertmanager/api/v2";

export class Alertmanager {
  constructor(
    private readonly proxy: Proxy,
    readonly organisation: string,
  ) {}

  groups(signal?: AbortSignal): Promise<AlertGroup[]> {
    return this.get("alerts/groups", signal);
  }

  silences(signal?: AbortSignal): Promise<Silence[]> {
    return this.get("silences", signal);
  }

  async silence(matchers: Matcher[], endsAt: Date, comment: string): Promise<string> {
    // The proxy puts the caller's own identity in the place of createdBy.
    const json = { matchers, startsAt: new Date().toISOString(), endsAt: endsAt.toISOString(), comment, createdBy: "" };
    const { silenceID } = await this.proxy.request<{ silenceID: string }>(`${API}/silences`, {
      organisation: this.organisation,
      json,
    });
    return silenceID;
  }

  endSilence(id: string): Promise<unknown> {
    return this.proxy.request(`${API}/silence/${encodeURIComponent(id)}`, {
      organisation: this.organisation,
      method: "DELETE",
    });
  }

  private get<T>(path: string, signal?: AbortSignal): Promise<T> {
    return this.proxy.request<T>(`${API}/${path}`, { organisation: this.organisation, signal });
  }
}
