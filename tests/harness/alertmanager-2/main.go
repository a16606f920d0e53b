// What can be shown of a document for Mimir 2.17's Alertmanager without a Mimir 2.17, which no module proxy
// has: that the Alertmanager of Mimir of May 2025, Grafana's fork, loads the configuration and its templates by
// the very calls that Mimir validates them with (pkg/alertmanager/api.go, validateUserConfig).
//
//	alertmanager-2 check < DOCUMENT
//	alertmanager-2 routes NAME=VALUE... < DOCUMENT
//	alertmanager-2 expand TEMPLATE < DOCUMENT
//
// DOCUMENT is the body of POST /api/v1/alerts. `routes` prints the receivers of an alert with these labels, one a
// line. `expand` prints a template's text for two alerts. An error is one line on stderr, and the exit code 1.
package main

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/dispatch"
	"github.com/prometheus/alertmanager/template"
	"github.com/prometheus/common/model"
	"gopkg.in/yaml.v3"
)

type document struct {
	TemplateFiles      map[string]string `yaml:"template_files"`
	AlertmanagerConfig string            `yaml:"alertmanager_config"`
}

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("usage: alertmanager-2 check | routes | expand"))
	}
	text, err := io.ReadAll(os.Stdin)
	fail(err)
	var given document
	fail(yaml.Unmarshal(text, &given))
	loaded, err := config.Load(given.AlertmanagerConfig)
	fail(err)
	templates := load(given.TemplateFiles)
	switch os.Args[1] {
	case "check":
	case "routes":
		labels := model.LabelSet{}
		for _, pair := range os.Args[2:] {
			name, value, _ := strings.Cut(pair, "=")
			labels[model.LabelName(name)] = model.LabelValue(value)
		}
		for _, route := range dispatch.NewRoute(loaded.Route, nil).Match(labels) {
			fmt.Println(route.RouteOpts.Receiver)
		}
	case "expand":
		fmt.Print(expand(templates, os.Args[2]))
	default:
		fail(fmt.Errorf("unknown command %q", os.Args[1]))
	}
}

func load(files map[string]string) *template.Template {
	directory, err := os.MkdirTemp("", "alertmanager-2-")
	fail(err)
	defer os.RemoveAll(directory)
	var paths []string
	for name, text := range files {
		path := filepath.Join(directory, filepath.Base(name))
		fail(os.WriteFile(path, []byte(text), 0o600))
		paths = append(paths, path)
	}
	templates, err := template.FromGlobs(paths)
	fail(err)
	templates.ExternalURL, err = url.Parse("http://mimir.internal/alertmanager")
	fail(err)
	return templates
}

func expand(templates *template.Template, name string) string {
	alert := func(status, value string) template.Alert {
		return template.Alert{
			Status:       status,
			Labels:       template.KV{"alertname": "Hot", "severity": "critical", "site": value},
			Annotations:  template.KV{"alert_rule_id": "rule-4711", "summary": "It is <hot> & " + value},
			StartsAt:     time.Unix(0, 0),
			GeneratorURL: "http://mimir.internal/graph?g0.expr=up",
		}
	}
	data := &template.Data{
		Receiver:          "receiver",
		Status:            "firing",
		Alerts:            template.Alerts{alert("firing", "<!channel>"), alert("resolved", "b")},
		GroupLabels:       template.KV{"alertname": "Hot"},
		CommonLabels:      template.KV{"alertname": "Hot", "severity": "critical"},
		CommonAnnotations: template.KV{"alert_rule_id": "rule-4711"},
		ExternalURL:       "http://mimir.internal/alertmanager",
	}
	call := "{{ template \"" + name + "\" . }}"
	var text string
	var err error
	if strings.HasSuffix(name, ".html") {
		text, err = templates.ExecuteHTMLString(call, data)
	} else {
		text, err = templates.ExecuteTextString(call, data)
	}
	fail(err)
	return text
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, strings.ReplaceAll(err.Error(), "\n", " "))
		os.Exit(1)
	}
}
