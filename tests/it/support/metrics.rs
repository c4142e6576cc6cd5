//! One scrape of the metrics, parsed.

use std::collections::BTreeMap;

/// The samples of one scrape.
#[derive(Clone, Debug)]
pub struct Metrics(Vec<Sample>);

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads the exposition text.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(sample).collect())
    }
    /// The sum of all samples of a name with these labels; 0 where there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(name, labels).map(|s| s.value).sum()
    }
    /// All values of a label of a name.
    pub fn values(&self, name: &str, label: &str) -> Vec<String> {
        let mut values: Vec<String> = self.of(name, &[]).filter_map(|s| s.labels.get(label).cloned()).collect();
        values.sort();
        values.dedup();
        values
    }
    /// The routes for which `offered = matched + ignored + mismatched + skipped + failed` does not hold.
    pub fn unbalanced(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for route in self.values("pointsman_offered_total", "route") {
            let labels = [("route", route.as_str())];
            let offered = self.sum("pointsman_offered_total", &labels);
            let settled = self.sum("pointsman_comparisons_total", &labels);
            if offered != settled {
                wrong.push(format!("{route}: offered {offered}, settled {settled}"));
            }
        }
        wrong
    }
    fn of<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|v| v == value))
        })
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
    let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    let Some((name, labels)) = series.split_once('{') else {
        return Sample { name: series.to_owned(), labels: BTreeMap::new(), value };
    };
    let labels = labels
        .trim_end_matches('}')
        .split("\",")
        .filter_map(|pair| pair.split_once("=\""))
        .map(|(label, value)| (label.to_owned(), value.trim_end_matches('"').to_owned()))
        .collect();
    Sample { name: name.to_owned(), labels, value }
}

#[test]
fn a_scrape_is_read() {
    let text = "# HELP x y\npointsman_offered_total{route=\"a\"} 3\n\
                pointsman_comparisons_total{route=\"a\",outcome=\"matched\",reason=\"\"} 2\n\
                pointsman_comparisons_total{route=\"a\",outcome=\"skipped\",reason=\"queue_full\"} 1\nup 1\n";
    let metrics = Metrics::parse(text);
    assert!(metrics.unbalanced().is_empty());
    assert_eq!(metrics.sum("pointsman_comparisons_total", &[("outcome", "skipped")]), 1.0);
    assert_eq!(metrics.sum("up", &[]), 1.0);
}
