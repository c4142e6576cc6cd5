//! JSON Schemas that a workflow declares for inputs, outputs and answers.

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
        let errors: Vec<String> = self
            .0
            .iter_errors(value)
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

/// Why a value is not a valid JSON Schema.
#[derive(Debug)]
pub(super) struct InvalidSchema {
    /// Where in it, as a JSON pointer.
    pub pointer: String,
    /// What is wrong there.
    pub message: String,
}
