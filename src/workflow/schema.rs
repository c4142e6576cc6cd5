//! JSON Schemas that a workflow declares, of inputs, outputs and answers.

use serde_json::Value;

/// A compiled JSON Schema.
pub struct Schema(jsonschema::Validator);

impl Schema {
    /// Patterns run in linear time, and nothing is fetched: a schema cannot hold up a request.
    pub(super) fn compile(schema: &Value) -> Result<Self, NoSchema> {
        let options = jsonschema::options().with_pattern_options(jsonschema::PatternOptions::regex());
        options
            .build(schema)
            .map(Self)
            .map_err(|error| NoSchema { pointer: error.instance_path().to_string(), message: error.to_string() })
    }

    /// Holds a value against it.
    ///
    /// # Errors
    /// What is wrong with it, at most a few sentences, each with its JSON pointer.
    pub fn check(&self, value: &Value) -> Result<(), Vec<String>> {
        let errors: Vec<String> = self
            .0
            .iter_errors(value)
            .take(8)
            .map(|error| {
                let place = error.instance_path().to_string();
                // The value itself may be anything and of any size: the message names its place only.
                let message = error.masked().to_string();
                if place.is_empty() { message } else { format!("{place}: {message}") }
            })
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// Why something is no JSON Schema.
#[derive(Debug)]
pub(super) struct NoSchema {
    /// Where in it, as a JSON pointer.
    pub pointer: String,
    /// What is wrong there.
    pub message: String,
}
