//! Whether a text is of its format, where the parser of the format is lenient or slow.

/// The most attributes and declared namespaces of one element of XML that is read by its structure: a parser holds each
/// against all others.
const XML_ATTRIBUTES_MAX: usize = 256;
/// The most namespaces that are declared in a whole document: the parser copies those in scope into each element that
/// declares one more, and holds each against all others.
const XML_NAMESPACES_MAX: usize = 256;

/// Whether a text is a table (RFC 4180): a quote stands at the begin and the end of a field, or doubled within quotes;
/// the last quoted field ends; no line is blank. With tabs, a quote within a field is a character like any other. A
/// lenient parser gives the same result for a truncated table as for a whole one.
pub(super) fn is_table(text: &str, delimiter: u8) -> bool {
    #[derive(PartialEq)]
    enum At {
        LineStart,
        FieldStart,
        Plain,
        Quoted,
        QuoteInQuoted,
    }
    let (mut at, mut previous) = (At::LineStart, None);
    // The reader leaves out a byte order mark too.
    for byte in text.strip_prefix('\u{feff}').unwrap_or(text).bytes() {
        let is_end = byte == delimiter || matches!(byte, b'\n' | b'\r');
        at = match at {
            // The second character of a line break.
            At::LineStart if byte == b'\n' && previous == Some(b'\r') => At::LineStart,
            At::LineStart if matches!(byte, b'\n' | b'\r') => return false,
            At::Quoted if byte == b'"' => At::QuoteInQuoted,
            At::Quoted => At::Quoted,
            At::QuoteInQuoted if byte == b'"' => At::Quoted,
            At::QuoteInQuoted if !is_end => return false,
            At::Plain if byte == b'"' && delimiter != b'\t' => return false,
            At::LineStart | At::FieldStart if byte == b'"' => At::Quoted,
            _ if byte == delimiter => At::FieldStart,
            _ if is_end => At::LineStart,
            _ => At::Plain,
        };
        previous = Some(byte);
    }
    at != At::Quoted
}

/// What keeps a parser of XML from being slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum XmlSize {
    Parsable,
    /// An element has more than [`XML_ATTRIBUTES_MAX`] attributes, or the document declares more than
    /// [`XML_NAMESPACES_MAX`] namespaces.
    TooManyAttributes,
    /// Its elements are nested deeper than `depth_max`.
    TooDeep,
}

/// How large the parts of this XML are, without parsing it. It counts each `=` in a tag that is outside quotes, so that
/// a malformed tag may have more of them than attributes. The inside of a document type declaration is read wrongly,
/// which does no harm: the parser refuses a document with one before its first element.
pub(super) fn xml_size(text: &str, depth_max: usize) -> XmlSize {
    let (mut rest, mut depth, mut namespaces) = (text, 0usize, 0usize);
    while let Some(begin) = rest.find('<') {
        rest = &rest[begin..];
        let ends = [("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>")];
        if let Some((_, end)) = ends.iter().find(|(begin, _)| rest.starts_with(begin)) {
            let Some(end) = rest.find(end) else { return XmlSize::Parsable };
            rest = &rest[end..];
            continue;
        }
        let (mut quote, mut attributes, mut end) = (None, 0, rest.len());
        for (at, byte) in rest.bytes().enumerate() {
            match (quote, byte) {
                (Some(open), _) if byte == open => quote = None,
                (Some(_), _) => {}
                (None, b'"' | b'\'') => quote = Some(byte),
                (None, b'=') => attributes += 1,
                (None, b'>') => {
                    end = at;
                    break;
                }
                (None, _) => {}
            }
        }
        let tag = &rest[..end];
        match () {
            () if tag.starts_with("</") => depth = depth.saturating_sub(1),
            () if tag.ends_with('/') || tag.starts_with("<!") => {}
            () => depth += 1,
        }
        // Also counts `xmlns` in the value of an attribute.
        namespaces += tag.matches("xmlns").count();
        if attributes > XML_ATTRIBUTES_MAX || namespaces > XML_NAMESPACES_MAX {
            return XmlSize::TooManyAttributes;
        }
        if depth > depth_max {
            return XmlSize::TooDeep;
        }
        rest = &rest[end..];
    }
    XmlSize::Parsable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_was_cut_off_or_has_stray_quotes_is_none() {
        for text in ["a,b\n1,2\n", "a\n\"1, \"\"x\"\"\n2\"\n", "a,b\r\n\"\",2", "", "a,\n"] {
            assert!(is_table(text, b','), "{text:?}");
        }
        for text in ["n,m\n1,\"a", "n,m\n\"a\"x,2\n", "n,m\n1,a\"b\n", "n\n1\n\n2\n", "n\r\n\r\n1", "\n"] {
            assert!(!is_table(text, b','), "{text:?}");
        }
        assert!(is_table("a\tb\n1\t\",\"\n", b'\t'));
        assert!(is_table("\u{feff}\"sku\",n\n1,2\n", b','), "with a byte order mark");
        assert!(is_table("size\tn\n5\" pipe\t1\n", b'\t') && !is_table("size,n\n5\" pipe,1\n", b','));
    }

    #[test]
    fn attributes_are_counted_by_element() {
        let many = (0..300).map(|n| format!(" a{n}='1'")).collect::<String>();
        let has_few_attributes = |text: &str| xml_size(text, 10) == XmlSize::Parsable;
        assert!(!has_few_attributes(&format!("<?xml version='1.0'?><!-- ' --><r{many}/>")));
        assert!(roxmltree::Document::parse(&format!("<!DOCTYPE r [<!-- ' -->]><r{many}/>")).is_err(), "no DTD is read");
        let with = |n: usize| (0..n).map(|n| format!(" a{n}='>' ")).collect::<String>();
        let twice = format!("<r><a{}/><b{}/></r>", with(200), with(200));
        assert!(has_few_attributes(&twice) && has_few_attributes("<r>a=b</r>"));
        assert!(!has_few_attributes(&format!("<r><a{}/></r>", with(300))));
        let text = "=".repeat(300);
        assert!(has_few_attributes(&format!("<!-- <{text} --><r><![CDATA[<{text}]]></r>")));
        assert!(has_few_attributes("<r a='"), "not closed: no XML");
    }

    #[test]
    fn nesting_and_namespaces_are_counted_over_the_whole_document() {
        let nested = |n: usize, tag: &str| format!("{}{}", tag.repeat(n), "</a>".repeat(n));
        assert_eq!(xml_size(&nested(10, "<a>"), 10), XmlSize::Parsable);
        assert_eq!(xml_size(&nested(11, "<a>"), 10), XmlSize::TooDeep);
        let siblings = format!("<r>{}{}</r>", "<a><!-- <b> --></a>".repeat(50), "<c/>".repeat(50));
        assert_eq!(xml_size(&siblings, 2), XmlSize::Parsable);
        // A parser that copies the namespaces in scope would need hours for a megabyte of these.
        let spaces: String = (0..300).map(|n| format!("<a xmlns:n{n}='u'>")).collect();
        assert_eq!(xml_size(&spaces, 1_000), XmlSize::TooManyAttributes);
    }
}
