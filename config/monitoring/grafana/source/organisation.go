// An organisation's dashboard: its own data, read through the proxy with its own credential.

package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func organisation() *dashboard.DashboardBuilder {
	labels := "hub,instance,job,host,device"
	built := dashboard.NewDashboardBuilder("mimir-tenant-proxy: organisation").
		Uid("mimir-tenant-proxy-organisation").
		Description("What one organisation writes, and what its alert rules say. The data source is the proxy, with the organisation's own credential.").
		Tags([]string{"mimir-tenant-proxy"}).
		Time("now-6h", "now").Refresh("1m").Timezone("browser").
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Editable().
		WithVariable(dataSources()).
		WithVariable(dashboard.NewCustomVariableBuilder("by").
			Label("Sender's label").
			Description("The label that tells senders apart.").
			Values(dashboard.StringOrMap{String: &labels}).
			Current(dashboard.VariableOption{
				Selected: pointer(true),
				Text:     dashboard.StringOrArrayOfString{String: pointer("hub")},
				Value:    dashboard.StringOrArrayOfString{String: pointer("hub")},
			})).
		WithVariable(values("metric", "Metric", `label_values({$by!=""}, __name__)`)).
		WithVariable(values("sender", "Senders", `label_values($metric, $by)`).
			Multi(true).IncludeAll(true).AllValue(".+"))
	for _, row := range organisationRows() {
		built.WithRow(dashboard.NewRowBuilder(row.title))
		for _, panel := range row.panels {
			built.WithPanel(panel)
		}
	}
	return built
}

func organisationRows() []row {
	written := []cog.Builder[dashboard.Panel]{
		panel{title: "Senders reporting", question: "How many senders wrote the chosen metric within five minutes?",
			width: 4, none: "0",
			queries: []query{{`count(count by ($by) ($metric{$by=~"$sender"}))`, "reporting"}}}.stat(),
		panel{title: "Silent senders", question: "How many senders wrote within a day, and not within five minutes?",
			width: 4, warning: 1, none: "0",
			queries: []query{{`count(count by ($by) (last_over_time($metric{$by=~"$sender"}[1d])) unless count by ($by) ($metric{$by=~"$sender"})) or vector(0)`, "silent"}}}.stat(),
		panel{title: "Newest sample", question: "Is anything written right now?",
			unit: "s", width: 4, warning: 120, critical: 300,
			queries: []query{{`time() - max(timestamp($metric{$by=~"$sender"}))`, "ago"}}}.stat(),
		panel{title: "Series", question: "How many series does the organisation write? Its limit in Mimir counts them.",
			width:   4,
			queries: []query{{`count({__name__!=""})`, "series"}}}.stat(),
		panel{title: "Metrics", question: "How many names of metrics?",
			width:   4,
			queries: []query{{`count(count by (__name__) ({__name__!=""}))`, "metrics"}}}.stat(),
		panel{title: "Alerts firing", question: "How many alerts fire?",
			width: 4, warning: 1, critical: 10, none: "0",
			queries: []query{{`count(ALERTS{alertstate="firing"}) or vector(0)`, "firing"}}}.stat(),
		panel{title: "$metric", question: "What do the senders measure?",
			width:   16,
			queries: []query{{`avg by ($by) ($metric{$by=~"$sender"})`, "{{$by}}"}}}.lines(),
		panel{title: "Last sample by sender", question: "Which sender is silent, and since when?",
			unit: "s", width: 8, warning: 300, critical: 3600,
			queries: []query{{`sort_desc(time() - (max by ($by) (timestamp($metric{$by=~"$sender"})) or max by ($by) (max_over_time(timestamp($metric{$by=~"$sender"})[1d:5m]))))`, ""}}}.rows("ago", "$by"),
		panel{title: "Samples a minute by sender", question: "Who writes how much of this metric? A sender that drops to zero is away.",
			width:   12,
			queries: []query{{`topk(20, sum by ($by) (count_over_time($metric{$by=~"$sender"}[1m])))`, "{{$by}}"}}}.lines(),
		panel{title: "Largest metrics", question: "Which metrics have most series?",
			width:   12,
			queries: []query{{`topk(15, count by (__name__) ({__name__!=""}))`, "{{__name__}}"}}}.bars(),
	}
	alerts := []cog.Builder[dashboard.Panel]{
		panel{title: "Firing and pending", question: "What fires, and what is about to?",
			width: 12, none: "nothing fires",
			queries: []query{{`count by (alertname, severity, alertstate, $by) (ALERTS)`, ""}}}.rows("alerts", "alertname", "severity", "alertstate", "$by"),
		panel{title: "Firing since", question: "For how long has each rule had an alert? Counted from the moment its condition became true.",
			unit: "s", width: 12, none: "nothing fires",
			queries: []query{{`max by (alertname) (time() - ALERTS_FOR_STATE)`, "{{alertname}}"}}}.bars(),
		panel{title: "States over time", question: "When did each rule fire?",
			width: 24, warning: 1, critical: 2, none: "nothing fires", words: map[string]string{"1": "pending", "2": "firing"},
			queries: []query{{`max by (alertname) (ALERTS{alertstate="pending"} * 1 or ALERTS{alertstate="firing"} * 2)`, "{{alertname}}"}}}.states(),
		panel{title: "Alerts by rule", question: "Does one rule make most of the alerts?",
			width: 12, stacked: true,
			queries: []query{{`count by (alertname) (ALERTS{alertstate="firing"})`, "{{alertname}}"}}}.lines(),
		words("Rules and their state",
			"A rule that does not fire has no series, so its state is not here. It is\n\n"+
				"- in Grafana under *Alerting*, by the same data source,\n"+
				"- in the column `state` of `alert_rule_status`, with the reason,\n"+
				"- in `mimir-tenant-proxy rules diff --organisation ID`.\n", 12),
	}
	return []row{{"What is written", written}, {"Alerts", alerts}}
}
