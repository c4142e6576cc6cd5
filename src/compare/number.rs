//! Decimal numbers at full precision, not converted to floating point.

use std::hash::{Hash, Hasher};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A decimal number of any length: `± digits × 10^exponent`, with no zero at either end of the digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    /// Parses a JSON number; `None` if the text is not a number, or its exponent does not fit.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() && fraction.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit())
        {
            return None;
        }
        let mut exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        let mut digits: Vec<u8> =
            whole.bytes().chain(fraction.bytes()).skip_while(|b| *b == b'0').map(|b| b - b'0').collect();
        while digits.last() == Some(&0) {
            digits.pop();
            exponent = exponent.checked_add(1)?;
        }
        if digits.is_empty() {
            return Some(Self { negative: false, digits, exponent: 0 });
        }
        Some(Self { negative, digits, exponent })
    }

    /// Whether the number is below zero.
    pub(super) fn is_negative(&self) -> bool {
        self.negative
    }

    /// Whether the number has no fraction.
    pub(super) fn is_whole(&self) -> bool {
        self.exponent >= 0
    }

    /// Whether two numbers are at most `by` apart. If their distance has more digits than can be computed with, they
    /// are not, unless they are equal.
    pub(super) fn within(&self, other: &Decimal, by: &Decimal) -> bool {
        if self == other {
            return true;
        }
        let scale = self.exponent.min(other.exponent).min(by.exponent);
        let scaled = (self.scaled(scale), other.scaled(scale), by.scaled(scale));
        let (Some(a), Some(b), by) = scaled else { return false };
        let Some(distance) = a.checked_sub(b).and_then(i128::checked_abs) else { return false };
        match by {
            Some(by) => distance <= by,
            // At this scale `by` has more digits than can be computed with, so it exceeds a distance with fewer digits.
            None => distance < 10i128.pow(38),
        }
    }

    fn scaled(&self, scale: i64) -> Option<i128> {
        let zeros = u32::try_from(self.exponent.checked_sub(scale)?).ok()?;
        if self.digits.len() + zeros as usize > 38 {
            return if self.digits.is_empty() { Some(0) } else { None };
        }
        let value = self.digits.iter().fold(0i128, |value, digit| value * 10 + i128::from(*digit));
        let value = value.checked_mul(10i128.checked_pow(zeros)?)?;
        Some(if self.negative { -value } else { value })
    }
}

/// Whether the form of numbers matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NumberForm {
    /// Numbers are equal if their values are: `1.10` equals `1.1`.
    #[default]
    Value,
    /// Numbers are equal only if they are also written alike.
    Strict,
}

impl NumberForm {
    /// Whether two JSON numbers are equal.
    pub(super) fn same(self, a: &str, b: &str) -> bool {
        a == b || self == Self::Value && is_same_value(a, b)
    }
}

/// Whether two JSON numbers are the same number, however they are written.
pub(super) fn is_same_value(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    match (Short::parse(a), Short::parse(b)) {
        (Some(a), Some(b)) => a == b,
        _ => matches!((Decimal::parse(a), Decimal::parse(b)), (Some(a), Some(b)) if a == b),
    }
}

/// Hashes a JSON number so that equal numbers have equal hashes, however they are written.
pub(super) fn hash_number(text: &str, hasher: &mut impl Hasher) {
    let short = Short::parse(text).ok_or_else(|| Decimal::parse(text));
    match short.or_else(|decimal| decimal.as_ref().and_then(Short::of).ok_or(decimal)) {
        Ok(short) => (2u8, short).hash(hasher),
        Err(Some(decimal)) => (2u8, decimal).hash(hasher),
        Err(None) => (2u8, text).hash(hasher),
    }
}

/// A number of few digits, as most are: `digits × 10^exponent`, with no zero at the end of the digits. Allocates no
/// memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Short {
    digits: i64,
    exponent: i64,
}

impl Short {
    /// The most digits.
    const DIGITS_MAX: usize = 18;

    /// Parses a number; `None` if it has an exponent or too many digits, or the text is no number.
    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || digits.len() > Self::DIGITS_MAX {
            return None;
        }
        let (mut value, mut fraction) = (0_i64, None);
        for byte in digits.bytes() {
            match byte {
                b'0'..=b'9' => {
                    value = value * 10 + i64::from(byte - b'0');
                    fraction = fraction.map(|count: i64| count + 1);
                }
                b'.' if fraction.is_none() => fraction = Some(0),
                _ => return None,
            }
        }
        if digits == "." {
            return None;
        }
        let value = if digits.len() < text.len() { -value } else { value };
        Some(Self { digits: value, exponent: -fraction.unwrap_or(0) }.trimmed())
    }

    /// The same number, if it has few digits.
    fn of(decimal: &Decimal) -> Option<Self> {
        if decimal.digits.len() > Self::DIGITS_MAX {
            return None;
        }
        let value = decimal.digits.iter().fold(0, |value, digit| value * 10 + i64::from(*digit));
        Some(Self { digits: if decimal.negative { -value } else { value }, exponent: decimal.exponent })
    }

    fn trimmed(mut self) -> Self {
        if self.digits == 0 {
            return Self { digits: 0, exponent: 0 };
        }
        while self.digits % 10 == 0 {
            self.digits /= 10;
            self.exponent += 1;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn the_same_number_however_it_is_written() {
        for (a, b) in [("1.0", "1.00"), ("1", "1.0"), ("100", "1e2"), ("-0", "0"), ("0.10", "1E-1"), ("0e9", "0")] {
            assert_eq!(decimal(a), decimal(b), "{a} {b}");
        }
        for (a, b) in [("9007199254740993", "9007199254740992"), ("0.1", "0.10000000000000001"), ("-1", "1")] {
            assert_ne!(decimal(a), decimal(b), "{a} {b}");
        }
    }

    fn hash_of(text: &str) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        hash_number(text, &mut hasher);
        hasher.finish()
    }

    proptest! {
        /// A number of few digits is compared and hashed without the decimal, with the same result.
        #[test]
        fn a_short_number_equals_what_its_decimal_equals(
            a in r"-?[0-9]{0,4}\.?[0-9]{0,3}(00000|e-?[0-9])?", b in r"-?[0-9]{1,2}0{0,20}\.?[0-9]{0,3}0{0,20}",
            zeros in 0_usize..25,
        ) {
            for text in [&a, &b] {
                if let Some(short) = Short::parse(text) {
                    prop_assert_eq!(Some(short), Decimal::parse(text).as_ref().and_then(Short::of), "{}", text);
                }
            }
            let other = if a.contains('.') { format!("{a}{}", "0".repeat(zeros)) } else { format!("{a}e0") };
            for (a, b) in [(&a, &b), (&a, &other)] {
                let (Some(of_a), Some(of_b)) = (Decimal::parse(a), Decimal::parse(b)) else { continue };
                prop_assert_eq!(hash_of(a) == hash_of(b), of_a == of_b, "{} {}", a, b);
                prop_assert_eq!(is_same_value(a, b), of_a == of_b, "{} {}", a, b);
            }
        }
    }

    #[test]
    fn tolerance_is_exact_at_its_edge() {
        let within = |a, b, by| decimal(a).within(&decimal(b), &decimal(by));
        assert!(within("10.005", "10", "0.005"));
        assert!(within("0.3", "0.1", "0.2"));
        assert!(!within("10.0051", "10", "0.005"));
        assert!(!within("1e400", "1", "0.5"));
        assert!(within("1e400", "1.0e400", "0"));
        assert!(within("0", "0.004", "0.005"));
        assert!(within("0", "1.2345678901234567e-23", "1"), "the tolerance has more digits than the distance");
        assert!(!within("2", "1.2345678901234567e-23", "1"));
        assert!(!within("12345678901234567890.000000000000000001", "12345678901234567891.5", "0.0000000000000000001"));
        assert!(!within("1000000000000000000000000000000000000000", "1000000000000000000000000000000000000002", "1"));
    }

    #[test]
    fn a_huge_exponent_does_not_panic() {
        assert!(Decimal::parse("1e99999999999999999999").is_none());
        let huge = decimal("1e9223372036854775807");
        assert!(!huge.within(&decimal("1"), &decimal("1")));
    }
}
