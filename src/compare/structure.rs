//! Texts of a declared format as documents, so that they are compared by structure, and so that rules can name their
//! parts.
//!
//! Always true: two texts whose documents are equal differ only in what their format says has no meaning, such as the
//! order of attributes or of the fields of a form; a text that is not of its format, or whose parts the document could
//! not name, has no document and is compared as text.

use std::collections::HashSet;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use roxmltree::{Attribute, Node};
use serde_json::{Map, Value};

use super::bounds::{BoundExceeded, CompareBounds};
use super::parsed_body::bounded_json;
use super::repeated_keys::RepeatedKey;
use super::structure_text;
use super::well_formed::{XmlSize, is_table, xml_size};
use crate::expression::{MediaType, parse_form_strictly};

/// The document of a text of a declared format, without the namespaces of an XML document; `None` if it has none, or is
/// nested too deeply.
pub(super) fn values_of_text(headers: &HeaderMap, text: &str, bounds: &CompareBounds) -> Option<Value> {
    let format = Format::declared(headers)?;
    let (mut document, _) = format.document(text, bounds).ok()??;
    if format == Format::Xml {
        remove_namespaces(&mut document);
    }
    Some(document)
}

/// Removes the namespaces from the document of an XML text. The order of children stays, because an element may name
/// the value in the next one (`<name>password</name><value>…</value>`).
fn remove_namespaces(document: &mut Value) {
    match document {
        Value::Object(members) => {
            members.retain(|key, _| key != NAMESPACE);
            members.values_mut().for_each(remove_namespaces);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_namespaces),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A text of a declared format with the values of its document replaced; `None` if it has no document, or if its
/// format cannot be written so that reading it gives the same document.
///
/// # Errors
/// It is nested too deeply.
pub(super) fn rendered_document(
    headers: &HeaderMap,
    text: &str,
    bounds: &CompareBounds,
    replace: &mut dyn FnMut(&Value) -> Value,
) -> Result<Option<String>, BoundExceeded> {
    let Some(format) = Format::declared(headers) else { return Ok(None) };
    let document = match format.document(text, bounds)? {
        Some((document, repeated)) if repeated.is_empty() => {
            let mut replaced = replace(&document);
            if format == Format::Xml {
                keep_form(&document, &mut replaced);
            }
            replaced
        }
        _ => return Ok(None),
    };
    let rendered = match format {
        Format::JsonLines => structure_text::json_lines(&document),
        Format::Form => structure_text::form(&document),
        Format::Table { delimiter, has_names } => {
            let delimiter = if document.get(DELIMITER).is_some() { SEMICOLON } else { delimiter };
            structure_text::table(&document, delimiter, has_names)
        }
        Format::Xml => structure_text::xml(&document),
        Format::Multipart => None,
    };
    let Some(rendered) = rendered else { return Ok(None) };
    let read = format.document(&rendered, bounds)?.map(|(document, _)| document);
    Ok((read.as_ref() == Some(&document)).then_some(rendered))
}

/// Whether these headers declare a format in which each value has a name: not a table without names of its columns.
pub(super) fn names_its_values(headers: &HeaderMap) -> bool {
    Format::declared(headers).is_some_and(|format| !matches!(format, Format::Table { has_names: false, .. }))
}

/// Gives the replaced document the form of an XML document: the names of an element's children in their order hold no
/// values and stay, and a list of elements that was replaced as a whole has as many elements as before. Recursion is
/// bounded by the depth of the document.
fn keep_form(document: &Value, replaced: &mut Value) {
    match (document, replaced) {
        (Value::Object(members), Value::Object(replaced)) => {
            for (key, value) in members {
                match (key.as_str(), replaced.get_mut(key)) {
                    (ORDER, Some(order)) => order.clone_from(value),
                    (_, Some(replaced)) => keep_form(value, replaced),
                    (_, None) => {}
                }
            }
        }
        (Value::Array(items), Value::Array(replaced)) => {
            items.iter().zip(replaced).for_each(|(item, replaced)| keep_form(item, replaced));
        }
        (Value::Array(items), replaced @ Value::String(_)) => {
            *replaced = Value::Array(vec![replaced.clone(); items.len()]);
        }
        _ => {}
    }
}

/// A format of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One JSON document on each line: an array of them. Empty lines have no meaning.
    JsonLines,
    /// The fields of a form: an object; the values of a repeated field are an array.
    Form,
    /// A table with this delimiter: an object with the names of the `columns`, and the `rows` as objects; without
    /// names (`header=absent`) only `rows`, as arrays. See also [`SEMICOLON`].
    Table { delimiter: u8, has_names: bool },
    /// An XML document: see [`xml`].
    Xml,
    /// Several parts: see [`multipart`]. Their text may be of any bytes, so that [`Format::declared`] does not know it.
    Multipart,
}

impl Format {
    /// The format that a content type declares, if it has one.
    pub(super) fn declared(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let kind = MediaType::of(value);
        let mut parameters = value.split(';').skip(1).map(str::trim);
        let has_names = !parameters.any(|parameter| parameter.eq_ignore_ascii_case("header=absent"));
        match kind.as_str() {
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(Self::JsonLines),
            "text/csv" => Some(Self::Table { delimiter: b',', has_names }),
            "text/tab-separated-values" => Some(Self::Table { delimiter: b'\t', has_names }),
            _ if kind.is_form() => Some(Self::Form),
            _ if kind.is_xml() => Some(Self::Xml),
            _ => None,
        }
    }

    /// The document of a text, and the keys that it repeats.
    ///
    /// # Errors
    /// It is nested too deeply.
    pub(super) fn document(
        self,
        text: &str,
        bounds: &CompareBounds,
    ) -> Result<Option<(Value, Vec<RepeatedKey>)>, BoundExceeded> {
        let document = match self {
            Self::JsonLines => return json_lines(text, bounds),
            Self::Form => parse_form_strictly(text.as_bytes()).ok(),
            Self::Table { delimiter, has_names } => {
                let read = |delimiter| is_table(text, delimiter).then(|| table(text, delimiter, has_names)).flatten();
                let of_semicolons = || read(SEMICOLON).map(with_delimiter);
                let has_semicolons = delimiter_of(text, delimiter) == SEMICOLON;
                has_semicolons.then(of_semicolons).flatten().or_else(|| read(delimiter))
            }
            Self::Xml => match xml_size(text, bounds.depth) {
                XmlSize::TooDeep => return Err(BoundExceeded::Depth),
                XmlSize::TooManyAttributes => None,
                XmlSize::Parsable => xml_document(text, bounds)?,
            },
            Self::Multipart => None,
        };
        Ok(document.map(|document| (document, Vec::new())))
    }
}

fn xml_document(text: &str, bounds: &CompareBounds) -> Result<Option<Value>, BoundExceeded> {
    match roxmltree::Document::parse(text) {
        Ok(parsed) => {
            let root = parsed.root_element();
            Ok(xml(root, None, bounds.depth)?.map(|element| object([(root.tag_name().name(), element)])))
        }
        Err(_) => Ok(None),
    }
}

fn object<'a>(members: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn json_lines(text: &str, bounds: &CompareBounds) -> Result<Option<(Value, Vec<RepeatedKey>)>, BoundExceeded> {
    let (mut documents, mut repeated) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let Some((document, keys)) = bounded_json(line.as_bytes(), bounds)? else { return Ok(None) };
        repeated.extend(keys.into_iter().map(|key| key.in_element(documents.len())));
        documents.push(document);
    }
    Ok(Some((Value::Array(documents), repeated)))
}

/// The delimiter of `text/csv` in countries where the comma separates the fraction of a number. No parameter of the
/// content type declares it: it is assumed if the first line has more semicolons than commas.
const SEMICOLON: u8 = b';';
/// The member of a table's document that holds this delimiter; a table with commas has none, so the two differ.
const DELIMITER: &str = "delimiter";

/// The delimiter of a table whose content type stands for the delimiter `declared`: see [`SEMICOLON`].
pub(super) fn delimiter_of(text: &str, declared: u8) -> u8 {
    if declared == b',' && has_more_semicolons(text) { SEMICOLON } else { declared }
}

fn has_more_semicolons(text: &str) -> bool {
    let line = text.lines().next().unwrap_or_default();
    let count = |delimiter: u8| line.bytes().filter(|byte| *byte == delimiter).count();
    count(SEMICOLON) > count(b',')
}

fn with_delimiter(mut table: Value) -> Value {
    if let Some(members) = table.as_object_mut() {
        members.insert(DELIMITER.to_owned(), char::from(SEMICOLON).to_string().into());
    }
    table
}

/// Returns a table as a document; `None` if rows have different lengths, or names are empty or repeated.
fn table(text: &str, delimiter: u8, has_names: bool) -> Option<Value> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).has_headers(has_names).from_reader(text.as_bytes());
    let names: Vec<String> =
        if has_names { reader.headers().ok()?.iter().map(str::to_owned).collect() } else { vec![] };
    let unique: HashSet<&str> = names.iter().map(String::as_str).collect();
    if unique.len() != names.len() || unique.contains("") {
        return None;
    }
    let row = |record: csv::StringRecord| match has_names {
        true => object(names.iter().map(String::as_str).zip(record.iter().map(Value::from))),
        false => record.iter().map(Value::from).collect(),
    };
    let rows = reader.records().map(|record| record.map(row)).collect::<Result<Value, _>>().ok()?;
    Some(match has_names {
        true => object([("columns", names.iter().map(String::as_str).collect()), ("rows", rows)]),
        false => object([("rows", rows)]),
    })
}

/// The text of an element that also has attributes or is in another namespace.
const TEXT: &str = "#text";
/// The names of an element's children in their order, if they have different names.
const ORDER: &str = "#order";
/// The namespace of an element, if it is not that of its parent.
const NAMESPACE: &str = "@xmlns";

/// An element: its text if it has nothing else; otherwise an object with its attributes (`@name`), its children (for
/// each name an array, however many there are) and the order of their names. Comments, processing instructions, blank
/// texts beside elements and prefixes have no meaning. `None` if there is text beside elements: their order would be
/// lost.
fn xml(element: Node<'_, '_>, outer: Option<&str>, depth: usize) -> Result<Option<Value>, BoundExceeded> {
    let depth = depth.checked_sub(1).ok_or(BoundExceeded::Depth)?;
    let namespace = element.tag_name().namespace();
    let mut members: Map<String, Value> =
        element.attributes().map(|attribute| (attribute_key(&attribute), attribute.value().into())).collect();
    if namespace != outer {
        members.insert(NAMESPACE.to_owned(), namespace.unwrap_or_default().into());
    }
    let text: String = element.children().filter(Node::is_text).filter_map(|node| node.text()).collect();
    let mut order = Vec::new();
    for child in element.children().filter(Node::is_element) {
        let Some(value) = xml(child, namespace, depth)? else { return Ok(None) };
        let name = child.tag_name().name();
        order.push(name);
        match members.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(children) => children.push(value),
            _ => return Ok(None),
        }
    }
    if order.is_empty() {
        if members.is_empty() {
            return Ok(Some(text.into()));
        }
        if !text.is_empty() {
            members.insert(TEXT.to_owned(), text.into());
        }
    } else if !text.trim().is_empty() {
        return Ok(None);
    }
    if order.iter().any(|name| name != &order[0]) {
        members.insert(ORDER.to_owned(), order.join(" ").into());
    }
    Ok(Some(Value::Object(members)))
}

/// `@name`, or `@{namespace}name`.
fn attribute_key(attribute: &Attribute<'_, '_>) -> String {
    match attribute.namespace() {
        None => format!("@{}", attribute.name()),
        Some(namespace) => format!("@{{{namespace}}}{}", attribute.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const BOUNDS: CompareBounds = CompareBounds { differences: 9, depth: 4, bytes: 9_999, effects: 9 };

    fn of(content_type: &str, text: &str) -> Result<Option<Value>, BoundExceeded> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())]);
        let document = Format::declared(&headers).expect("a format").document(text, &BOUNDS)?;
        Ok(document.map(|(document, _)| document))
    }

    #[test]
    fn tables_have_named_columns() {
        let document = of("text/csv; charset=utf-8", "sku,n\r\n\"A,1\",2\r\nB,10\r\n").unwrap();
        assert_eq!(
            document,
            Some(json!({"columns": ["sku", "n"], "rows": [{"sku": "A,1", "n": "2"}, {"sku": "B", "n": "10"}]}))
        );
        assert_eq!(of("text/csv; header=absent", "1,2\n3,4\n"), Ok(Some(json!({"rows": [["1", "2"], ["3", "4"]]}))));
        assert_eq!(
            of("text/tab-separated-values", "a\n1\n"),
            Ok(Some(json!({"columns": ["a"], "rows": [{"a": "1"}]})))
        );
        for refused in ["a,a\n1,2\n", "a,\n1,2\n", "a,b\n1\n"] {
            assert_eq!(of("text/csv", refused), Ok(None), "{refused:?}");
        }
    }

    #[test]
    fn forms_and_lines_of_json() {
        let form = of("application/x-www-form-urlencoded", "b=2&a=1&b=3").unwrap();
        assert_eq!(form, Some(json!({"b": ["2", "3"], "a": "1"})));
        assert_eq!(of("application/x-ndjson", "{\"a\":1}\n\n[2]\n"), Ok(Some(json!([{"a": 1}, [2]]))));
        assert_eq!(of("application/x-ndjson", "{\"a\":1}\nnone\n"), Ok(None));
        assert_eq!(of("application/x-ndjson", "[[[[[1]]]]]"), Err(BoundExceeded::Depth));
    }

    #[test]
    fn elements_are_arrays_by_name_and_keep_the_order_of_different_names() {
        let order = "<?xml version='1.0'?><!-- x --><order id='17' at=\"9\">\n <item>A</item>\n <item n='2'>B&amp;</item>\
                     <total/>\n</order>";
        let document = json!({"order": {"@id": "17", "@at": "9", "item": ["A", {"@n": "2", "#text": "B&"}],
            "total": [""], "#order": "item item total"}});
        assert_eq!(of("application/xml", order), Ok(Some(document)));
        assert_eq!(of("text/xml", "<a><![CDATA[ x ]]></a>"), Ok(Some(json!({"a": " x "}))));
        // Text beside elements.
        assert_eq!(of("image/svg+xml", "<p>a <b>c</b></p>"), Ok(None));
        assert_eq!(of("text/xml", "<a><b></a>"), Ok(None));
        assert_eq!(of("text/xml", "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>"), Ok(None), "nothing is expanded");
        assert_eq!(of("text/xml", "<a><a><a><a><a/></a></a></a></a>"), Err(BoundExceeded::Depth));
    }

    #[test]
    fn namespaces_count_and_prefixes_do_not() {
        let prefixed = of("text/xml", "<s:a xmlns:s='urn:s' s:k='1'><s:b/></s:a>").unwrap();
        let default = of("text/xml", "<a xmlns='urn:s' xmlns:t='urn:s' t:k='1'><b/></a>").unwrap();
        assert_eq!(prefixed, Some(json!({"a": {"@{urn:s}k": "1", "@xmlns": "urn:s", "b": [""]}})));
        assert_eq!(prefixed, default);
        assert_ne!(of("text/xml", "<a xmlns='urn:t'><b/></a>").unwrap(), default);
    }
}
