//! The process's log and its metrics recorder.
//!
//! Each process has one log and one recorder, installed once: a second call of `recorder()` gets the same handle, and
//! one of `start_log()` changes nothing. Each module records its own metrics; this module has the recorder, the
//! descriptions, the metric of the version, and a limit for log lines that could come thousands of times a second.

mod help;
mod histogram;
mod labels;
mod log_throttle;
mod recorder;

pub use help::metrics;
pub use labels::of as labels_of;
pub use log_throttle::LogThrottle;
pub use recorder::MetricsHandle;

use std::io::IsTerminal;
use std::sync::OnceLock;

use metrics_exporter_prometheus::PrometheusBuilder;
use tracing_subscriber::EnvFilter;

use recorder::Recorder;

static RECORDER: OnceLock<Option<MetricsHandle>> = OnceLock::new();

/// The handle of the process's metrics recorder, which is installed on first use. `None` if the embedding program
/// installed another recorder.
pub fn recorder() -> Option<MetricsHandle> {
    RECORDER
        .get_or_init(|| {
            let recorder = Recorder::new(PrometheusBuilder::new().build_recorder());
            let handle = recorder.handle();
            match metrics::set_global_recorder(recorder) {
                Ok(()) => {
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

/// Renders one scrape: reads the process's own figures, and returns the exposition text.
pub fn render(handle: &MetricsHandle) -> String {
    metrics_process::Collector::default().collect();
    handle.render()
}

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people to read.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts the log, on stderr. `POINTSMAN_LOG` sets which events are written (`info`, `pointsman=debug`).
pub fn start_log(format: LogFormat, default_level: &str) {
    let filter = EnvFilter::try_from_env("POINTSMAN_LOG").unwrap_or_else(|_| EnvFilter::new(default_level));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // The default prints the error of a failed write to stderr, and panics in the caller if that fails too.
        .log_internal_errors(false)
        .with_target(false)
        .with_ansi(colour);
    let installed = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if let Err(error) = installed {
        // A program that embeds this one has already installed a log, which is used.
        tracing::debug!(%error, "the log was installed before");
    }
}
