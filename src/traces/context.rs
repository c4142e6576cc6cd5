//! Which trace a message belongs to: the field `traceparent` of W3C Trace Context
//! (<https://www.w3.org/TR/trace-context/>).
//!
//! Always true: a value that the recommendation calls invalid is no context, so that a request with one gets a new
//! trace.

use crate::names::RunId;

/// The length of a value.
const VALUE_BYTES: usize = 55;

/// A span within its trace, as `traceparent` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; not zero.
    pub trace_id: u128,
    /// The span; not zero.
    pub span_id: u64,
    /// Whether the sender records its spans.
    pub is_sampled: bool,
}

impl TraceContext {
    /// A new span in a new trace.
    pub fn random(is_sampled: bool) -> Self {
        Self { trace_id: fastrand::u128(1..), span_id: random_span_id(), is_sampled }
    }

    /// The span of a run, in a trace of its own.
    pub fn of_run(run: RunId, is_sampled: bool) -> Self {
        Self { trace_id: run.0.as_u128().max(1), span_id: run_span_id(run), is_sampled }
    }

    /// The span of an attempt of a call of a run's step. Derived from these values alone, so that the request carries
    /// the id before the span is recorded. `part` is `do`, `probe` or `undo`.
    pub fn of_attempt(self, run: RunId, step: &str, item: Option<u32>, part: &str, number: u32) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(run.0.as_bytes());
        for text in [step, part] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.update(&item.map_or(0, |item| u64::from(item) + 1).to_le_bytes());
        hasher.update(&number.to_le_bytes());
        let mut id = [0; 8];
        hasher.finalize_xof().fill(&mut id);
        Self { span_id: u64::from_le_bytes(id).max(1), ..self }
    }

    /// Reads the value of a `traceparent`. `None` if it is not valid.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (VALUE_BYTES.., Some(rest)) = (value.len(), value.get(VALUE_BYTES..)) else { return None };
        let are_separated = value[2] == b'-' && value[35] == b'-' && value[52] == b'-';
        let version = hex(&value[..2])?;
        // Later versions may add fields at the end.
        let has_valid_end = rest.is_empty() || (version != 0 && rest[0] == b'-');
        if !are_separated || version == 0xff || !has_valid_end {
            return None;
        }
        let (trace_id, span_id, flags) = (hex(&value[3..35])?, hex(&value[36..52])?, hex(&value[53..55])?);
        let span_id = u64::try_from(span_id).ok()?;
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, is_sampled: flags & 1 == 1 })
    }

    /// The value of a `traceparent`.
    pub fn to_traceparent(self) -> [u8; VALUE_BYTES] {
        let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut value[3..35], &self.trace_id.to_be_bytes());
        write_hex(&mut value[36..52], &self.span_id.to_be_bytes());
        value[54] = if self.is_sampled { b'1' } else { b'0' };
        value
    }
}

/// An id for a span.
pub(super) fn random_span_id() -> u64 {
    fastrand::u64(1..)
}

/// The id of a run's span. The same in each process, so that steps of a resumed run are its children.
pub(super) fn run_span_id(run: RunId) -> u64 {
    (run.0.as_u128() as u64).max(1)
}

fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// Writes bytes as hexadecimal digits, eight digits at once: this runs for each request without a `traceparent`.
fn write_hex(to: &mut [u8], bytes: &[u8]) {
    for (digits, bytes) in to.as_chunks_mut::<8>().0.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *digits = hex_digits(u32::from_be_bytes(*bytes)).to_be_bytes();
    }
}

/// The digits of a number, one in each byte.
fn hex_digits(number: u32) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let mut values = u64::from(number);
    values = (values | values << 16) & 0x0000_ffff_0000_ffff;
    values = (values | values << 8) & 0x00ff_00ff_00ff_00ff;
    values = (values | values << 4) & (0x0f * EACH);
    // 1 in the bytes of the values above 9. No sum exceeds its byte.
    let are_letters = (values + 6 * EACH) >> 4 & EACH;
    values + u64::from(b'0') * EACH + are_letters * u64::from(b'a' - b'0' - 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_and_written() {
        let value = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = TraceContext::parse(value).unwrap();
        assert_eq!((context.span_id, context.is_sampled), (0xb7ad_6b71_6920_3331, true));
        assert_eq!(context.to_traceparent(), *value);
        for context in [TraceContext::random(false), TraceContext::random(true)] {
            assert_eq!(TraceContext::parse(&context.to_traceparent()), Some(context));
        }
        let every_digit = TraceContext { trace_id: 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210, ..context };
        assert_eq!(every_digit.to_traceparent(), *b"00-0123456789abcdeffedcba9876543210-b7ad6b7169203331-01");
    }

    #[test]
    fn each_attempt_has_a_span_which_is_the_same_in_each_process() {
        let run = RunId(uuid::Uuid::from_u128(42));
        let context = TraceContext::of_run(run, true);
        let first = context.of_attempt(run, "charge", None, "do", 1);
        assert_eq!((first.trace_id, first.span_id), (42, 3_020_392_495_408_431_695), "as in earlier versions");
        let others = [
            context.of_attempt(RunId(uuid::Uuid::from_u128(43)), "charge", None, "do", 1),
            context.of_attempt(run, "charg", None, "edo", 1),
            context.of_attempt(run, "charge", Some(0), "do", 1),
            context.of_attempt(run, "charge", None, "undo", 1),
            context.of_attempt(run, "charge", None, "do", 2),
        ];
        assert!(others.iter().all(|other| other.span_id != first.span_id), "{first:?} {others:?}");
    }

    #[test]
    fn invalid_values_are_no_context() {
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let is_context = |value: &str| TraceContext::parse(value.as_bytes()).is_some();
        assert!(is_context(valid));
        assert!(is_context(&valid.replacen("00", "cc", 1)), "a later version");
        assert!(is_context(&format!("01{}-more", &valid[2..])), "a later version, with another field");
        for invalid in [
            "garbage",
            &format!("{valid}-more"),
            &format!("ff{}", &valid[2..]),
            &valid.to_uppercase(),
            &valid.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &valid.replace("b7ad6b7169203331", &"0".repeat(16)),
            &valid.replace('-', "_"),
            &valid[..54],
        ] {
            assert!(!is_context(invalid), "{invalid}");
        }
    }
}
