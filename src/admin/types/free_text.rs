//! Texts that people write into requests (reasons, notes). They are recorded for good and shown to everybody who may
//! read, so what looks like a secret in them is replaced as soon as they are read.

use serde::{Deserialize, Deserializer};

use crate::secret::redact_line;

pub(super) fn required<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(redact_line(&String::deserialize(deserializer)?))
}

pub(super) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(|text| redact_line(&text)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::admin::types::{
        AdoptionDecisionRequest, CandidateRequest, FlipRequest, FreezeRequest, GuardReleaseRequest,
    };
    use crate::admin::types::{CancelRequest, PauseRequest};

    /// The reason in a request with these other fields.
    macro_rules! reason {
        ($request:ty, $fields:tt, $reason:expr) => {{
            let mut body = json!($fields);
            body["reason"] = $reason.into();
            let request: $request = serde_json::from_value(body).unwrap();
            Option::<String>::from(request.reason).unwrap()
        }};
    }

    #[test]
    fn reasons_are_read_without_secrets() {
        for (written, read) in [
            ("drill, password=hunter2", "drill, password=***"),
            ("card 4111 1111 1111 1111 was charged twice", "card *** was charged twice"),
            ("the card service is slow, see ticket 4711", "the card service is slow, see ticket 4711"),
        ] {
            assert_eq!(reason!(FlipRequest, { "to": "dark" }, written), read);
            assert_eq!(reason!(FreezeRequest, { "on": true }, written), read);
            assert_eq!(reason!(CandidateRequest, { "to": "in-force" }, written), read);
            assert_eq!(reason!(GuardReleaseRequest, {}, written), read);
            assert_eq!(reason!(AdoptionDecisionRequest, { "id": "7", "owner": "legacy" }, written), read);
            assert_eq!(reason!(PauseRequest, {}, written), read);
            assert_eq!(reason!(CancelRequest, {}, written), read);
        }
        let none: FlipRequest = serde_json::from_value(json!({ "to": "dark" })).unwrap();
        assert_eq!(none.reason, None);
    }
}
