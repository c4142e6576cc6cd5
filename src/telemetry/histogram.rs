//! Histograms with fixed buckets.
//!
//! Always true: recording a sample adds to one bucket and to the sum of the thread's shard and keeps nothing else, so
//! that it takes no lock, allocates nothing after the first sample of the shard, and memory does not grow with the
//! samples; a histogram that is read while samples are recorded may miss the newest ones, and counts none twice.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use metrics::{HistogramFn, Key};

/// Upper bounds of every histogram of seconds: from the 50 µs of the proxy's own work to a minute.
const SECONDS_BUCKETS: [f64; 22] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Upper bounds of counts of events in one commit.
const BATCH_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
const BUCKETS_MAX: usize = 22;

/// Threads that record at the same time seldom share a shard.
const SHARDS: usize = 8;

static THREADS: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static SHARD: Cell<usize> = Cell::new(THREADS.fetch_add(1, Relaxed) % SHARDS);
}

/// One histogram.
pub(super) struct FixedHistogram {
    bounds: &'static [f64],
    /// Made when a thread first records a sample.
    shards: [OnceLock<Box<Shard>>; SHARDS],
}

/// The counts of the threads of one shard. Aligned, so that threads of other shards write to other cache lines.
#[derive(Default)]
#[repr(align(64))]
struct Shard {
    counts: [AtomicU64; BUCKETS_MAX],
    above: AtomicU64,
    /// The bits of a floating-point number.
    sum: AtomicU64,
}

impl FixedHistogram {
    fn new(name: &str) -> Self {
        let bounds: &[f64] = if name.ends_with("_batch_events") { &BATCH_BUCKETS } else { &SECONDS_BUCKETS };
        Self { bounds, shards: Default::default() }
    }

    /// How many samples are at or below each bound, how many there are in all, and their sum.
    fn totals(&self) -> (Vec<u64>, u64, f64) {
        let (mut counts, mut above, mut sum) = (vec![0; self.bounds.len()], 0, 0.0);
        for shard in self.shards.iter().filter_map(OnceLock::get) {
            for (count, of_shard) in counts.iter_mut().zip(&shard.counts) {
                *count += of_shard.load(Relaxed);
            }
            above += shard.above.load(Relaxed);
            sum += f64::from_bits(shard.sum.load(Relaxed));
        }
        let mut below = 0;
        for count in &mut counts {
            below += *count;
            *count = below;
        }
        (counts, below + above, sum)
    }
}

impl HistogramFn for FixedHistogram {
    fn record(&self, value: f64) {
        self.record_many(value, 1);
    }
    fn record_many(&self, value: f64, times: usize) {
        if value.is_nan() {
            return;
        }
        let shard = self.shards[SHARD.with(Cell::get)].get_or_init(Box::default);
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        let counted = if bucket < self.bounds.len() { &shard.counts[bucket] } else { &shard.above };
        counted.fetch_add(times as u64, Relaxed);
        let add = |sum: u64| Some((f64::from_bits(sum) + value * times as f64).to_bits());
        let _ = shard.sum.fetch_update(Relaxed, Relaxed, add); // `add` always gives a sum
    }
}

/// The histograms of the process, by name and labels.
#[derive(Default)]
pub(super) struct Histograms {
    by_name: Mutex<BTreeMap<String, BTreeMap<String, Arc<FixedHistogram>>>>,
}

impl Histograms {
    /// The histogram of a name and labels.
    pub(super) fn get(&self, key: &Key) -> Arc<FixedHistogram> {
        let mut labels = String::new();
        for label in key.labels() {
            let separator = if labels.is_empty() { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(labels, "{separator}{}=\"{}\"", label.key(), escaped(label.value()));
        }
        let name = key.name();
        let mut by_name = self.lock();
        let by_labels = by_name.entry(name.to_owned()).or_default();
        by_labels.entry(labels).or_insert_with(|| Arc::new(FixedHistogram::new(name))).clone()
    }

    /// Adds all histograms to a text of the Prometheus exposition format, version 0.0.4.
    pub(super) fn render(&self, help: impl Fn(&str) -> Option<&'static str>, to: &mut String) {
        for (name, by_labels) in &*self.lock() {
            if let Some(help) = help(name) {
                let _ = writeln!(to, "# HELP {name} {help}");
            }
            let _ = writeln!(to, "# TYPE {name} histogram");
            for (labels, histogram) in by_labels {
                let (counts, count, sum) = histogram.totals();
                let (before, alone) = match labels.as_str() {
                    "" => (String::new(), String::new()),
                    labels => (format!("{labels},"), format!("{{{labels}}}")),
                };
                for (bound, count) in histogram.bounds.iter().zip(counts) {
                    let _ = writeln!(to, "{name}_bucket{{{before}le=\"{bound}\"}} {count}");
                }
                let _ = writeln!(to, "{name}_bucket{{{before}le=\"+Inf\"}} {count}");
                let _ = writeln!(to, "{name}_sum{alone} {sum}");
                let _ = writeln!(to, "{name}_count{alone} {count}");
            }
            to.push('\n');
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<String, Arc<FixedHistogram>>>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A label's value as it stands between quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use metrics::Label;

    use super::*;

    #[test]
    fn samples_of_all_threads_are_counted_once_in_their_bucket() {
        let histograms = Histograms::default();
        let key = Key::from_parts("test_seconds", vec![Label::new("route", "a\"b\\c")]);
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    let histogram = histograms.get(&key);
                    for value in [0.0, 0.001, 0.001_1, 60.0, 61.0, f64::NAN] {
                        (0..100).for_each(|_| histogram.record(value));
                    }
                });
            }
        });
        let mut text = String::new();
        histograms.render(|_| Some("A test."), &mut text);
        let labels = r#"route="a\"b\\c""#;
        for line in [
            "# HELP test_seconds A test.\n# TYPE test_seconds histogram\n".to_owned(),
            format!("\ntest_seconds_bucket{{{labels},le=\"0.00005\"}} 2000\n"),
            format!("\ntest_seconds_bucket{{{labels},le=\"0.0005\"}} 2000\n"),
            format!("\ntest_seconds_bucket{{{labels},le=\"0.001\"}} 4000\n"),
            format!("\ntest_seconds_bucket{{{labels},le=\"0.0025\"}} 6000\n"),
            format!("\ntest_seconds_bucket{{{labels},le=\"60\"}} 8000\n"),
            format!("\ntest_seconds_bucket{{{labels},le=\"+Inf\"}} 10000\n"),
            format!("\ntest_seconds_count{{{labels}}} 10000\n"),
        ] {
            assert!(text.contains(&line), "{line} in {text}");
        }
        let (_, sum) = text.split_once(&format!("test_seconds_sum{{{labels}}} ")).unwrap();
        let sum: f64 = sum.lines().next().unwrap().parse().unwrap();
        assert!((sum - 2_000.0 * (0.001 + 0.001_1 + 121.0)).abs() < 0.01, "{sum}");
    }

    #[test]
    fn histograms_without_labels_and_of_counts_are_rendered() {
        let histograms = Histograms::default();
        histograms.get(&Key::from_name("test_batch_events")).record_many(512.0, 3);
        let mut text = String::new();
        histograms.render(|_| None, &mut text);
        assert!(text.starts_with("# TYPE test_batch_events histogram\n"), "{text}");
        assert!(text.contains("\ntest_batch_events_bucket{le=\"256\"} 0\n"), "{text}");
        assert!(text.contains("\ntest_batch_events_bucket{le=\"512\"} 3\n"), "{text}");
        assert!(text.contains("\ntest_batch_events_sum 1536\ntest_batch_events_count 3\n"), "{text}");
    }
}
