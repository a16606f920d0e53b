// What can be shown of config/mimir/mimir-2.17.yaml without a Mimir 2.17, which no module proxy has: that
// Mimir of May 2025, between 2.16 and 2.17, knows every key of it, and that its four caches work with a
// Redis, by the very client that such a Mimir has.
//
//	mimir-2 DESCRIPTOR PROFILE
//
// DESCRIPTOR is cmd/mimir/config-descriptor.json of that Mimir. One line is printed for each fact; the exit
// code is 1 at the first that is not so.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/go-kit/log"
	"github.com/grafana/dskit/cache"
	"github.com/prometheus/client_golang/prometheus"
	"gopkg.in/yaml.v3"
)

// Where Mimir 2 has its caches.
var caches = [][]string{
	{"frontend", "results_cache"},
	{"blocks_storage", "bucket_store", "index_cache"},
	{"blocks_storage", "bucket_store", "chunks_cache"},
	{"blocks_storage", "bucket_store", "metadata_cache"},
}

// Keys of 2.17.0 that the Mimir of May 2025 does not have yet, by Mimir's CHANGELOG.
var later = map[string]entry{
	// #10816
	"limits.ruler_alertmanager_client_config": {Kind: "block", BlockEntries: []entry{
		{Kind: "field", Name: "alertmanager_url", FieldType: "string"},
	}},
}

type entry struct {
	Kind         string  `json:"kind"`
	Name         string  `json:"name"`
	FieldType    string  `json:"fieldType"`
	BlockEntries []entry `json:"blockEntries"`
}

func main() {
	if len(os.Args) != 3 {
		fail("usage: mimir-2 DESCRIPTOR PROFILE")
	}
	profile := load(os.Args[2])
	var root entry
	check(json.Unmarshal(read(os.Args[1]), &root))
	count := known(root.BlockEntries, profile, "")
	fmt.Printf("keys: all %d are known\n", count)
	for _, path := range caches {
		roundTrip(strings.Join(path, "."), find(profile, path))
	}
}

// As Mimir does it: ${NAME} and ${NAME:default}.
func load(file string) *yaml.Node {
	text := os.Expand(string(read(file)), func(key string) string {
		name, fallback, _ := strings.Cut(key, ":")
		if value := os.Getenv(name); value != "" {
			return value
		}
		return fallback
	})
	var document yaml.Node
	check(yaml.Unmarshal([]byte(text), &document))
	return resolve(document.Content[0])
}

func resolve(node *yaml.Node) *yaml.Node {
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return node
}

func known(entries []entry, node *yaml.Node, path string) int {
	count := 0
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i].Value, resolve(node.Content[i+1])
		at := strings.TrimPrefix(path+"."+key, ".")
		known_ := false
		for _, entry := range entries {
			if entry.Name != key {
				continue
			}
			known_ = true
			if entry.Kind == "block" {
				count += known(entry.BlockEntries, value, at)
			} else {
				typed(at, entry.FieldType, value)
				count++
			}
		}
		if block, ok := later[at]; ok && !known_ {
			count += known(block.BlockEntries, value, at)
			known_ = true
		}
		if !known_ {
			fail("%s is not known", at)
		}
	}
	return count
}

// A value of the wrong type stops Mimir as an unknown key does.
func typed(at, kind string, value *yaml.Node) {
	var err error
	switch kind {
	case "boolean":
		err = value.Decode(new(bool))
	case "int":
		err = value.Decode(new(int64))
	case "float":
		err = value.Decode(new(float64))
	case "duration":
		// Prometheus' durations, with days and years.
		text := strings.NewReplacer("y", "h", "w", "h", "d", "h").Replace(value.Value)
		_, err = time.ParseDuration(text)
	}
	if err != nil {
		fail("%s: %q is no %s", at, value.Value, kind)
	}
}

func find(node *yaml.Node, path []string) *yaml.Node {
	for _, name := range path {
		var next *yaml.Node
		for i := 0; i < len(node.Content); i += 2 {
			if node.Content[i].Value == name {
				next = resolve(node.Content[i+1])
			}
		}
		if next == nil {
			fail("%s is not there", strings.Join(path, "."))
		}
		node = next
	}
	return node
}

func roundTrip(name string, node *yaml.Node) {
	var section struct {
		Backend string                  `yaml:"backend"`
		Redis   cache.RedisClientConfig `yaml:"redis"`
	}
	section.Redis.RegisterFlagsWithPrefix("", flag.NewFlagSet("", flag.PanicOnError))
	check(node.Decode(&section))
	if section.Backend != "redis" {
		fail("%s: backend is %q", name, section.Backend)
	}
	check(section.Redis.Validate())
	client, err := cache.NewRedisClient(log.NewNopLogger(), name, section.Redis, prometheus.NewRegistry())
	check(err)
	defer client.Stop()
	ctx := context.Background()
	largest := bytes.Repeat([]byte("x"), section.Redis.MaxItemSize)
	if err := client.Set(ctx, name+"/largest", largest, time.Minute); err != nil {
		fail("%s: the largest item is refused: %v", name, err)
	}
	found := client.GetMulti(ctx, []string{name + "/largest", name + "/absent"})
	if len(found) != 1 || !bytes.Equal(found[name+"/largest"], largest) {
		fail("%s: the largest item does not come back", name)
	}
	// The client itself leaves out what is larger, so that Redis never sees it.
	_ = client.Set(ctx, name+"/larger", append(largest, 'x'), time.Minute)
	if len(client.GetMulti(ctx, []string{name + "/larger"})) != 0 {
		fail("%s: an item above max_item_size was stored", name)
	}
	check(client.Delete(ctx, name+"/largest"))
	fmt.Printf("%s: %d bytes came back as %s, TLS %v\n", name, len(largest), section.Redis.Username, section.Redis.TLSEnabled)
}

func read(file string) []byte {
	bytes, err := os.ReadFile(file)
	check(err)
	return bytes
}

func check(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func fail(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", arguments...)
	os.Exit(1)
}
