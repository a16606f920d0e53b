//! What the process says about itself: log lines and metrics. The only place that names a metric.
//! Nothing here ever steers what happens to a request.

mod alert_event_metrics;
mod channel_metrics;
mod exemplars;
mod logging;
mod metrics;
#[cfg(test)]
mod reference;
mod rule_metrics;
mod table;
mod trace_metrics;
mod traffic;

pub use alert_event_metrics::AlertEventMetrics;
pub use channel_metrics::ChannelMetrics;
pub use logging::{LogSink, Logging};
pub use metrics::{DirectoryMetrics, Metrics, install_recorder};
pub use rule_metrics::RuleMetrics;
pub use table::{Kind, Label, METRICS, Metric, Values};
pub use trace_metrics::TraceMetrics;
pub use traffic::{SurfaceTraffic, Traffic, TrafficReport};
