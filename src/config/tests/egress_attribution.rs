//! `egress.correlate` and `egress.window`, independent of the other settings under `egress:`.

use std::time::Duration;

use crate::config::egress_attribution::check;
use crate::egress::{AttributionSettings, Correlate};
use crate::problem::{Problems, Site};

fn checked(correlate: Option<&str>, window: Option<&str>) -> Result<AttributionSettings, Vec<String>> {
    let mut problems = Problems::default();
    let settings = check(correlate, window, &Site::file("pointsman.yaml").key("egress"), &mut problems);
    let errors: Vec<String> = problems.iter().map(|problem| problem.message.clone()).collect();
    settings.ok_or(errors)
}

#[test]
fn settings_that_are_left_out_have_defaults() {
    let settings = checked(None, None).unwrap();
    assert_eq!(settings, AttributionSettings { correlate: Correlate::Trace, window: Duration::from_secs(10) });
    let settings = checked(Some("header.X-Request-Id"), Some("1m")).unwrap();
    assert_eq!((settings.correlate.source().unwrap().as_str(), settings.window.as_secs()), ("header.x-request-id", 60));
    let value = "${call.body.order_ref == request.body.ref}";
    assert_eq!(checked(Some(value), None).unwrap().correlate.source().as_deref(), Some(value));
}

#[test]
fn invalid_rules_and_windows_are_refused() {
    for (correlate, window, message) in [
        (Some("x-request-id"), None, "is neither a header nor an expression"),
        (Some("${call.body.ref == intents.charge.body.ref}"), None, "cannot read `intents`"),
        (Some("${request.body.ref}"), None, "does not say which value of the call"),
        (None, Some("10"), "is not a duration"),
        (None, Some("0s"), "is not between"),
    ] {
        let errors = checked(correlate, window).expect_err("refused");
        assert!(errors.len() == 1 && errors[0].contains(message), "{errors:?}");
    }
}
