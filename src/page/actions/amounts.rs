//! Sums of the amounts in the items of a review.
//!
//! Always true: a sum is exact to the last digit, and amounts of several currencies are not added to each other.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::admin::types::ReviewRow;

/// The members that are taken for amounts, in any case of letters.
const AMOUNTS: &[&str] = &["amount", "total", "price"];
/// The member that says in which currency an amount is.
const CURRENCY: &str = "currency";
/// The most digits behind the point that are added.
const DECIMALS_MAX: usize = 12;

/// The sum of a member over all items.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::page) struct Sum {
    /// The member's name.
    pub name: String,
    /// The sum, with the currency if the items name one.
    pub text: String,
}

/// The sums over all items: of each member with the name of an amount that is a number in all of them.
pub(in crate::page) fn sums(items: &[ReviewRow]) -> Vec<Sum> {
    let Some(first) = items.first().and_then(|item| item.value.as_object()) else { return Vec::new() };
    let is_amount = |name: &&String| AMOUNTS.iter().any(|amount| name.eq_ignore_ascii_case(amount));
    first.keys().filter(is_amount).flat_map(|name| sums_of(items, name)).collect()
}

/// The sum of one member for each currency; empty if it cannot be added up.
fn sums_of(items: &[ReviewRow], name: &str) -> Vec<Sum> {
    let mut totals: BTreeMap<&str, i128> = BTreeMap::new();
    let mut decimals = 0;
    for item in items {
        let Some((amount, digits)) = item.value.get(name).and_then(decimal) else { return Vec::new() };
        let total = totals.entry(item.value.get(CURRENCY).and_then(Value::as_str).unwrap_or_default()).or_default();
        let Some(sum) = total.checked_add(amount) else { return Vec::new() };
        *total = sum;
        decimals = decimals.max(digits);
    }
    let sum = |(currency, total): (&str, i128)| {
        let text = format!("{} {currency}", written(total, decimals));
        Sum { name: name.to_owned(), text: text.trim_end().to_owned() }
    };
    totals.into_iter().map(sum).collect()
}

/// A number in units of 10^-`DECIMALS_MAX`, and how many digits it has behind the point. `None` for what is not written
/// as digits with a point.
fn decimal(value: &Value) -> Option<(i128, usize)> {
    let Value::Number(number) = value else { return None };
    let text = number.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    if fraction.len() > DECIMALS_MAX || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction:0<DECIMALS_MAX$}").parse().ok()?;
    Some((digits, fraction.len()))
}

/// A sum with spaces between thousands.
fn written(total: i128, decimals: usize) -> String {
    let digits = format!("{:0>width$}", total.unsigned_abs(), width = DECIMALS_MAX + 1);
    let (whole, fraction) = digits.split_at(digits.len() - DECIMALS_MAX);
    let mut out = String::from(if total < 0 { "−" } else { "" });
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    if decimals > 0 {
        out.push('.');
        out.push_str(&fraction[..decimals]);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sums_of(values: &str) -> Vec<String> {
        let values: Vec<Value> = serde_json::from_str(values).unwrap();
        let rows = (0..).zip(values).map(|(index, value)| ReviewRow { index, what: String::new(), value });
        let sums = sums(&rows.collect::<Vec<_>>());
        sums.into_iter().map(|sum| format!("{}: {}", sum.name, sum.text.replace('\u{202f}', " "))).collect()
    }

    #[test]
    fn amounts_are_added_exactly() {
        assert_eq!(sums_of(r#"[{"amount": 0.1}, {"amount": 0.2}]"#), ["amount: 0.3"]);
        assert_eq!(sums_of(r#"[{"Total": 1234567.50}, {"Total": -2}]"#), ["Total: 1 234 565.50"]);
        assert_eq!(sums_of(r#"[{"price": -1.25}]"#), ["price: −1.25"]);
        let two =
            r#"[{"amount": 1, "currency": "EUR"}, {"amount": 2, "currency": "USD"}, {"amount": 3, "currency": "EUR"}]"#;
        assert_eq!(sums_of(two), ["amount: 4 EUR", "amount: 2 USD"]);
    }

    #[test]
    fn what_cannot_be_added_has_no_sum() {
        assert_eq!(sums_of(r#"[{"amount": 1}, {"amount": "2"}]"#), [""; 0]);
        assert_eq!(sums_of(r#"[{"amount": 1}, {"other": 2}]"#), [""; 0]);
        assert_eq!(sums_of(r#"[{"amount": 1e3}]"#), [""; 0]);
        assert_eq!(sums_of(r#"[{"amount": 1234567890123456789012345678901234567890}]"#), [""; 0]);
        assert_eq!(sums_of("[7, 8]"), [""; 0]);
        assert_eq!(sums(&[]), []);
        assert_eq!(decimal(&json!("7")), None);
    }
}
