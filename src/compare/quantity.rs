//! Tells from the text around a number whether it is a quantity: an amount of money, a measure, a date.
//!
//! If 4000 is legacy's id and 5000 the engine's, `order 4000` and `order 5000` are equal, but `4000 EUR` and `5000 EUR`
//! must not be.

/// Words for amounts: a number after one of them is a quantity.
const AMOUNTS: &[&str] = &[
    "amount", "amounts", "balance", "cents", "cost", "costs", "count", "discount", "fee", "fees", "net", "gross",
    "paid", "price", "prices", "qty", "quantity", "subtotal", "sum", "tax", "total",
];
/// Units; in lower case. Those of one letter are recognised only after a blank.
const UNITS: &[&str] = &[
    "cent", "cents", "ct", "cts", "euro", "euros", "dollar", "dollars", "pound", "pounds", "pence", "franc", "francs",
    "yen", "rappen", "percent", "pct", "points", "pts", "item", "items", "pc", "pcs", "piece", "pieces", "units",
    "unit", "kg", "g", "mg", "km", "m", "cm", "mm", "l", "ml", "ms", "s", "sec", "secs", "second", "seconds", "min",
    "mins", "minute", "minutes", "h", "hour", "hours", "day", "days", "bytes", "kb", "mb", "gb", "kwh", "kw",
];
/// Codes of currencies (ISO 4217) that are common.
const CURRENCIES: &[&str] = &[
    "AED", "ARS", "AUD", "BGN", "BRL", "CAD", "CHF", "CLP", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF", "IDR",
    "ILS", "INR", "JPY", "KRW", "MXN", "NOK", "NZD", "PLN", "RON", "RUB", "SEK", "SGD", "THB", "TRY", "USD", "ZAR",
];
const SYMBOLS: [char; 7] = ['€', '$', '£', '¥', '%', '‰', '°'];
/// Blanks between a number and its unit.
const BLANKS: [char; 4] = [' ', '\t', '\u{a0}', '\u{202f}'];
/// The longest word that is looked at.
const WORD_CHARS_MAX: usize = 24;

/// Whether a whole number between two texts is a quantity.
pub(super) fn is_quantity(before: &str, number: &str, after: &str) -> bool {
    has_fraction(after)
        || is_fraction(before)
        || has_unit(after)
        || has_currency(before)
        || is_year(before, number, after)
        || names_an_amount(word_before(before))
}

/// Whether a name is that of an amount: `amount`, `amount_paid`, `unitPrice`.
pub(super) fn names_an_amount(name: &str) -> bool {
    let start = name.char_indices().rev().find(|(_, c)| !c.is_alphabetic() || c.is_uppercase());
    let last = match start {
        // The capital letter of `unitPrice` belongs to the word; `TOTAL` is one word.
        Some((at, c)) if c.is_uppercase() && !name.chars().all(|c| c.is_uppercase()) => &name[at..],
        Some((at, c)) if !c.is_alphabetic() => &name[at + c.len_utf8()..],
        Some(_) | None => name,
    };
    AMOUNTS.iter().any(|amount| last.eq_ignore_ascii_case(amount))
}

/// The word before a number, without what separates the two.
pub(super) fn word_before(before: &str) -> &str {
    let before = before.trim_end_matches(|c: char| BLANKS.contains(&c) || matches!(c, ':' | '=' | '"' | '\'' | '#'));
    let start = before.char_indices().rev().take(WORD_CHARS_MAX + 1).find(|(_, c)| !is_word_char(*c));
    match start {
        Some((at, c)) => &before[at + c.len_utf8()..],
        None if before.chars().count() <= WORD_CHARS_MAX => before,
        None => "",
    }
}

fn is_word_char(c: char) -> bool {
    c.is_alphabetic() || matches!(c, '_' | '-')
}

/// Whether a decimal part follows: `.00`, `,5`, but not `.pdf` or `,4001`.
pub(super) fn has_fraction(after: &str) -> bool {
    let Some(rest) = after.strip_prefix(['.', ',']) else { return false };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let ends = rest[digits..].chars().next().is_none_or(|c| !c.is_alphanumeric());
    ends && digits > 0 && (after.starts_with('.') || digits <= 2)
}

/// Whether the number is the decimal part of another one.
fn is_fraction(before: &str) -> bool {
    before.strip_suffix('.').is_some_and(|before| before.ends_with(|c: char| c.is_ascii_digit()))
}

fn has_unit(after: &str) -> bool {
    let rest = after.trim_start_matches(BLANKS);
    let is_apart = rest.len() < after.len();
    if rest.starts_with(SYMBOLS) {
        return true;
    }
    let rest = rest.strip_prefix(['-', '_']).unwrap_or(rest);
    let end = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
    // A unit that digits follow is a part of a name.
    if rest[end..].starts_with(|c: char| c.is_alphanumeric()) {
        return false;
    }
    let word = &rest[..end];
    CURRENCIES.contains(&word)
        || (is_apart || word.len() > 1) && UNITS.iter().any(|unit| word.eq_ignore_ascii_case(unit))
}

fn has_currency(before: &str) -> bool {
    let before = before.trim_end_matches(BLANKS);
    if before.ends_with(['€', '$', '£', '¥']) {
        return true;
    }
    let start = before.char_indices().rev().find(|(_, c)| !c.is_alphanumeric());
    CURRENCIES.contains(&start.map_or(before, |(at, c)| &before[at + c.len_utf8()..]))
}

/// Whether the number is the year of a date: `2026-11-17`, `17.11.2026`, `11/17/2026`.
fn is_year(before: &str, number: &str, after: &str) -> bool {
    let is_digit = |b: &u8| b.is_ascii_digit();
    if number.len() != 4 || !(number.starts_with("19") || number.starts_with("20")) {
        return false;
    }
    let month_follows = matches!(after.as_bytes(), [b'-', a, b, rest @ ..] if is_digit(a) && is_digit(b)
        && rest.first().is_none_or(|next| !next.is_ascii_alphanumeric()));
    let day_before =
        matches!(before.as_bytes(), [.., c, b'/', a, b, b'/'] if is_digit(a) && is_digit(b) && is_digit(c));
    month_follows || day_before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_a_unit_a_currency_or_a_fraction_are_quantities() {
        for (before, after) in [
            ("pay ", " cents"),
            ("", ".00 EUR"),
            ("", ",5"),
            ("EUR ", ""),
            ("€", ""),
            ("USD", " due"),
            ("", "kg"),
            ("", " kg"),
            ("", "\u{a0}€"),
            ("17.", ""),
            ("/charges?amount=", ""),
            ("{\"unitPrice\":", "}"),
            ("Total: ", ""),
            ("amount_paid=", ""),
        ] {
            assert!(is_quantity(before, "4000", after), "{before:?} {after:?}");
        }
        for (before, after) in [
            ("Order ", " placed"),
            ("A", "DE"),
            ("A", "DE9"),
            ("order_", ".pdf"),
            ("", ",4001"),
            ("see ", "."),
            ("account=", ""),
            ("", " of 7"),
            ("bid=", ""),
        ] {
            assert!(!is_quantity(before, "4000", after), "{before:?} {after:?}");
        }
        assert!(is_quantity("", "2026", "-11-17") && is_quantity("11/17/", "2026", ""));
        assert!(!is_quantity("", "2026", "-A") && !is_quantity("/orders/", "2026", ""));
    }
}
