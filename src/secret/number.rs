//! Converts numbers to one notation, so that a value is recognised however a service writes it.

/// A decimal number of any length: `± digits × 10^exponent`, without a zero at either end of the digits. `7e2`, `700`
/// and `700.0` are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CanonicalNumber {
    is_negative: bool,
    digits: String,
    exponent: i64,
}

impl CanonicalNumber {
    /// Reads a number in the notation of JSON. `None` for any other text, and if the exponent does not fit.
    pub fn parse(text: &str) -> Option<Self> {
        let (is_negative, unsigned) = text.strip_prefix('-').map_or((false, text), |unsigned| (true, unsigned));
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let has_leading_zero = whole.len() > 1 && whole.starts_with('0');
        if !is_digits(whole) || !is_digits(fraction) || has_leading_zero {
            return None;
        }
        let all = format!("{whole}{fraction}");
        let digits = all.trim_end_matches('0');
        if digits.is_empty() {
            return Some(Self { is_negative: false, digits: String::new(), exponent: 0 });
        }
        let zeros = i64::try_from(all.len() - digits.len()).ok()?;
        let exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(zeros)?;
        Some(Self { is_negative, digits: digits.trim_start_matches('0').to_owned(), exponent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_same_in_every_notation() {
        let same = |texts: &[&str]| {
            let first = CanonicalNumber::parse(texts[0]).expect("a number");
            texts.iter().for_each(|text| assert_eq!(CanonicalNumber::parse(text).as_ref(), Some(&first), "{text}"));
            first
        };
        let number = same(&["71234567", "71234567.0", "7.1234567e7", "712345670E-1", "0.71234567e+8"]);
        assert_ne!(number, same(&["-71234567", "-7.1234567e7"]));
        assert_ne!(number, same(&["7123456.7", "71234567e-1"]));
        same(&["0", "-0", "0.00", "0e5"]);
        same(&["918273645566000000000000001", "918273645566000000000000.001e3"]);
        for other in ["", "-", "x", "1e", "1.", ".5", "007", "+1", "1 ", "1e99999999999999999999", "0x1"] {
            assert_eq!(CanonicalNumber::parse(other), None, "{other}");
        }
    }
}
