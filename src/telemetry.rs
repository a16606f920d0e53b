//! What the process says about itself: log lines and metrics. The only place that names a metric.
//! Nothing here ever steers what happens to a request.

mod causes;
mod logging;
mod metrics;
mod rule_metrics;

pub use causes::causes;
pub use logging::{LogSink, Logging};
pub use metrics::{DirectoryMetrics, MetricNames, Metrics, install_recorder};
pub use rule_metrics::{RuleMetricNames, RuleMetrics};
