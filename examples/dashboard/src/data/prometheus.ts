/** Prometheus' HTTP API, as Mimir serves it through the proxy. */
import type { Window } from "../app/range.ts";
import type { Proxy } from "./proxy.ts";

export type Labels = Record<string, string>;
export interface Sample {
  metric: Labels;
  value: [number, string];
}
export interface Stream {
  metric: Labels;
  values: [number, string][];
}

const API = "/prometheus/api/v1";

export class Prometheus {
  constructor(
    private readonly proxy: Proxy,
    readonly organisation: string,
  ) {}

  async instant(query: string, time?: number, signal?: AbortSignal): Promise<Sample[]> {
    const form = new URLSearchParams({ query });
    if (time) form.set("time", String(time));
    return this.result<Sample>("query", form, signal);
  }

  async range(query: string, { start, end, step }: Window, signal?: AbortSignal): Promise<Stream[]> {
    const form = new URLSearchParams({ query, start: String(start), end: String(end), step: String(step) });
    return this.result<Stream>("query_range", form, signal);
  }

  /** What the ruler evaluates as firing or pending, with its values. */
  async alerts(signal?: AbortSignal): Promise<RulerAlert[]> {
    const answer = await this.proxy.request<{ data: { alerts: RulerAlert[] } }>(`${API}/alerts`, {
      organisation: this.organisation,
      signal,
    });
    return answer.data.alerts;
  }

  private async result<T>(path: string, form: URLSearchParams, signal?: AbortSignal): Promise<T[]> {
    const asked = { organisation: this.organisation, form, signal };
    const { data } = await this.proxy.request<{ data: { resultType: string; result: unknown } }>(`${API}/${path}`, asked);
    if (data.resultType === "scalar") return [{ metric: {}, value: data.result } as T];
    return Array.isArray(data.result) ? (data.result as T[]) : [];
  }
}

export interface RulerAlert {
  labels: Labels;
  annotations: Labels;
  state: "pending" | "firing";
  activeAt: string;
  value: string;
}

/** The same text for the same labels. */
export function identity(labels: Labels): string {
  return JSON.stringify(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** A PromQL string: `"a \"b\""`. JSON's escapes are a subset of Go's. */
export function quote(text: string): string {
  return JSON.stringify(text);
}
