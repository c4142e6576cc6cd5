//! The path to a value within a document, as differences show it.

/// One step from a value to a value within it.
#[derive(Clone, Copy, Debug)]
enum Part<'a> {
    Key(&'a str),
    /// Any element of an array. The index is left out, so that the same difference in several elements has one path.
    Element,
}

/// The path to a value.
#[derive(Clone, Debug)]
pub(super) struct ValuePath<'a> {
    root: &'a str,
    parts: Vec<Part<'a>>,
}

/// A longer key is treated as an id, not as a name.
const KEY_CHARS_MAX: usize = 48;
const PATH_CHARS_MAX: usize = 256;

impl<'a> ValuePath<'a> {
    pub(super) fn of(root: &'a str) -> Self {
        Self { root, parts: Vec::new() }
    }
    pub(super) fn enter_key(&mut self, key: &'a str) {
        self.parts.push(Part::Key(key));
    }
    pub(super) fn enter_element(&mut self) {
        self.parts.push(Part::Element);
    }
    pub(super) fn leave(&mut self) {
        self.parts.pop();
    }
    /// The keys of the path, the outermost first.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.parts.iter().filter_map(|p| match p {
            Part::Key(key) => Some(*key),
            Part::Element => None,
        })
    }
    /// Returns the path as text: `$.items[*].price`.
    pub(super) fn text(&self) -> String {
        let mut path = self.root.to_owned();
        for part in &self.parts {
            match part {
                Part::Element => path.push_str("[*]"),
                Part::Key(key) if is_id_key(key) => path.push_str("[*]"),
                Part::Key(key) if is_plain_name(key) => {
                    path.push('.');
                    path.push_str(key);
                }
                Part::Key(key) => {
                    path.push_str("['");
                    path.extend(key.chars().flat_map(char::escape_debug));
                    path.push_str("']");
                }
            }
            if path.chars().count() > PATH_CHARS_MAX {
                return path.chars().take(PATH_CHARS_MAX).chain(['…']).collect();
            }
        }
        path
    }
}

/// Whether a key is an id: an object whose keys are ids is shown like an array.
fn is_id_key(key: &str) -> bool {
    let many_digits = key.bytes().filter(u8::is_ascii_digit).count() * 3 >= key.len();
    key.chars().count() > KEY_CHARS_MAX
        || key.contains('@')
        || (!key.is_empty() && key.bytes().all(|b| b.is_ascii_digit()))
        || (key.len() >= 16 && many_digits && key.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-' || b == b'_'))
}

fn is_plain_name(key: &str) -> bool {
    let mut chars = key.chars();
    chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && chars.all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}
