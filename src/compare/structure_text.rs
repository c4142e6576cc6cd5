//! Writes the documents of `structure` as texts of their format.
//!
//! The caller reads what is written and compares it with the document: what a format cannot express (a namespace of an
//! attribute) is written without it.

use std::collections::HashMap;

use serde_json::Value;

/// One document on each line.
pub(super) fn json_lines(document: &Value) -> Option<String> {
    Some(document.as_array()?.iter().map(|line| format!("{line}\n")).collect())
}

/// The fields of a form.
pub(super) fn form(document: &Value) -> Option<String> {
    let mut fields = Vec::new();
    for (name, value) in document.as_object()? {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for value in values {
            fields.push(format!("{}={}", encoded(name), encoded(value.as_str()?)));
        }
    }
    Some(fields.join("&"))
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A table with this delimiter.
pub(super) fn table(document: &Value, delimiter: u8, has_names: bool) -> Option<String> {
    let mut writer = csv::WriterBuilder::new().delimiter(delimiter).from_writer(Vec::new());
    let names: Vec<&str> = match has_names {
        true => document.get("columns")?.as_array()?.iter().map(Value::as_str).collect::<Option<_>>()?,
        false => Vec::new(),
    };
    if has_names {
        writer.write_record(&names).ok()?;
    }
    for row in document.get("rows")?.as_array()? {
        let cells: Option<Vec<&str>> = match has_names {
            true => names.iter().map(|name| row.get(name)?.as_str()).collect(),
            false => row.as_array()?.iter().map(Value::as_str).collect(),
        };
        writer.write_record(cells?).ok()?;
    }
    String::from_utf8(writer.into_inner().ok()?).ok()
}

/// An XML document.
pub(super) fn xml(document: &Value) -> Option<String> {
    let mut members = document.as_object()?.iter();
    let ((name, element), None) = (members.next()?, members.next()) else { return None };
    let mut out = String::new();
    write_element(name, element, &mut out)?;
    Some(out)
}

/// Recursion is bounded by the depth of the document, which was read within the bounds.
fn write_element(name: &str, element: &Value, out: &mut String) -> Option<()> {
    let members = match element {
        Value::String(text) => {
            out.push_str(&format!("<{name}>{}</{name}>", escaped(text)));
            return Some(());
        }
        element => element.as_object()?,
    };
    out.push_str(&format!("<{name}"));
    for (key, value) in members {
        if let Some(attribute) = key.strip_prefix('@') {
            out.push_str(&format!(" {attribute}=\"{}\"", escaped(value.as_str()?)));
        }
    }
    out.push('>');
    if let Some(text) = members.get("#text") {
        out.push_str(&escaped(text.as_str()?));
    }
    let children = || members.iter().filter(|(key, _)| !key.starts_with(['@', '#']));
    match members.get("#order") {
        // The names of the children in their order; each name has its children in their order.
        Some(order) => {
            let mut written: HashMap<&str, usize> = HashMap::new();
            for name in order.as_str()?.split(' ') {
                let n = written.entry(name).or_default();
                write_element(name, members.get(name)?.get(*n)?, out)?;
                *n += 1;
            }
        }
        None => {
            for (name, list) in children() {
                list.as_array()?.iter().try_for_each(|child| write_element(name, child, out))?;
            }
        }
    }
    out.push_str(&format!("</{name}>"));
    Some(())
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\r' | '\t' => out.push_str(&format!("&#{};", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}
