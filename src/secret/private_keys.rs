//! Finds private keys: in PEM (RFC 7468), in blocks of PGP (RFC 9580), and as SSH2 writes them (`---- BEGIN SSH2
//! ENCRYPTED PRIVATE KEY ----`).
//!
//! Always true: a key is what stands between its two delimiters; if the last one is missing, the key reaches to the end
//! of the text. A line break may split the first delimiter. The work is linear in the text: all searches run over the
//! runs of dashes once.

use std::ops::Range;

use serde_json::{Map, Value};

/// How many dashes a delimiter has at least at each end.
const DASHES_MIN: usize = 4;
/// How the label of a private key ends, without its whitespace: `RSA PRIVATE KEY`, `PGP PRIVATE KEY BLOCK`.
const LABEL_ENDS: [&str; 2] = ["PRIVATEKEY", "PRIVATEKEYBLOCK"];
const BEGIN: &str = "BEGIN";
const END: &str = "END";
/// The most bytes of a key's first delimiter, without its dashes.
const LABEL_BYTES_MAX: usize = 96;
/// If the last delimiter of a key is missing, a text looks like a line of the key if it has at least so many
/// characters, or ends with the padding of base64.
const ENCODED_CHARS_MIN: usize = 16;

/// The runs of dashes in a text that may be the end of a delimiter.
fn dash_runs(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + text[at..].find('-')?;
            at = text[start..].find(|c| c != '-').map_or(text.len(), |end| start + end);
            if at - start >= DASHES_MIN {
                return Some(start..at);
            }
        }
    })
}

/// Whether the dashes before this text begin a last delimiter (`-----END …`). `END` on the next line does not count: a
/// line of a key may begin with these letters.
fn is_end(after_dashes: &str) -> bool {
    after_dashes.trim_start_matches([' ', '\t']).starts_with(END)
}

/// A text without its whitespace, as far as a label may reach.
fn compact(text: &str) -> String {
    let part = &text[..text.floor_char_boundary(LABEL_BYTES_MAX)];
    part.chars().filter(|c| !c.is_whitespace()).collect()
}

fn is_label_of_key(label: &str) -> bool {
    label.len() <= LABEL_BYTES_MAX && LABEL_ENDS.iter().any(|end| compact(label).ends_with(end))
}

/// A delimiter of a private key.
enum Delimiter {
    /// A key begins after this offset.
    Begin(usize),
    /// A key ends at this offset.
    End(usize),
}

/// The delimiters of private keys in a text, in order.
fn delimiters(text: &str) -> impl Iterator<Item = Delimiter> {
    let mut runs = dash_runs(text).peekable();
    std::iter::from_fn(move || {
        loop {
            let run = runs.next()?;
            let after = &text[run.end..];
            if is_end(after) {
                return Some(Delimiter::End(run.start));
            }
            let Some(closing) = runs.peek().filter(|_| compact(after).starts_with(BEGIN)) else { continue };
            if is_label_of_key(&text[run.end..closing.start]) {
                let begin = closing.end;
                // `-----BEGIN PRIVATE KEY----------END` has no key between its delimiters.
                runs.next_if(|closing| !is_end(&text[closing.end..]));
                return Some(Delimiter::Begin(begin));
            }
        }
    })
}

/// The parts of a text that are private keys, without their delimiters.
pub(super) fn private_keys(text: &str) -> Vec<Range<usize>> {
    let (mut found, mut open) = (Vec::new(), None);
    for delimiter in delimiters(text) {
        match (delimiter, open) {
            (Delimiter::Begin(at), None) => open = Some(at),
            (Delimiter::End(at), Some(start)) => {
                found.push(start..at.max(start));
                open = None;
            }
            // A key that begins within another one is a part of it.
            (Delimiter::Begin(_), Some(_)) | (Delimiter::End(_), None) => {}
        }
    }
    found.extend(open.map(|start| start..text.len()));
    for part in &mut found {
        let body = &text[part.clone()];
        let lead = body.len() - body.trim_start().len();
        *part = part.start + lead..part.start + body.trim_end().len().max(lead);
    }
    found.retain(|part| !part.is_empty());
    found
}

/// Reads lines one after the other and tells which of them belong to a private key.
#[derive(Default)]
pub struct PrivateKeyLines {
    is_within: bool,
    /// The end of the lines so far, if it may be the beginning of a first delimiter.
    begun: String,
}

impl PrivateKeyLines {
    /// Reads the next line. Returns whether it has a part of a private key that began on an earlier line.
    pub fn next(&mut self, line: &str) -> bool {
        if !self.is_within && self.begun.is_empty() && !line.contains("----") {
            return false;
        }
        let lead = std::mem::take(&mut self.begun);
        let joined = format!("{lead}{line}");
        let (mut is_part, mut is_within, mut from) = (false, self.is_within, 0);
        for delimiter in delimiters(&joined) {
            match delimiter {
                Delimiter::Begin(at) if !is_within => (is_within, from) = (true, at),
                Delimiter::End(at) if is_within => {
                    is_part |= self.is_within && from == 0 && !joined[..at].trim().is_empty();
                    is_within = false;
                }
                Delimiter::Begin(_) | Delimiter::End(_) => {}
            }
        }
        is_part |= self.is_within && is_within && from == 0 && !line.trim().is_empty();
        // The first delimiter ends on this line, and the key begins on it.
        is_part |= !lead.is_empty() && is_within && !joined[from.min(joined.len())..].trim().is_empty();
        self.is_within = is_within;
        if !is_within {
            self.begun = begun_delimiter(&joined).to_owned();
        }
        is_part
    }
}

/// The end of a text that may be the beginning of a first delimiter, which continues on the next line.
fn begun_delimiter(text: &str) -> &str {
    let Some(run) = dash_runs(text).last() else { return "" };
    let after = compact(&text[run.end..]);
    let may_begin = after.starts_with(BEGIN) || BEGIN.starts_with(&*after);
    if may_begin && text.len() - run.end <= LABEL_BYTES_MAX { &text[run.start..] } else { "" }
}

/// For a list whose elements may be lines of a private key: which elements have a part of one; `None` if none has.
pub fn private_key_items(items: &[Value]) -> Option<Vec<bool>> {
    let mut lines_of_keys = PrivateKeyLines::default();
    let lines = items.iter().map(|item| item.as_str().unwrap_or_default());
    let parts: Vec<bool> = lines.map(|line| lines_of_keys.next(line)).collect();
    parts.contains(&true).then_some(parts)
}

/// For an object whose members may be lines of a private key: the members that have a part of one. If the last
/// delimiter is missing, only those members that look encoded: the others may be anything.
pub(super) fn private_key_members(members: &Map<String, Value>) -> Vec<&str> {
    let mut lines = PrivateKeyLines::default();
    let is_alone = |text: &str| text.trim().ends_with("----") || !text.contains('\n');
    let (mut parts, mut ended) = (Vec::<&str>::new(), 0);
    for (key, value) in members {
        let text = value.as_str().filter(|text| lines.is_within || is_alone(text)).unwrap_or_default();
        if lines.next(text) {
            parts.push(key);
        }
        if !lines.is_within {
            ended = parts.len();
        }
    }
    let looks_encoded = |key: &&str| {
        let text = members.get(*key).and_then(Value::as_str).unwrap_or_default().trim();
        let is_encoded = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
        text.chars().all(is_encoded) && (text.len() >= ENCODED_CHARS_MIN || text.ends_with('='))
    };
    let (closed, open) = parts.split_at(ended);
    closed.iter().copied().chain(open.iter().copied().filter(looks_encoded)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::secret::{Detectors, replace_detected};

    fn masked(text: &str) -> String {
        replace_detected(text, Detectors::default(), &mut |secret| format!("<{secret}>")).into_owned()
    }

    #[test]
    fn private_keys_are_found_and_certificates_stay() {
        let key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\nIBk=\n-----END EC PRIVATE KEY-----";
        let shown = "-----BEGIN EC PRIVATE KEY-----\n<MHcCAQEE\nIBk=>\n-----END EC PRIVATE KEY-----";
        assert_eq!(masked(&format!("a {key} b {key}")), format!("a {shown} b {shown}"));
        assert_eq!(masked("-----BEGIN PRIVATE KEY-----\nMHc"), "-----BEGIN PRIVATE KEY-----\n<MHc>", "cut");
        for (begin, end) in [
            ("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----", "---- END SSH2 ENCRYPTED PRIVATE KEY ----"),
            ("-----BEGIN PGP PRIVATE KEY BLOCK-----", "-----END PGP PRIVATE KEY BLOCK-----"),
            ("-----BEGIN RSA PRIV\nATE KEY-----", "-----END RSA PRIVATE KEY-----"),
            ("-----BEG\nIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"),
        ] {
            let text = |lines: &str| format!("a\n{begin}\n{lines}\n{end}\nb");
            assert_eq!(masked(&text("ENDx\nComment: x\n\nMHcC\n=aB3d")), text("<ENDx\nComment: x\n\nMHcC\n=aB3d>"));
        }
        for text in [
            "-----BEGIN CERTIFICATE-----\nMHcCAQEE\n-----END CERTIFICATE-----",
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\nMHcCAQEE\n-----END PGP PUBLIC KEY BLOCK-----",
            "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY",
            "---- \nBEGIN with the PRIVATE KEY of a flat",
        ] {
            assert_eq!(masked(text), text);
        }
    }

    #[test]
    fn the_lines_of_private_keys_are_found_one_by_one() {
        let parts = |text: &str| {
            let mut lines = PrivateKeyLines::default();
            text.lines().filter(|line| lines.next(line)).map(str::trim).collect::<Vec<_>>().join(" ")
        };
        let key = "a\n  -----BEGIN EC PRIVATE KEY-----\n  MHcC\n\n  IBk=\n  -----END EC PRIVATE KEY-----\nb\n";
        assert_eq!(parts(&format!("{key}{key}")), "MHcC IBk= MHcC IBk=");
        let end = "IBk=-----END PRIVATE KEY-----";
        assert_eq!(parts(&format!("-----BEGIN PRIVATE KEY-----\nMHcC\n{end}\nb")), format!("MHcC {end}"));
        assert_eq!(parts("-----BEGIN PRIVATE KEY-----MH-----END PRIVATE KEY-----\nb"), "");
        assert_eq!(parts("-----BEGIN CERTIFICATE-----\nMHcC\n-----END CERTIFICATE-----"), "");
        for cut in
            ["-----BEGIN PRIV\nATE KEY-----", "-----\nBEGIN PRIVATE\nKEY-----", "----- BEG\nIN PRIVATE KEY -----"]
        {
            assert_eq!(parts(&format!("a\n{cut}\nMHcC\n-----END PRIVATE KEY-----\nb")), "MHcC", "{cut}");
        }
        assert_eq!(parts("-----BEGIN PRIVATE\nKEY-----MHcC\nIBk=\n-----END"), "KEY-----MHcC IBk=");
        assert_eq!(parts("a\n-----\nBEGIN\nb\n-----\nc"), "");
        let items = ["a", "-----BEGIN PRIVATE KEY-----", "MHcC", "-----END PRIVATE KEY-----"].map(Value::from);
        assert_eq!(private_key_items(&items), Some(vec![false, false, true, false]));
        assert_eq!(private_key_items(&items[2..]), None);
        for whole in ["-----BEGIN CERTIFICATE-----\nMHcC\n-----END CERTIFICATE-----", "-----BEGIN CERTIFICATE-----"] {
            assert_eq!(private_key_items(&["x-cert", whole, "b"].map(Value::from)), None, "{whole}");
        }
    }

    #[test]
    fn lines_of_a_key_may_be_members() {
        let (begin, end) = ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----");
        for (members, found) in [
            (json!({ "0": "a", "1": begin, "2": "MHcC", "3": 7, "4": "IBk=", "5": end, "6": "b" }), "2 4"),
            (json!({ "1": begin, "2": "MHcCAQEEIBkMHcCAQEEIBk", "3": "IBk=", "user": "bob" }), "2 3"),
            (json!({ "key": format!("{begin}\nMHcC"), "user": "MHcCAQEEIBkMHcCAQEEIBk" }), ""),
            (json!({ "1": "-----BEGIN CERTIFICATE-----", "2": "MHcC" }), ""),
        ] {
            assert_eq!(private_key_members(members.as_object().unwrap()).join(" "), found, "{members}");
        }
    }
}
