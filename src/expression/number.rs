//! Arithmetic on JSON numbers.
//!
//! A number without a fraction or exponent is an integer: computed as i128, and a result must fit i64 or u64. Every
//! other number is a double. Mixed arithmetic gives a double. A whole double stays a double: `10.0 * 2` is `20.0`.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::error::ExpressionError;

/// A number to compute with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Num {
    Int(i128),
    Double(f64),
}

impl Num {
    pub(super) fn of(number: &Number) -> Self {
        match number.as_i128() {
            Some(int) => Num::Int(int),
            None => Num::Double(number.as_f64().unwrap_or(f64::NAN)),
        }
    }

    pub(super) fn double(self) -> f64 {
        match self {
            Num::Int(int) => int as f64,
            Num::Double(double) => double,
        }
    }

    /// The number as JSON.
    ///
    /// # Errors
    /// A double that is not finite; an integer that neither i64 nor u64 holds.
    pub(super) fn value(self) -> Result<Value, ExpressionError> {
        match self {
            Num::Int(int) => {
                let signed = i64::try_from(int).map(Number::from);
                let number = signed.or_else(|_| u64::try_from(int).map(Number::from));
                number.map(Value::Number).map_err(|_| ExpressionError::new(format!("{int} is too large an integer")))
            }
            Num::Double(double) => Number::from_f64(double)
                .map(Value::Number)
                .ok_or_else(|| ExpressionError::new("the result is not a finite number")),
        }
    }

    pub(super) fn compare(self, other: Num) -> Option<Ordering> {
        match (self, other) {
            (Num::Int(a), Num::Int(b)) => Some(a.cmp(&b)),
            (Num::Double(a), Num::Double(b)) => a.partial_cmp(&b),
            (Num::Int(a), Num::Double(b)) => compare_int_double(a, b),
            (Num::Double(a), Num::Int(b)) => compare_int_double(b, a).map(Ordering::reverse),
        }
    }

    pub(super) fn negate(self) -> Result<Num, ExpressionError> {
        match self {
            Num::Int(int) => int.checked_neg().map(Num::Int).ok_or_else(overflow),
            Num::Double(double) => Ok(Num::Double(-double)),
        }
    }

    pub(super) fn add(self, other: Num) -> Result<Num, ExpressionError> {
        self.combine(other, i128::checked_add, |a, b| a + b)
    }
    pub(super) fn subtract(self, other: Num) -> Result<Num, ExpressionError> {
        self.combine(other, i128::checked_sub, |a, b| a - b)
    }
    pub(super) fn multiply(self, other: Num) -> Result<Num, ExpressionError> {
        self.combine(other, i128::checked_mul, |a, b| a * b)
    }
    /// Integers divide to an integer, as CEL says; `double(a) / b` keeps the fraction.
    pub(super) fn divide(self, other: Num) -> Result<Num, ExpressionError> {
        if other.double() == 0.0 {
            return Err(ExpressionError::new("division by zero"));
        }
        self.combine(other, i128::checked_div, |a, b| a / b)
    }
    pub(super) fn remainder(self, other: Num) -> Result<Num, ExpressionError> {
        if other.double() == 0.0 {
            return Err(ExpressionError::new("division by zero"));
        }
        self.combine(other, i128::checked_rem, |a, b| a % b)
    }

    fn combine(
        self,
        other: Num,
        ints: fn(i128, i128) -> Option<i128>,
        doubles: fn(f64, f64) -> f64,
    ) -> Result<Num, ExpressionError> {
        match (self, other) {
            (Num::Int(a), Num::Int(b)) => ints(a, b).map(Num::Int).ok_or_else(overflow),
            (a, b) => Ok(Num::Double(doubles(a.double(), b.double()))),
        }
    }

    /// Rounds to decimal digits, half away from zero, on the number's decimal text: 1.005 gives 1.01, although the
    /// double nearest to 1.005 is slightly less.
    pub(super) fn round(self, digits: usize) -> Num {
        match self {
            Num::Int(int) => Num::Int(int),
            Num::Double(double) if !double.is_finite() => self,
            Num::Double(double) => Num::Double(round_text(&format!("{}", double.abs()), digits).copysign(double)),
        }
    }

    /// The integer part: what `floor`, `ceil`, `round(x)` and `int` return.
    pub(super) fn whole(self) -> Result<Num, ExpressionError> {
        match self {
            Num::Double(double) if double.abs() < 1e19 => Ok(Num::Int(double as i128)),
            Num::Double(double) => Err(ExpressionError::new(format!("{double} is too large an integer"))),
            int => Ok(int),
        }
    }
}

/// Compares exactly: converting a large integer to a double first would make it equal to its neighbours.
fn compare_int_double(int: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // From 2^127 on, the double is beyond the range of i128, so its sign alone decides.
    if double.abs() >= 2f64.powi(127) {
        return Some(if double > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let whole = double.trunc();
    Some(int.cmp(&(whole as i128)).then_with(|| 0.0f64.partial_cmp(&(double - whole)).unwrap_or(Ordering::Equal)))
}

fn round_text(text: &str, digits: usize) -> f64 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let Some(next) = fraction.as_bytes().get(digits) else {
        return text.parse().unwrap_or(f64::NAN);
    };
    let mut rounded: Vec<u8> = whole.bytes().chain(fraction.bytes().take(digits)).collect();
    if *next >= b'5' {
        let mut at = rounded.len();
        loop {
            if at == 0 {
                rounded.insert(0, b'1');
                break;
            }
            at -= 1;
            if rounded[at] == b'9' {
                rounded[at] = b'0';
            } else {
                rounded[at] += 1;
                break;
            }
        }
    }
    let point = rounded.len() - digits;
    let text = String::from_utf8_lossy(&rounded);
    let (whole, fraction) = text.split_at(point);
    format!("{whole}.{fraction}0").parse().unwrap_or(f64::NAN)
}

fn overflow() -> ExpressionError {
    ExpressionError::new("the integer is too large")
}
