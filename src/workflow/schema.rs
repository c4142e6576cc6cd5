//! JSON Schemas that a workflow declares for inputs, outputs and answers.

use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

/// A compiled JSON Schema.
pub struct Schema(jsonschema::Validator);

impl Schema {
    /// Compiles a schema. Patterns are matched in linear time and no reference is fetched, so a schema cannot delay a
    /// request.
    pub(super) fn compile(schema: &Value) -> Result<Self, InvalidSchema> {
        let options = jsonschema::options().with_pattern_options(jsonschema::PatternOptions::regex());
        options
            .build(schema)
            .map(Self)
            .map_err(|error| InvalidSchema { pointer: error.instance_path().to_string(), message: error.to_string() })
    }

    /// Checks a value against it.
    ///
    /// # Errors
    /// What is wrong with it, at most a few sentences, each with its JSON pointer.
    pub fn check(&self, value: &Value) -> Result<(), Vec<String>> {
        self.check_where(value, |_| true)
    }

    /// As [`Schema::check`], but ignores the errors for which `counts` gives false.
    pub(super) fn check_where(
        &self,
        value: &Value,
        counts: impl Fn(&SchemaError<'_>) -> bool,
    ) -> Result<(), Vec<String>> {
        let errors: Vec<String> = self
            .0
            .iter_errors(value)
            .filter(|error| counts(&SchemaError(error)))
            .take(8)
            .map(|error| {
                let pointer = error.instance_path().to_string();
                // The message does not quote the value, which may be large or sensitive.
                let message = error.masked().to_string();
                if pointer.is_empty() { message } else { format!("{pointer}: {message}") }
            })
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// One error that a schema reports for a value.
pub(super) struct SchemaError<'a>(&'a jsonschema::ValidationError<'a>);

impl SchemaError<'_> {
    /// Which part of the value it is about, as a JSON pointer.
    pub(super) fn at(&self) -> &str {
        self.0.instance_path().as_str()
    }
    /// The name of the property that is missing there.
    pub(super) fn missing_property(&self) -> Option<&str> {
        match self.0.kind() {
            ValidationErrorKind::Required { property } => property.as_str(),
            _ => None,
        }
    }
    /// Whether the error depends only on the type of that part, or on the number or names of its members, and not on
    /// their values.
    pub(super) fn is_about_members(&self) -> bool {
        const ABOUT_MEMBERS: [&str; 7] =
            ["type", "required", "additionalProperties", "minProperties", "maxProperties", "minItems", "maxItems"];
        ABOUT_MEMBERS.contains(&self.0.kind().keyword())
    }
    /// Whether the error follows only from an `if`, which may read other parts of the value.
    pub(super) fn is_conditional(&self) -> bool {
        let path = self.0.evaluation_path();
        ["/then/", "/else/"].iter().any(|keyword| path.as_str().contains(keyword))
    }
}

/// Why a value is not a valid JSON Schema.
#[derive(Debug)]
pub(super) struct InvalidSchema {
    /// The place in the schema, as a JSON pointer.
    pub pointer: String,
    /// What is wrong there.
    pub message: String,
}
