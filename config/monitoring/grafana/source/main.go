// Writes the dashboards, and checks dashboards against Grafana's schema.
//
//	grafana-dashboards write DIRECTORY   writes operator.json and organisation.json
//	grafana-dashboards check FILE...     reads files strictly and validates them; prints every fault
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

var dashboards = map[string]func() *dashboard.DashboardBuilder{
	"operator.json":     operator,
	"organisation.json": organisation,
}

// The kinds of panels that panels.go makes.
var kinds = []string{"row", "stat", "timeseries", "bargauge", "state-timeline", "table", "text"}

func main() {
	plugins.RegisterDefaultPlugins()
	if len(os.Args) < 3 {
		fail("usage: grafana-dashboards write DIRECTORY | check FILE...")
	}
	switch os.Args[1] {
	case "write":
		for name, build := range dashboards {
			if err := write(filepath.Join(os.Args[2], name), build()); err != nil {
				fail(fmt.Sprintf("%s: %v", name, err))
			}
		}
	case "check":
		faults := 0
		for _, name := range os.Args[2:] {
			for _, fault := range check(name) {
				fmt.Fprintf(os.Stderr, "%s: %v\n", name, fault)
				faults++
			}
		}
		if faults > 0 {
			os.Exit(1)
		}
	default:
		fail("unknown command " + os.Args[1])
	}
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, message)
	os.Exit(64)
}

func write(name string, builder *dashboard.DashboardBuilder) error {
	built, err := builder.Build()
	if err != nil {
		return err
	}
	// Links of panels need them to be told apart.
	var id uint32
	for _, entry := range built.Panels {
		id++
		number := id
		if entry.Panel != nil {
			entry.Panel.Id = &number
		} else {
			entry.RowPanel.Id = number
		}
	}
	text, err := json.MarshalIndent(built, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(text, '\n'), 0o644)
}

// check returns the faults of a file: what the schema does not know, and values that it does not allow.
func check(name string) (all []error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return []error{err}
	}
	var read dashboard.Dashboard
	for _, err := range []error{read.UnmarshalJSONStrict(text), read.Validate()} {
		// The library returns an empty list of errors for a row, which is no error.
		var faults cog.BuildErrors
		if errors.As(err, &faults) {
			for _, fault := range faults {
				all = append(all, fault)
			}
		} else if err != nil {
			all = append(all, err)
		}
	}
	// The library ignores a panel of a kind that it does not know.
	var raw struct{ Panels []struct{ Type string } }
	if err := json.Unmarshal(text, &raw); err != nil {
		return append(all, err)
	}
	for _, panel := range raw.Panels {
		if !slices.Contains(kinds, panel.Type) {
			all = append(all, fmt.Errorf("unknown kind of panel: %q", panel.Type))
		}
	}
	if len(read.Panels) == 0 {
		all = append(all, errors.New("there are no panels"))
	}
	return all
}
