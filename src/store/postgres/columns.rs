//! Encodes values for columns and decodes them.
//!
//! Always true: decoding returns what was encoded, also text with a NUL, which the database's type cannot store.

use std::borrow::Cow;

use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::{PgRow, Postgres};
use uuid::Uuid;

use crate::flag::Arm;
use crate::names::RunId;
use crate::store::{StoreError, encoded};

pub(super) type Result<T> = std::result::Result<T, StoreError>;

/// The first character of an escape sequence.
const ESCAPE: char = '\u{1a}';

/// Escapes the characters that a text column cannot store.
pub(super) fn escape(value: &str) -> Cow<'_, str> {
    match value.contains(['\0', ESCAPE]) {
        true => value.replace(ESCAPE, "\u{1a}1").replace('\0', "\u{1a}0").into(),
        false => value.into(),
    }
}

/// Reverses [`escape`].
pub(super) fn unescape(value: String) -> String {
    match value.contains(ESCAPE) {
        true => value.replace("\u{1a}0", "\0").replace("\u{1a}1", "\u{1a}"),
        false => value,
    }
}

/// Decodes text that is stored as bytes.
pub(super) fn utf8_text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|error| StoreError(format!("a stored name cannot be read: {error}")))
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| StoreError(format!("a record cannot be written as JSON: {error}")))
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| StoreError(format!("a stored record cannot be read: {error}")))
}

/// Decodes a column's value.
pub(super) fn column<'r, T>(row: &'r PgRow, index: usize) -> Result<T>
where
    T: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
{
    row.try_get(index).map_err(|error| StoreError(format!("a stored record cannot be read: {error}")))
}

/// Decodes the JSON record in a column.
pub(super) fn record<T: serde::de::DeserializeOwned>(row: &PgRow, index: usize) -> Result<T> {
    parse(column::<&[u8]>(row, index)?)
}

/// A limit as a bind value.
pub(super) fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn time(ns: i64) -> Result<Timestamp> {
    Timestamp::from_nanosecond(i128::from(ns))
        .map_err(|error| StoreError(format!("a stored time cannot be read: {error}")))
}

pub(super) fn run_id(bytes: &[u8]) -> Result<RunId> {
    uuid(bytes).map(RunId)
}

pub(super) fn uuid(bytes: &[u8]) -> Result<Uuid> {
    Uuid::from_slice(bytes).map_err(|error| StoreError(format!("a stored id cannot be read: {error}")))
}

pub(super) fn arm(name: &str) -> Result<Arm> {
    encoded::arm(name).ok_or_else(|| StoreError(format!("a stored record names an unknown arm `{name}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unescape_reverses_escape() {
        for given in ["", "a", "\0", "\u{1a}", "\u{1a}0", "\0\u{1a}1\u{1a}\0", "\u{1a}\u{1a}0\0"] {
            let escaped = escape(given).into_owned();
            assert!(!escaped.contains('\0'));
            assert_eq!(unescape(escaped), given);
        }
    }
}
