//! PURE. Templates and CEL expressions: parses them, lists what they read, evaluates them.
//!
//! The question it answers: "what is the value of `${ … }` here, and what does it read?" One expression language for
//! workflows, keys, cohorts and assertions.
//!
//! Always true: an [`Expression`] or [`Template`] has been parsed, its nesting and size are bounded, and
//! [`Expression::reads`] lists every full path it can read, so that checks know before any request which steps,
//! secrets and parts of the request it touches. No clock, no IO, no side effects. Evaluation borrows from the values
//! of the [`Scope`] and copies only what becomes part of the result; its work is counted, and it stops at a fixed
//! budget.
//!
//! The grammar is CEL's, parsed by the crate `cel`. The syntax tree is evaluated here directly on JSON, because inputs
//! and results are JSON: nothing is converted, numbers that are only passed on keep every digit, mixed arithmetic
//! (`total * 2`, `1.5 * 2`) gives a number, and an absent key is named by its whole path.
//!
//! Where it differs from plain CEL: `has(a.b.c)` is false (not an error) where `a.b` is absent too; there are no
//! bytes, timestamps, durations and messages; an unsigned number (`1u`) is like any other number; a header is found
//! in any case of its name (`request.headers["X-A"]`, `"X-A" in headers`); and there are functions that workflows need
//! (`default`, `round`, `sum`, …; `functions` lists them).
//!
//! It leaves to its callers which names exist in a scope and what they mean.

mod bounds;
mod created_id_source;
mod error;
mod evaluate;
mod form;
mod functions;
mod header_pattern;
mod json;
mod json_path;
mod lookup;
mod macros;
mod masked;
mod media_type;
mod node;
mod number;
mod operators;
mod parse;
mod parsed;
mod pseudo_random;
mod reads;
mod scan;
mod scope;
mod shared_json;
mod step_results;
mod template;
mod url;
mod value;

#[cfg(test)]
mod tests;

pub use bounds::Bounds;
pub use created_id_source::{CreatedIdSource, IdHeader, id_spellings, id_text};
pub use error::ExpressionError;
pub use evaluate::DIALECT;
pub use form::{parse_fields_strictly, parse_form, parse_form_strictly, parse_form_with};
pub use header_pattern::{HeaderPattern, HeaderPatternError, is_id_name};
pub use json::{RESERVED_PREFIX, is_reserved_key, parse_json, refuse_reserved_keys, without_byte_order_mark};
pub use json_path::{JsonPathError, last_name, parse_json_path};
pub use masked::{shown_condition, without_literals};
pub use media_type::MediaType;
pub use parse::{EFFECTS, EFFECTS_OF_ALL_STEPS};
pub use parsed::Expression;
pub use reads::ReadPath;
pub use scope::{InjectedDraws, Scope, ScopeValue};
pub use shared_json::SharedJson;
pub use step_results::{StepFields, StepResults};
pub use template::Template;
pub use url::UrlTemplate;
