//! The process's log and its metrics recorder.
//!
//! Each process has one log and one recorder, installed once; a second call gets the handle of the first. Each module
//! records its own metrics; this one sets the histogram buckets, the descriptions, and the metric of the version.

mod help;

pub use help::metrics;

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// Upper bounds of every histogram of seconds: from the 50 µs of the proxy's own work to a minute.
const SECONDS_BUCKETS: [f64; 22] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Upper bounds of counts of events in one commit.
const BATCH_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
/// The interval at which recorded samples are added to their buckets, scraped or not. Otherwise they would accumulate
/// in memory: 24 bytes for each step and each append.
const UPKEEP: Duration = Duration::from_secs(1);

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// The handle of the process's metrics recorder, installed on first use. `None` where the embedding program installed
/// another recorder.
pub fn recorder() -> Option<PrometheusHandle> {
    RECORDER
        .get_or_init(|| {
            let built = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)
                .and_then(|b| b.set_buckets_for_metric(Matcher::Suffix("_batch_events".to_owned()), &BATCH_BUCKETS))
                .and_then(|b| b.install_recorder());
            match built {
                Ok(handle) => {
                    metrics::gauge!("pointsman_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
                    help::describe();
                    metrics_process::Collector::default().describe();
                    Some(handle)
                }
                Err(error) => {
                    tracing::error!(%error, "no metrics: the recorder could not be installed");
                    None
                }
            }
        })
        .clone()
}

/// One scrape: reads the process's own figures, adds samples to their buckets, and returns the exposition text.
pub fn render(handle: &PrometheusHandle) -> String {
    metrics_process::Collector::default().collect();
    handle.run_upkeep();
    handle.render()
}

/// Adds samples to their buckets at an interval. Ends with the process.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// A line for people to read.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// Starts the log, on stderr. `POINTSMAN_LOG` sets what is written (`info`, `pointsman=debug`).
pub fn start_log(format: LogFormat, default_level: &str) {
    let filter = EnvFilter::try_from_env("POINTSMAN_LOG").unwrap_or_else(|_| EnvFilter::new(default_level));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // By default it prints a failed write to stderr, and panics in the caller if that fails too.
        .log_internal_errors(false)
        .with_target(false)
        .with_ansi(colour);
    let installed = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if let Err(error) = installed {
        // A program that embeds this one has installed a log already, which is used.
        tracing::debug!(%error, "the log was installed before");
    }
}
