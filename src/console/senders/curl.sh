# curl.sh
curl --fail-with-body --user "hub-17:$DEVICE_KEY" https://metrics.example.com/otlp/v1/metrics \
  --header 'Content-Type: application/json' --data-binary '{"resourceMetrics": [{
    "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "hub-17"}}]},
    "scopeMetrics": [{"metrics": [{"name": "hub_hello", "gauge": {"dataPoints": [
      {"asDouble": 1, "timeUnixNano": "'"$(date +%s)"'000000000"}]}}]}]}]}'
