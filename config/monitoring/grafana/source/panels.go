// The kinds of panels: each has a question as its description, and one look.

package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/bargauge"
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/text"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// Okabe and Ito's colours, which colour-blind people can tell apart.
const (
	orange    = "#E69F00"
	sky       = "#56B4E9"
	teal      = "#009E73"
	blue      = "#0072B2"
	vermilion = "#D55E00"
	purple    = "#CC79A7"
	grey      = "#999999"
)

type colour struct{ name, colour string }

// What a value of a label means has one colour on every panel.
var colours = map[string][]colour{
	"requests":   {{"forwarded", teal}, {"answered", sky}, {"rejected", orange}, {"failed", vermilion}, {"cancelled", grey}},
	"surfaces":   {{"push", blue}, {"otlp", sky}, {"query", teal}, {"rules", purple}, {"alerts", orange}, {"admin", grey}},
	"results":    {{"succeeded", teal}, {"read", teal}, {"failed", vermilion}},
	"cache":      {{"hit", teal}, {"miss", orange}},
	"lookups":    {{"cached", teal}, {"read", sky}, {"stale", orange}, {"unavailable", vermilion}},
	"reconciles": {{"unchanged", grey}, {"applied", teal}, {"held", orange}, {"failed", vermilion}},
	"states": {
		{"live", teal}, {"stored", sky}, {"pending", orange}, {"invalid", purple}, {"over_limit", blue},
		{"disabled", grey}, {"failing", vermilion}, {"error", vermilion},
	},
}

type query struct {
	expression, legend string
}

// A panel, before it gets its kind.
type panel struct {
	title    string
	question string
	unit     string
	width    uint32
	queries  []query
	// Values from which on it is a warning, and critical. "below" turns them round.
	warning, critical float64
	below             bool
	stacked           bool
	// The largest value that can be, such as 1 for a share; 0 for none.
	max float64
	// Shown if a query has no series.
	none string
	// Which of the colours, by the name of their list.
	colours string
	// Shows exemplars, which lead to traces.
	exemplars bool
	// Names for values.
	words map[string]string
}

func pointer[T any](value T) *T { return &value }

func source() common.DataSourceRef {
	return common.DataSourceRef{Type: pointer("prometheus"), Uid: pointer("${datasource}")}
}

func (p panel) targets(instant, asTable bool) []cog.Builder[variants.Dataquery] {
	var targets []cog.Builder[variants.Dataquery]
	for index, query := range p.queries {
		target := prometheus.NewDataqueryBuilder().
			Datasource(source()).
			Expr(query.expression).
			LegendFormat(query.legend).
			RefId(string(rune('A' + index)))
		if p.exemplars {
			target.Exemplar(true)
		}
		if instant {
			target.Instant()
		} else {
			target.Range()
		}
		if asTable {
			target.Format(prometheus.PromQueryFormatTable)
		}
		targets = append(targets, target)
	}
	return targets
}

func (p panel) thresholds() cog.Builder[dashboard.ThresholdsConfig] {
	steps := []dashboard.Threshold{{Color: teal}}
	if p.below {
		steps = []dashboard.Threshold{{Color: vermilion}}
		if p.warning != 0 {
			steps = append(steps, dashboard.Threshold{Value: pointer(p.critical), Color: orange})
			steps = append(steps, dashboard.Threshold{Value: pointer(p.warning), Color: teal})
		} else {
			steps = append(steps, dashboard.Threshold{Value: pointer(p.critical), Color: teal})
		}
		return dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).Steps(steps)
	}
	if p.warning != 0 {
		steps = append(steps, dashboard.Threshold{Value: pointer(p.warning), Color: orange})
	}
	if p.critical != 0 {
		steps = append(steps, dashboard.Threshold{Value: pointer(p.critical), Color: vermilion})
	}
	return dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).Steps(steps)
}

func (p panel) mappings() []dashboard.ValueMapping {
	if p.words == nil {
		return nil
	}
	options := map[string]dashboard.ValueMappingResult{}
	for value, word := range p.words {
		options[value] = dashboard.ValueMappingResult{Text: pointer(word)}
	}
	return []dashboard.ValueMapping{{ValueMap: &dashboard.ValueMap{
		Type: dashboard.MappingTypeValueToText, Options: options,
	}}}
}

// A number with its history behind it.
func (p panel) stat() cog.Builder[dashboard.Panel] {
	built := stat.NewPanelBuilder().
		Title(p.title).Description(p.question).Datasource(source()).
		Height(4).Span(p.width).Unit(p.unit).
		Targets(p.targets(false, false)).
		Thresholds(p.thresholds()).
		ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdThresholds)).
		ColorMode(common.BigValueColorModeValue).
		GraphMode(common.BigValueGraphModeArea).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"}))
	if p.none != "" {
		built.NoValue(p.none)
	}
	if p.words != nil {
		built.Mappings(p.mappings())
	}
	return built
}

// Lines over time, the legend with last values, largest first.
func (p panel) lines() cog.Builder[dashboard.Panel] {
	built := timeseries.NewPanelBuilder().
		Title(p.title).Description(p.question).Datasource(source()).
		Height(8).Span(p.width).Unit(p.unit).Min(0).
		Targets(p.targets(false, false)).
		LineWidth(1).FillOpacity(8).ShowPoints(common.VisibilityModeNever).
		ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdPaletteClassicByName)).
		Tooltip(common.NewVizTooltipOptionsBuilder().
			Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending).HideZeros(true)).
		Legend(common.NewVizLegendOptionsBuilder().
			DisplayMode(common.LegendDisplayModeTable).Placement(common.LegendPlacementBottom).ShowLegend(true).
			Calcs([]string{"lastNotNull", "max"}).SortBy("Last *").SortDesc(true))
	if p.max != 0 {
		built.Max(p.max)
	}
	if p.stacked {
		built.Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal)).FillOpacity(30)
	}
	if p.none != "" {
		built.NoValue(p.none)
	}
	if p.warning != 0 || p.critical != 0 {
		built.Thresholds(p.thresholds()).
			ThresholdsStyle(common.NewGraphThresholdsStyleConfigBuilder().Mode(common.GraphThresholdsStyleModeDashed))
	}
	for _, fixed := range colours[p.colours] {
		built.OverrideByName(fixed.name, []dashboard.DynamicConfigValue{
			{Id: "color", Value: map[string]string{"mode": "fixed", "fixedColor": fixed.colour}},
		})
	}
	return built
}

// One bar for each series, now.
func (p panel) bars() cog.Builder[dashboard.Panel] {
	return bargauge.NewPanelBuilder().
		Title(p.title).Description(p.question).Datasource(source()).
		Height(8).Span(p.width).Unit(p.unit).Min(0).
		Targets(p.targets(true, false)).
		DisplayMode(common.BarGaugeDisplayModeBasic).
		Orientation(common.VizOrientationHorizontal).
		ShowUnfilled(false).
		ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdFixed).FixedColor(blue)).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"}))
}

// A state for each series over time.
func (p panel) states() cog.Builder[dashboard.Panel] {
	built := statetimeline.NewPanelBuilder().
		Title(p.title).Description(p.question).Datasource(source()).
		Height(8).Span(p.width).
		Targets(p.targets(false, false)).
		MergeValues(true).RowHeight(0.8).FillOpacity(80).
		ShowValue(common.VisibilityModeAuto).
		Thresholds(p.thresholds()).
		ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdThresholds)).
		Legend(common.NewVizLegendOptionsBuilder().
			DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom).ShowLegend(false)).
		Mappings(p.mappings())
	if p.none != "" {
		built.NoValue(p.none)
	}
	return built
}

// A row for each series, now. The columns are its labels in this order, then its value under a name.
func (p panel) rows(value string, labels ...string) cog.Builder[dashboard.Panel] {
	order := map[string]int{}
	for index, label := range labels {
		order[label] = index
	}
	order["Value"] = len(labels)
	built := table.NewPanelBuilder().
		Title(p.title).Description(p.question).Datasource(source()).
		Height(8).Span(p.width).Unit(p.unit).
		Targets(p.targets(true, true)).
		Thresholds(p.thresholds()).
		Footer(common.NewTableFooterOptionsBuilder().Show(false).Reducer([]string{})).
		WithTransformation(dashboard.DataTransformerConfig{Id: "organize", Options: map[string]any{
			"excludeByName": map[string]bool{"Time": true, "__name__": true},
			"indexByName":   order,
			"renameByName":  map[string]string{"Value": value},
		}})
	if p.none != "" {
		built.NoValue(p.none)
	}
	return built
}

func words(title, markdown string, width uint32) cog.Builder[dashboard.Panel] {
	return text.NewPanelBuilder().
		Title(title).Height(8).Span(width).
		Mode(text.TextModeMarkdown).Content(markdown)
}

func dataSources() cog.Builder[dashboard.VariableModel] {
	return dashboard.NewDatasourceVariableBuilder("datasource").
		Label("Data source").Type("prometheus").
		Description("A Prometheus or Mimir that has the metrics.")
}

func values(name, label, of string) *dashboard.QueryVariableBuilder {
	return dashboard.NewQueryVariableBuilder(name).
		Label(label).
		Datasource(source()).
		Query(dashboard.StringOrMap{Map: map[string]any{
			"query": of, "refId": "PrometheusVariableQueryEditor-VariableQuery",
		}}).
		Definition(of).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
		Sort(dashboard.VariableSortAlphabeticalAsc)
}
