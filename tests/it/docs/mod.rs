//! README and reference, checked against the binary: the examples work, and everything that is named exists.

mod examples;
mod losses;
mod names;
mod running;
mod shown;
mod walk;

use std::path::Path;

use pointsman::docs::TOPICS;

/// A text for users: where it is, and what it says.
struct Document {
    name: String,
    text: String,
}

/// The README and every topic.
fn documents() -> Vec<Document> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("a README");
    let topics = TOPICS.iter().map(|topic| Document { name: topic.name.to_owned(), text: topic.text() });
    std::iter::once(Document { name: "README.md".to_owned(), text: readme }).chain(topics).collect()
}

fn document(name: &str) -> Document {
    documents().into_iter().find(|document| document.name == name).expect("a document of this name")
}

impl Document {
    /// Fenced blocks of one language, in order.
    fn blocks(&self, language: &str) -> Vec<&str> {
        let fence = format!("```{language}\n");
        self.text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next()).collect()
    }
    /// Code spans outside of fenced blocks.
    fn spans(&self) -> Vec<&str> {
        let outside = self.text.split("```").step_by(2);
        outside.flat_map(|text| text.split('`').skip(1).step_by(2)).collect()
    }
}

/// The file that a YAML block shows: `# flags/NAME` is its first line.
fn shown_file(block: &str) -> Option<&str> {
    block.lines().next()?.strip_prefix("# flags/")?.split_whitespace().next()
}
