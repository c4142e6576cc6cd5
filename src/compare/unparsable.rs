//! Why a body is not what its content type says.
//!
//! Always true: a reason names a place and quotes nothing of the body. A body that is of its format, but without a
//! structure that rules could name (XML with text beside elements, a table without names), has no reason.

use http::HeaderMap;

use super::multipart;
use super::parsed_body::{ParsedBody, is_declared_json};
use super::structure::{Format, delimiter_of};
use super::well_formed::is_table;
use crate::expression::{parse_form_strictly, parse_json};

/// A body that is not what its content type says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unparsable {
    /// The format that it is declared to have.
    pub(super) format: &'static str,
    why: String,
}

impl Unparsable {
    /// Why a body that has no document is not what its type says; `None` if it is.
    pub(super) fn of(headers: &HeaderMap, parsed: &ParsedBody) -> Option<Self> {
        let of = |format, why| Some(Self { format, why });
        match (parsed, Format::declared(headers)) {
            (ParsedBody::NotJson(text), _) => of("JSON", parse_json(text.as_bytes()).err()?.to_string()),
            (ParsedBody::Text(text), Some(format)) => fault(format, text).and_then(|(name, why)| of(name, why)),
            (ParsedBody::Bytes(_), _) if is_declared_json(headers) => of("JSON", "it is not UTF-8".to_owned()),
            (ParsedBody::Bytes(_), _) if multipart::is_declared(headers) => {
                of("multipart", "its parts cannot be told apart".to_owned())
            }
            _ => None,
        }
    }

    /// The type of a body, and why it is not of its format.
    pub(super) fn type_with_reason(&self, parsed: &ParsedBody) -> String {
        let what = if parsed.text().is_some() { "text that is" } else { "bytes that are" };
        format!("{what} not valid {}: {}", self.format, self.why)
    }
}

/// The name of the format of a text, and where the text is not of it; `None` if it is.
fn fault(format: Format, text: &str) -> Option<(&'static str, String)> {
    match format {
        Format::JsonLines => {
            let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
            let (number, error) = lines.find_map(|(n, line)| Some((n, parse_json(line.as_bytes()).err()?)))?;
            Some(("NDJSON", format!("line {number}: {error}")))
        }
        Format::Form => Some(("as a form", parse_form_strictly(text.as_bytes()).err()?)),
        Format::Table { delimiter, .. } => {
            let delimiter = delimiter_of(text, delimiter);
            let name = if delimiter == b'\t' { "TSV" } else { "CSV" };
            if !is_table(text, delimiter) {
                return Some((name, "a line is blank, or a quoted field does not end where it should".to_owned()));
            }
            let mut rows =
                csv::ReaderBuilder::new().delimiter(delimiter).has_headers(false).from_reader(text.as_bytes());
            let error = rows.records().find_map(Result::err)?;
            let line = error.position().map_or(1, csv::Position::line);
            Some((name, format!("line {line} has another number of fields than the first")))
        }
        Format::Xml => match roxmltree::Document::parse(text).err()? {
            // It is XML; nothing that it defines is expanded.
            roxmltree::Error::DtdDetected => None,
            error => {
                Some(("XML", format!("it is not well-formed at line {} column {}", error.pos().row, error.pos().col)))
            }
        },
        Format::Multipart => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(content_type: &str, body: &str) -> Option<String> {
        let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, content_type.parse().unwrap())]);
        let parsed = match (is_declared_json(&headers), multipart::is_declared(&headers)) {
            (true, _) => ParsedBody::NotJson(body.to_owned()),
            (false, true) => ParsedBody::Bytes(body.to_owned().into()),
            (false, false) => ParsedBody::Text(body.to_owned()),
        };
        Unparsable::of(&headers, &parsed).map(|unparsable| unparsable.type_with_reason(&parsed))
    }

    #[test]
    fn the_reason_names_the_place_and_quotes_nothing() {
        for (content_type, body, shown) in [
            (
                "application/json",
                "{\"hunter2\":",
                "text that is not valid JSON: EOF while parsing a value at line 1 column 11",
            ),
            (
                "application/x-ndjson",
                "{}\n\nhunter2",
                "text that is not valid NDJSON: line 3: expected value at line 1 column 1",
            ),
            ("text/xml", "<a>\n<hunter2></a>", "text that is not valid XML: it is not well-formed at line 2 column 10"),
            (
                "text/csv",
                "a,b\n1,\"hunter2",
                "text that is not valid CSV: a line is blank, or a quoted field does not end where it should",
            ),
            (
                "text/csv",
                "a;b\n1;2;3\n",
                "text that is not valid CSV: line 2 has another number of fields than the first",
            ),
            (
                "application/x-www-form-urlencoded",
                "a=1&hunter2=%FF",
                "text that is not valid as a form: field 2 is not UTF-8",
            ),
            (
                "multipart/mixed; boundary=x",
                "hunter2",
                "bytes that are not valid multipart: its parts cannot be told apart",
            ),
        ] {
            let reason = reason(content_type, body);
            assert_eq!(reason.as_deref(), Some(shown));
            assert!(!reason.unwrap().contains("hunter2"));
        }
    }

    #[test]
    fn what_is_of_its_format_without_a_structure_has_no_reason() {
        for (content_type, body) in [
            ("text/xml", "<p>a <b>c</b></p>"),
            ("text/xml", "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>"),
            ("text/csv", "a,a\n1,2\n"),
            ("text/plain", "{"),
        ] {
            assert_eq!(reason(content_type, body), None, "{body}");
        }
    }
}
