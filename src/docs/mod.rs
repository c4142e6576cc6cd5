//! The reference for users: one topic a file, compiled into the binary.
//!
//! The question it answers: "how does this work, and what may I write?" `pointsman help TOPIC` and the API's
//! `/docs/TOPIC` show the same text. Always true: a topic is Markdown that reads well as plain text; lists that the
//! code knows (metrics, limits) are made from the code. Tests check each command, file, key, path and metric that is
//! named: the binary must have it.

mod html;
mod lists;

pub use html::page;

use crate::problem::nearest;

/// One subject.
#[derive(Debug)]
pub struct Topic {
    /// Its name in `pointsman help NAME`.
    pub name: &'static str,
    source: &'static str,
}

/// Every topic, in the order in which a new user reads them.
pub const TOPICS: &[Topic] = &[
    Topic { name: "ladder", source: include_str!("ladder.md") },
    Topic { name: "adoption", source: include_str!("adoption.md") },
    Topic { name: "files", source: include_str!("files.md") },
    Topic { name: "workflows", source: include_str!("workflows.md") },
    Topic { name: "expressions", source: include_str!("expressions.md") },
    Topic { name: "compare", source: include_str!("compare.md") },
    Topic { name: "captures", source: include_str!("captures.md") },
    Topic { name: "egress", source: include_str!("egress.md") },
    Topic { name: "evidence", source: include_str!("evidence.md") },
    Topic { name: "gates", source: include_str!("gates.md") },
    Topic { name: "noise", source: include_str!("noise.md") },
    Topic { name: "invariants", source: include_str!("invariants.md") },
    Topic { name: "guard", source: include_str!("guard.md") },
    Topic { name: "candidates", source: include_str!("candidates.md") },
    Topic { name: "failures", source: include_str!("failures.md") },
    Topic { name: "people", source: include_str!("people.md") },
    Topic { name: "page", source: include_str!("page.md") },
    Topic { name: "runs", source: include_str!("runs.md") },
    Topic { name: "listeners", source: include_str!("listeners.md") },
    Topic { name: "services", source: include_str!("services.md") },
    Topic { name: "store", source: include_str!("store.md") },
    Topic { name: "postgresql", source: include_str!("postgresql.md") },
    Topic { name: "security", source: include_str!("security.md") },
    Topic { name: "metrics", source: include_str!("metrics.md") },
    Topic { name: "alerts", source: include_str!("alerts.md") },
    Topic { name: "access_log", source: include_str!("access_log.md") },
    Topic { name: "traces", source: include_str!("traces.md") },
    Topic { name: "production", source: include_str!("production.md") },
    Topic { name: "deploy", source: include_str!("deploy.md") },
    Topic { name: "scale", source: include_str!("scale.md") },
    Topic { name: "limits", source: include_str!("limits.md") },
    Topic { name: "commands", source: include_str!("commands.md") },
    Topic { name: "versions", source: include_str!("versions.md") },
    Topic { name: "benchmarks", source: include_str!("benchmarks.md") },
];

impl Topic {
    /// Its first line: what it is about.
    pub fn title(&self) -> &'static str {
        self.source.lines().next().unwrap_or_default().trim_start_matches("# ")
    }
    /// The whole text, as Markdown.
    pub fn text(&self) -> String {
        let mut text = self.source.to_owned();
        for (marker, list) in [("{{metrics}}\n", lists::metrics as fn() -> String), ("{{limits}}\n", lists::limits)] {
            if text.contains(marker) {
                text = text.replace(marker, &list());
            }
        }
        text
    }
}

/// The topic of this name.
///
/// # Errors
/// No topic has this name: the nearest name, where one is near.
pub fn find(name: &str) -> Result<&'static Topic, Option<&'static str>> {
    TOPICS.iter().find(|topic| topic.name == name).ok_or_else(|| nearest(name, TOPICS.iter().map(|topic| topic.name)))
}

/// The list of topics, as Markdown.
pub fn index() -> String {
    let mut text = "# Pointsman: topics\n\n".to_owned();
    for topic in TOPICS {
        text.push_str(&format!("- `{}` {}\n", topic.name, topic.title()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_topic_suggests_the_nearest() {
        assert_eq!(find("ladder").unwrap().name, "ladder");
        assert_eq!(find("laddder").unwrap_err(), Some("ladder"));
        assert_eq!(find("metric").unwrap_err(), Some("metrics"));
        assert_eq!(find("zebra").unwrap_err(), None);
    }

    #[test]
    fn every_topic_has_a_title_and_fits_a_terminal() {
        for topic in TOPICS {
            let text = topic.text();
            assert!(topic.title().contains(": "), "{}: {}", topic.name, topic.title());
            assert!(!text.contains("{{"), "{}: a list was not filled in", topic.name);
            assert!(index().contains(topic.title()));
            // Lines of generated lists may be longer, so that no name is split: the terminal wraps them.
            for line in topic.source.lines() {
                assert!(line.chars().count() <= 120, "{}: {line}", topic.name);
            }
        }
    }

    #[test]
    fn every_file_of_the_folder_is_a_topic() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/docs");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<String> = files
            .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        let mut topics: Vec<&str> = TOPICS.iter().map(|topic| topic.name).collect();
        topics.sort_unstable();
        assert_eq!(names, topics);
    }
}
