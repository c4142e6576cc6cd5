//! What a content type says of how a body is read.

/// The type of a body, without parameters, in lower case (RFC 9110, section 8.3.1). Empty if none is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType(String);

impl MediaType {
    /// Of the value of a `content-type` field.
    pub fn of(content_type: &str) -> Self {
        Self(content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
    }

    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether none is declared.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// JSON, of whatever kind (RFC 6839, section 3.1).
    pub fn is_json(&self) -> bool {
        self.0.ends_with("/json") || self.0.ends_with("+json")
    }

    /// The fields of a form in one line.
    pub fn is_form(&self) -> bool {
        self.0 == "application/x-www-form-urlencoded"
    }

    /// XML, of whatever kind (RFC 7303, section 4.2).
    pub fn is_xml(&self) -> bool {
        self.0.ends_with("/xml") || self.0.ends_with("+xml")
    }

    /// Text that has no more structure for whoever reads it as text. XML is.
    pub fn is_text(&self) -> bool {
        self.0.starts_with("text/") || self.is_xml()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_do_not_count() {
        let of = MediaType::of(" Application/HAL+JSON ; charset=utf-8");
        assert_eq!((of.as_str(), of.is_json(), of.is_text()), ("application/hal+json", true, false));
        assert!(MediaType::of("text/json").is_json());
        assert!(MediaType::of("application/soap+xml").is_text() && MediaType::of("Text/Plain;x").is_text());
        assert!(MediaType::of("application/x-www-form-urlencoded; charset=utf-8").is_form());
        let other = MediaType::of("application/jsonl");
        assert!(!other.is_json() && !other.is_text() && !other.is_form() && !other.is_empty());
        assert!(MediaType::of("; charset=utf-8").is_empty());
    }
}
