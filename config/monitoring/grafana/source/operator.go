// The operator's dashboard: "is it us?" first, then a row for each part that it could be.

package main

import (
	"fmt"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// m is a metric of the proxy's, of the chosen copies, with more matchers.
func m(name string, matchers ...string) string {
	all := append([]string{`job=~"$job"`, `instance=~"$copy"`}, matchers...)
	return "mimir_tenant_proxy_" + name + "{" + strings.Join(all, ",") + "}"
}

func rate(name string, matchers ...string) string {
	return "rate(" + m(name, matchers...) + "[$__rate_interval])"
}

func sum(by, name string, matchers ...string) string {
	if by == "" {
		return "sum(" + rate(name, matchers...) + ")"
	}
	return "sum by (" + by + ") (" + rate(name, matchers...) + ")"
}

func quantile(q float64, by, name string, matchers ...string) string {
	labels := "le"
	if by != "" {
		labels += ", " + by
	}
	return fmt.Sprintf("histogram_quantile(%v, %s)", q, sum(labels, name+"_bucket", matchers...))
}

// mean is of a histogram, as long as it counts at all.
func mean(name string) string {
	return sum("", name+"_sum") + " / " + sum("", name+"_count")
}

func operator() *dashboard.DashboardBuilder {
	built := dashboard.NewDashboardBuilder("mimir-tenant-proxy: operator").
		Uid("mimir-tenant-proxy-operator").
		Description("Is it us? And if it is, which part? Each panel's description is the question that it answers.").
		Tags([]string{"mimir-tenant-proxy"}).
		Time("now-6h", "now").Refresh("1m").Timezone("browser").
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Editable().
		WithVariable(dataSources()).
		WithVariable(values("job", "Job", "label_values(mimir_tenant_proxy_build_info, job)")).
		WithVariable(values("copy", "Copy", `label_values(mimir_tenant_proxy_build_info{job=~"$job"}, instance)`).
			Multi(true).IncludeAll(true).AllValue(".*"))
	for _, row := range operatorRows() {
		built.WithRow(dashboard.NewRowBuilder(row.title))
		for _, panel := range row.panels {
			built.WithPanel(panel)
		}
	}
	return built
}

type row struct {
	title  string
	panels []cog.Builder[dashboard.Panel]
}

func operatorRows() []row {
	failed := `outcome="failed"`
	first := []cog.Builder[dashboard.Panel]{
		panel{title: "Copies ready", question: "Does every copy accept requests? Compare with the number that you run.",
			width: 3, critical: 1, below: true, none: "0",
			queries: []query{{"sum(" + m("ready") + ")", "ready"}}}.stat(),
		panel{title: "Failed share", question: "Is it us? The share of requests that fail because something is broken: the proxy, its database, the key set, or no usable Mimir. Refusals do not count.",
			unit: "percentunit", width: 3, warning: 0.01, critical: 0.05,
			queries: []query{{sum("", "requests_total", failed) + " / " + sum("", "requests_total"), "failed"}}}.stat(),
		panel{title: "Mimir's 5xx", question: "Is it Mimir? The share of requests that Mimir itself answers with a 5xx, which passes unchanged.",
			unit: "percentunit", width: 3, warning: 0.01, critical: 0.05,
			queries: []query{{sum("", "requests_total", `outcome="forwarded"`, `reason="5xx"`) + " / " + sum("", "requests_total"), "5xx"}}}.stat(),
		panel{title: "p99 of pushes", question: "Are writes slow? 99 of 100 are faster.",
			unit: "s", width: 3, warning: 2, critical: 10,
			queries: []query{{quantile(0.99, "", "request_duration_seconds", `surface=~"push|otlp"`), "p99"}}}.stat(),
		panel{title: "p99 of queries", question: "Are reads slow? 99 of 100 are faster.",
			unit: "s", width: 3, warning: 5, critical: 30,
			queries: []query{{quantile(0.99, "", "request_duration_seconds", `surface="query"`), "p99"}}}.stat(),
		panel{title: "Ejected instances", question: "Does every instance of Mimir get requests? The most that one copy has ejected.",
			width: 3, warning: 1, critical: 2,
			queries: []query{{"max(" + m("upstream_instances_ejected") + ")", "ejected"}}}.stat(),
		panel{title: "Key set age", question: "Can tokens be verified? Fetched every five minutes; at auth.jwks_max_age (24 h) every user gets 503.",
			unit: "s", width: 3, warning: 1800, critical: 43200, none: "no key set",
			queries: []query{{"max(" + m("key_set_age_seconds") + ")", "age"}}}.stat(),
		panel{title: "Database", question: "Do changes in the database arrive at once, on every copy?",
			width: 3, critical: 1, below: true, none: "none", words: map[string]string{"0": "away", "1": "listening"},
			queries: []query{{"min(" + m("database_listening") + ")", "listening"}}}.stat(),

		panel{title: "Requests by outcome", question: "What becomes of requests? failed: something is broken. rejected: refused on purpose.",
			unit: "reqps", width: 12, stacked: true,
			colours: "requests",
			queries: []query{{sum("outcome", "requests_total"), "{{outcome}}"}}}.lines(),
		panel{title: "Failures by surface and reason", question: "What is broken, and for whom? docs/reference/reasons.md has what to do about each reason.",
			unit: "reqps", width: 12,
			queries: []query{{"topk(10, " + sum("surface, reason", "requests_total", failed) + ")", "{{surface}} {{reason}}"}}}.lines(),
	}
	surfaces := []cog.Builder[dashboard.Panel]{
		panel{title: "Requests by surface", question: "Where is the load?",
			unit: "reqps", width: 8,
			colours: "surfaces",
			queries: []query{{sum("surface", "requests_total"), "{{surface}}"}}}.lines(),
		panel{title: "p99 by surface", question: "Which surface is slower than it was? From the head of the request to the last byte of the answer.",
			unit: "s", width: 8,
			colours: "surfaces",
			exemplars: true,
			queries: []query{{quantile(0.99, "surface", "request_duration_seconds"), "{{surface}}"}}}.lines(),
		panel{title: "Median by surface", question: "Is it slow for everybody, or only at the end of the tail?",
			unit: "s", width: 8,
			colours: "surfaces",
			exemplars: true,
			queries: []query{{quantile(0.5, "surface", "request_duration_seconds"), "{{surface}}"}}}.lines(),
		panel{title: "Refusals by reason", question: "What is refused most, and why? Log: the same reason; runbook: refusals.md.",
			unit: "reqps", width: 12,
			queries: []query{{"topk(10, " + sum("reason", "requests_total", `outcome="rejected"`) + ")", "{{reason}}"}}}.lines(),
		panel{title: "Mimir's answers", question: "What does Mimir answer? A 4xx is mostly a sender's mistake: late samples, limits.",
			unit: "reqps", width: 12, stacked: true,
			queries: []query{{sum("reason", "requests_total", `outcome="forwarded"`), "{{reason}}"}}}.lines(),
		panel{title: "Bytes received", question: "How much do clients send?",
			unit: "Bps", width: 12,
			colours: "surfaces",
			queries: []query{{sum("surface", "received_bytes_total"), "{{surface}}"}}}.lines(),
		panel{title: "Bytes sent", question: "How much do clients get?",
			unit: "Bps", width: 12,
			colours: "surfaces",
			queries: []query{{sum("surface", "sent_bytes_total"), "{{surface}}"}}}.lines(),
	}
	upstreams := []cog.Builder[dashboard.Panel]{
		panel{title: "Instances", question: "How many instances does each copy know, and how many of them get no requests?",
			width: 8,
			queries: []query{
				{"max by (instance) (" + m("upstream_instances") + ")", "known to {{instance}}"},
				{"max by (instance) (" + m("upstream_instances_ejected") + ")", "ejected by {{instance}}"},
			}}.lines(),
		panel{title: "In flight by instance of Mimir", question: "Is one instance slower than the others? It has more in flight.",
			width:   8,
			queries: []query{{"sum by (exported_instance) (" + m("upstream_instance_in_flight") + ")", "{{exported_instance}}"}}}.lines(),
		panel{title: "Requests by instance of Mimir", question: "Is the load spread evenly?",
			unit: "reqps", width: 8,
			queries: []query{{sum("exported_instance", "upstream_instance_requests_total"), "{{exported_instance}}"}}}.lines(),
		panel{title: "Ejections and returns", question: "What is wrong with instances, and do they recover or flap?",
			unit: "cps", width: 8,
			queries: []query{
				{sum("reason", "upstream_ejections_total"), "{{reason}}"},
				{sum("", "upstream_returns_total"), "returns"},
			}}.lines(),
		panel{title: "Resends", question: "How many failures did clients not see, and why did they see the others?",
			unit: "cps", width: 8,
			queries: []query{
				{sum("reason", "upstream_retries_total"), "sent again: {{reason}}"},
				{sum("reason", "upstream_retries_refused_total"), "not sent again: {{reason}}"},
			}}.lines(),
		panel{title: "Connections to Mimir", question: "Can instances be found and connected to, and are connections kept?",
			unit: "cps", width: 8,
			colours: "results",
			queries: []query{
				{sum("outcome", "upstream_connects_total"), "{{outcome}}"},
				{sum("", "upstream_resends_total"), "moved: closed by Mimir"},
				{sum("", "upstream_resolve_failures_total"), "lookups failed"},
			}}.lines(),
	}
	identity := []cog.Builder[dashboard.Panel]{
		panel{title: "Key set", question: "For how much longer can tokens be verified on each copy? An age that climbs means that the issuer gives no answer.",
			unit: "s", width: 8, warning: 1800, none: "no key set",
			queries: []query{{m("key_set_age_seconds"), "{{instance}}"}}}.lines(),
		panel{title: "Keys, and fetches of the key set", question: "Does the issuer answer, and with usable keys?",
			width:   8,
			colours: "results",
			queries: []query{
				{"min(" + m("key_set_keys") + ")", "usable keys"},
				{sum("outcome", "key_set_fetches_total") + " * 60", "{{outcome}}"},
			}}.lines(),
		panel{title: "Token cache", question: "Are tokens verified again and again? Many misses with few entries: a client guesses tokens.",
			width:   8,
			colours: "cache",
			queries: []query{
				{sum("outcome", "token_cache_lookups_total"), "{{outcome}}"},
				{"sum(" + m("token_cache_entries") + ")", "entries"},
			}}.lines(),
		panel{title: "Device keys", question: "Does a device need a new key, does a client guess keys, are last uses recorded?",
			unit: "cps", width: 8,
			queries: []query{
				{sum("", "device_key_grace_uses_total"), "expired, in grace"},
				{sum("", "device_key_backoffs_total"), "unknown, delayed"},
				{sum("", "device_key_last_used_failures_total"), "last uses not written"},
			}}.lines(),
		panel{title: "Revocations in force", question: "How many tokens and users are locked out?",
			width: 8, none: "no database",
			queries: []query{{"max(" + m("revocations") + ")", "in force"}}}.lines(),
		panel{title: "Age of the revocations", question: "Does a revocation take effect? Over five minutes it does not.",
			unit: "s", width: 8, warning: 300, none: "no database",
			queries: []query{
				{m("revocations_age_seconds"), "{{instance}}"},
				{sum("", "revocation_read_failures_total"), "failed reads a second"},
			}}.lines(),
	}
	database := []cog.Builder[dashboard.Panel]{
		panel{title: "Notifications arrive", question: "Does each copy hear of changes at once? If not, it reads everything twice a second.",
			width: 8, critical: 1, below: true, none: "no database", words: map[string]string{"0": "away", "1": "listening"},
			queries: []query{{m("database_listening"), "{{instance}}"}}}.states(),
		panel{title: "Lookups by outcome", question: "Is it known who callers are? stale: the database is away. unavailable: callers get 503.",
			unit: "cps", width: 8,
			colours: "lookups",
			queries: []query{{sum("outcome", "directory_lookups_total"), "{{outcome}}"}}}.lines(),
		panel{title: "Database reads, p99", question: "Is the database slow?",
			unit: "s", width: 8,
			queries: []query{{quantile(0.99, "kind", "directory_read_duration_seconds"), "{{kind}}"}}}.lines(),
		panel{title: "Failed reads", question: "Does the database fail?",
			unit: "cps", width: 8,
			queries: []query{{sum("kind", "directory_read_failures_total"), "{{kind}}"}}}.lines(),
		panel{title: "Entries remembered", question: "How much of the database does a copy remember? It is memory.",
			width:   8,
			queries: []query{{"max by (kind) (" + m("directory_entries") + ")", "{{kind}}"}}}.lines(),
		panel{title: "Changes", question: "Does something change the tables all the time?",
			unit: "cps", width: 8,
			queries: []query{{sum("kind", "directory_invalidations_total"), "{{kind}}"}}}.lines(),
	}
	limits := []cog.Builder[dashboard.Panel]{
		panel{title: "Requests in flight", question: "How near is each copy to limits.in_flight?",
			width:   8,
			queries: []query{{m("requests_in_flight"), "{{instance}}"}}}.lines(),
		panel{title: "Refused by a limit", question: "Which limit refuses requests? The access log has the organisation.",
			unit: "reqps", width: 8,
			queries: []query{{sum("reason", "requests_total", `reason=~"requests_in_flight|organisation_share|request_rate|byte_rate|device_.*|overloaded|memory_short|processor_short|upstream_saturated"`), "{{reason}}"}}}.lines(),
		panel{title: "Waits for a permit", question: "Do requests queue, and for how long?",
			width: 8,
			queries: []query{
				{sum("", "permit_wait_seconds_count"), "waits a second"},
				{mean("permit_wait_seconds"), "mean wait, seconds"},
			}}.lines(),
		panel{title: "Upload buffer", question: "How much memory do slow uploads take?",
			unit: "bytes", width: 12,
			queries: []query{{m("upload_buffer_bytes"), "{{instance}}"}}}.lines(),
		panel{title: "Slow uploads without room in the buffer", question: "Do slow uploads hold slots because the upload buffer is full?",
			unit: "cps", width: 12,
			queries: []query{{sum("", "uploads_without_buffer_total"), "bodies"}}}.lines(),
		panel{title: "Who is over a limit", question: "Is it one organisation or device, or many? /admin/limits names them.",
			width: 8,
			queries: []query{
				{m("limited_organisations"), "organisations, {{instance}}"},
				{m("limited_devices"), "devices, {{instance}}"},
			}}.lines(),
		panel{title: "Devices that are counted", question: "How many devices have used up some of a limit? From 10,000 of an organisation on, further ones share an account.",
			width:   8,
			queries: []query{{m("device_accounts"), "{{instance}}"}}}.lines(),
		panel{title: "Limits from the database", question: "Are they read, and are all rows limits? Empty if they are not read.",
			width: 8,
			queries: []query{
				{m("limit_rows"), "limits, {{instance}}"},
				{m("limit_rows_invalid"), "invalid rows, {{instance}}"},
				{m("limit_rows_age_seconds"), "seconds since they were read, {{instance}}"},
				{sum("", "limit_row_read_failures_total"), "failures a second"},
			}}.lines(),
		panel{title: "Memory against its limit", question: "How near is each copy to shedding requests? Lists from 70 % on, reads from 80 %, writes from 95 %.",
			unit: "bytes", width: 8,
			queries: []query{
				{m("memory_counted_bytes"), "counted, {{instance}}"},
				{m("memory_limit_bytes"), "limit, {{instance}}"},
			}}.lines(),
		panel{title: "Shedding for memory", question: "What is refused because memory is short? 1: lists, 2: reads as well, 3: writes as well.",
			width:   8,
			queries: []query{{m("shedding"), "{{instance}}"}}}.lines(),
		panel{title: "Lag of workers", question: "Does each copy have the processor that it needs? What is ready waits for it so long.",
			unit: "s", width: 8,
			queries: []query{
				{quantile(0.5, "", "worker_lag_seconds"), "p50"},
				{quantile(0.99, "", "worker_lag_seconds"), "p99"},
			}}.lines(),
	}
	connections := []cog.Builder[dashboard.Panel]{
		panel{title: "Open connections", question: "How many clients are connected? At listen.max_connections silent clients are disconnected for others that wait.",
			width:   8,
			queries: []query{{m("connections"), "{{instance}}"}}}.lines(),
		panel{title: "Connections accepted and ended", question: "Who ends connections, and why? header_timeout and write_timeout: slow clients, or an attack. evicted: the connection limit is reached.",
			unit: "cps", width: 8,
			queries: []query{
				{sum("", "connections_accepted_total"), "accepted"},
				{sum("reason", "connections_ended_total"), "{{reason}}"},
				{sum("", "streams_reset_total"), "streams reset"},
			}}.lines(),
		panel{title: "Memory", question: "How much memory does each copy use? Compare with what its machine gives it.",
			unit: "bytes", width: 8,
			queries: []query{{m("memory_bytes"), "{{instance}}"}}}.lines(),
		panel{title: "TLS handshakes", question: "Do clients get through the handshake? refused: they do not trust the certificate. No data without TLS.",
			unit: "cps", width: 12,
			queries: []query{{sum("outcome", "tls_handshakes_total"), "{{outcome}}"}}}.lines(),
		panel{title: "Certificate expires in", question: "How long is the first of our certificates valid? No data without TLS.",
			unit: "s", width: 12,
			queries: []query{{m("tls_certificate_expiry_timestamp_seconds") + " - time()", "{{instance}}"}}}.lines(),
		panel{title: "Log lines dropped", question: "Is the log complete? Audit lines are lost too.",
			unit: "cps", width: 12,
			queries: []query{{sum("", "log_lines_dropped_total"), "dropped"}}}.lines(),
		panel{title: "Requests not logged", question: "Does a flood leave requests out of the log? /admin/refusals has the most recent ones.",
			unit: "cps", width: 12,
			queries: []query{{sum("reason", "log_lines_suppressed_total"), "{{reason}}"}}}.lines(),
		panel{title: "Traces", question: "How much is traced, and do spans reach the collector? No data where traces are off.",
			unit: "cps", width: 12,
			queries: []query{
				{sum("outcome", "traces_total"), "traces: {{outcome}}"},
				{sum("", "trace_spans_exported_total"), "spans exported"},
				{sum("reason", "trace_spans_dropped_total"), "spans dropped: {{reason}}"}}}.lines(),
		panel{title: "Versions", question: "Which version runs where?",
			width:   12,
			queries: []query{{"count by (version, commit) (" + m("build_info") + ")", ""}}}.rows("copies", "version", "commit"),
		panel{title: "Configuration", question: "Do all copies run the configuration that they were given? 0: what was read last is not used.",
			width:   12,
			queries: []query{{m("config_last_reload_successful"), "{{instance}}"}}}.lines(),
		panel{title: "Configurations", question: "Do all copies run the same configuration?",
			width:   6,
			queries: []query{{"count(count_values(\"hash\", " + m("config_hash") + "))", "different"}}}.lines(),
		panel{title: "Age of the configuration", question: "How long ago was it last read with success?",
			unit: "s", width: 6,
			queries: []query{{"time() - " + m("config_last_reload_success_timestamp_seconds"), "{{instance}}"}}}.lines(),
	}
	rules := []cog.Builder[dashboard.Panel]{
		panel{title: "Leaders", question: "Does exactly one copy write alert rules?",
			width: 4, warning: 1, critical: 1, below: true,
			queries: []query{{"sum(" + m("rules_leader") + ")", "leaders"}}}.stat(),
		panel{title: "Not working", question: "How many rules are not evaluated, or not in Mimir, without their authors' fault?",
			width: 4, warning: 1, critical: 10,
			queries: []query{{"sum(" + m("rules_rules", `state=~"pending|error|failing"`) + ")", "rules"}}}.stat(),
		panel{title: "Deletions held", question: "Does a deletion of rules wait for a confirmation?",
			width: 4, warning: 1,
			queries: []query{{"sum(" + m("rules_guards_held") + ")", "held"}}}.stat(),
		panel{title: "Tenants failing", question: "For how many tenants can rules not be written?",
			width: 4, warning: 1, critical: 10,
			queries: []query{{"max(" + m("rules_tenants_failing") + ")", "tenants"}}}.stat(),
		panel{title: "Last full resync", question: "When was everything compared last?",
			unit: "s", width: 4, warning: 900, critical: 1800,
			queries: []query{{"time() - max(" + m("rules_full_resync_timestamp_seconds") + ")", "ago"}}}.stat(),
		panel{title: "Changes of leadership", question: "Does the leadership move all the time? In the last hour.",
			width: 4, warning: 2, critical: 10,
			queries: []query{{"sum(increase(" + m("rules_leaderships_total") + "[1h]))", "changes"}}}.stat(),
		panel{title: "Rules by state", question: "Which alert rules work? live: seen evaluated. failing: not evaluated, or without success. invalid: its author has to change it.",
			width: 8, stacked: true,
			colours: "states",
			queries: []query{{"sum by (state) (" + m("rules_rules") + ")", "{{state}}"}}}.lines(),
		panel{title: "Reconciles by outcome", question: "Do reconciles succeed?",
			unit: "cps", width: 8,
			colours: "reconciles",
			queries: []query{{sum("outcome", "rules_reconciles_total"), "{{outcome}}"}}}.lines(),
		panel{title: "From a change to Mimir, p99", question: "How long does a change of a rule take to be stored in Mimir?",
			unit: "s", width: 8, warning: 5,
			queries: []query{
				{quantile(0.99, "", "rules_lag_seconds"), "lag"},
				{quantile(0.99, "", "rules_reconcile_duration_seconds"), "one reconcile"},
				{quantile(0.99, "", "rules_full_resync_duration_seconds"), "a full resync"},
			}}.lines(),
		panel{title: "Readings of evaluation", question: "Is it known whether Mimir evaluates the rules?",
			unit: "cps", width: 8,
			colours: "results",
			queries: []query{{sum("outcome", "rules_health_reads_total"), "{{outcome}}"}}}.lines(),
		panel{title: "Writes to the ruler, and what failed", question: "Does something else write in the namespace? Can statuses be written?",
			unit: "cps", width: 8,
			queries: []query{
				{sum("kind", "rules_group_writes_total"), "groups: {{kind}}"},
				{sum("", "rules_full_resync_failures_total"), "full resyncs failed"},
				{sum("", "rules_status_write_failures_total"), "statuses not written"},
			}}.lines(),
		panel{title: "Tenants not reconciled for longest", question: "Whose rules were not reconciled for long?",
			unit: "s", width: 8, warning: 1800,
			queries: []query{{"topk(10, time() - max by (tenant) (" + m("rules_tenant_success_timestamp_seconds") + "))", "{{tenant}}"}}}.bars(),
	}
	channels := []cog.Builder[dashboard.Panel]{
		panel{title: "Channels held", question: "Does a change of channels wait for a confirmation?",
			width: 8, warning: 1,
			queries: []query{{"max(" + m("channels_held") + ")", "held"}}}.stat(),
		panel{title: "Organisations failing", question: "For how many organisations can channels not be written?",
			width: 8, warning: 1, critical: 10,
			queries: []query{{"max(" + m("channels_failing") + ")", "organisations"}}}.stat(),
		panel{title: "Last full resync of channels", question: "When were all channels compared last?",
			unit: "s", width: 8, warning: 900, critical: 1800,
			queries: []query{{"time() - max(" + m("channels_full_resync_timestamp_seconds") + ")", "ago"}}}.stat(),
		panel{title: "Channels by state", question: "Which notification channels work?",
			width: 12, stacked: true,
			colours: "states",
			queries: []query{{"sum by (state) (" + m("channels_channels") + ")", "{{state}}"}}}.lines(),
		panel{title: "Reconciles of channels", question: "Do reconciles succeed, and do tests arrive?",
			unit: "cps", width: 12,
			colours: "reconciles",
			queries: []query{
				{sum("outcome", "channels_reconciles_total"), "{{outcome}}"},
				{sum("outcome", "channels_tests_total"), "tests: {{outcome}}"},
			}}.lines(),
		panel{title: "From a change to Mimir, p99", question: "How long does a change of a channel take? Mimir loads it within its poll interval.",
			unit: "s", width: 12, warning: 5,
			queries: []query{
				{quantile(0.99, "", "channels_lag_seconds"), "lag"},
				{quantile(0.99, "", "channels_reconcile_duration_seconds"), "one reconcile"},
			}}.lines(),
		panel{title: "Writes to the Alertmanager, and what failed", question: "Does something else write configurations? Can everything be compared?",
			unit: "cps", width: 12,
			queries: []query{
				{sum("", "channels_writes_total"), "configurations"},
				{sum("", "channels_full_resync_failures_total"), "full resyncs failed"},
			}}.lines(),
	}
	events := []cog.Builder[dashboard.Panel]{
		panel{title: "Open alert events", question: "How many alerts fire, and how many devices are silent?",
			width:   8,
			queries: []query{{"sum by (kind) (" + m("alert_events_open") + ")", "{{kind}}"}}}.lines(),
		panel{title: "Messages of the ruler", question: "Do alerts of Mimir's ruler arrive here?",
			unit: "cps", width: 8,
			queries: []query{{sum("outcome", "alert_events_posts_total"), "{{outcome}}"}}}.lines(),
		panel{title: "Alerts received and written", question: "Do alerts become rows?",
			unit: "cps", width: 8,
			queries: []query{
				{sum("state", "alert_events_received_total"), "{{state}}"},
				{sum("", "alert_events_written_total"), "written"},
				{sum("reason", "alert_events_dropped_total"), "dropped: {{reason}}"},
			}}.lines(),
		panel{title: "Events begun and ended", question: "Does an alert flap? Both rise fast.",
			unit: "cps", width: 8,
			queries: []query{{sum("kind", "alert_events_changes_total"), "{{kind}}"}}}.lines(),
		panel{title: "Waiting to be written", question: "Does the database keep up with alerts?",
			width: 8,
			queries: []query{
				{m("alert_events_pending"), "{{instance}}"},
				{sum("", "alert_events_write_failures_total"), "failed batches a second"},
			}}.lines(),
		panel{title: "From firing to its row, p90", question: "How late does a page show an alert?",
			unit: "s", width: 8, warning: 60,
			queries: []query{{quantile(0.9, "", "alert_events_lag_seconds"), "lag"}}}.lines(),
	}
	mimir := []cog.Builder[dashboard.Panel]{
		panel{title: "Notifications by integration", question: "What does Mimir's Alertmanager send, and to which kind of service? Mimir's own metrics: scrape Mimir too.",
			unit: "cps", width: 8, none: "Mimir is not scraped",
			queries: []query{{"sum by (integration) (rate(cortex_alertmanager_notification_requests_total[$__rate_interval]))", "{{integration}}"}}}.lines(),
		panel{title: "Notifications that fail", question: "Do notifications arrive? The share of attempts that fail.",
			unit: "percentunit", width: 8, warning: 0.1, critical: 0.5, none: "Mimir is not scraped",
			queries: []query{
				// A service that never failed has no series of failures.
				{"(sum by (integration) (rate(cortex_alertmanager_notification_requests_failed_total[$__rate_interval])) or 0 * sum by (integration) (rate(cortex_alertmanager_notification_requests_total[$__rate_interval]))) / sum by (integration) (rate(cortex_alertmanager_notification_requests_total[$__rate_interval]))", "{{integration}}"},
			}}.lines(),
		panel{title: "Alerts from the ruler", question: "Do alerts get from the ruler to the Alertmanager and to the proxy?",
			unit: "cps", width: 8, none: "Mimir is not scraped",
			queries: []query{
				{"sum by (alertmanager) (rate(cortex_prometheus_notifications_sent_total[$__rate_interval]))", "sent to {{alertmanager}}"},
				{"sum by (alertmanager) (rate(cortex_prometheus_notifications_errors_total[$__rate_interval]))", "failed: {{alertmanager}}"},
			}}.lines(),
	}
	return []row{
		{"Is it us?", first},
		{"Surfaces", surfaces},
		{"Mimir's instances", upstreams},
		{"Tokens, keys and revocations", identity},
		{"Database", database},
		{"Limits", limits},
		{"Connections, memory, log and versions", connections},
		{"Alert rules", rules},
		{"Notification channels", channels},
		{"Alert events", events},
		{"Notifications (Mimir's own metrics)", mimir},
	}
}
