//! The process's metrics recorder: counters and gauges of the Prometheus exporter, and histograms with fixed buckets.
//!
//! The exporter's own histograms keep each sample until a scrape or its upkeep, 24 bytes each; ours keep only counts.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusHandle, PrometheusRecorder};

use super::help;
use super::histogram::Histograms;

/// Makes the metrics that the process records.
pub(super) struct Recorder {
    exporter: PrometheusRecorder,
    histograms: Arc<Histograms>,
}

/// Reads the metrics that the process has recorded. Cheap to clone.
#[derive(Clone)]
pub struct MetricsHandle {
    exporter: PrometheusHandle,
    histograms: Arc<Histograms>,
}

impl Recorder {
    pub(super) fn new(exporter: PrometheusRecorder) -> Self {
        Self { exporter, histograms: Arc::default() }
    }
    pub(super) fn handle(&self) -> MetricsHandle {
        MetricsHandle { exporter: self.exporter.handle(), histograms: self.histograms.clone() }
    }
}

impl MetricsHandle {
    /// All metrics in the Prometheus exposition format, version 0.0.4.
    pub fn render(&self) -> String {
        let mut text = self.exporter.render();
        self.histograms.render(help::of_histogram, &mut text);
        text
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_counter(name, unit, description);
    }
    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_gauge(name, unit, description);
    }
    /// Does nothing: `help` lists the descriptions.
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.exporter.register_counter(key, metadata)
    }
    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.exporter.register_gauge(key, metadata)
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.histograms.get(key))
    }
}
