use super::*;
use crate::workflow::{RecordedHeaders, StepPart};

fn recorded(plan: &Plan, step: &str, part: StepPart) -> Option<Vec<String>> {
    let (index, _) = plan.step(&StepId::from(step)).unwrap();
    match &*plan.recorded_headers(index, part) {
        RecordedHeaders::All => None,
        RecordedHeaders::Only(names) => Some(names.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn headers_of_replies_that_an_expression_can_read_are_recorded_and_no_others() {
    let environment = Environment { store_key: true, ..Environment::new() };
    let (plan, problems) = environment.check(
        r#"
workflow: w
input: { sensitive_headers: [X-Session] }
steps:
  unread: { call: 'GET ${services.stock}/a' }
  named: { call: 'PUT ${services.stock}/b', undo: 'DELETE ${services.stock}/b' }
  any: { call: 'GET ${services.stock}/d' }
  first: { call: 'PUT ${services.stock}/e', fallback: second }
  second: { call: 'PUT ${services.stock}/f', fallback_only: true }
  reader:
    set:
      tag: '${steps.named.headers["ETag"]}'
      known: '${has(steps.named.headers.location)}'
      computed: '${steps.any.headers[request.body.name]}'
      taken: '${steps.first.headers.etag}'
respond: { status: 200, body: '${steps.unread.output}' }
"#,
    );
    let plan = plan.unwrap_or_else(|| panic!("{problems:?}"));
    let of = |step: &str| recorded(&plan, step, StepPart::Do);
    let names = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(
        of("unread"),
        names(&["x-session"]),
        "a sensitive value has to be known, so that it is sealed wherever it occurs"
    );
    assert_eq!(of("named"), names(&["etag", "location", "x-session"]));
    assert_eq!(of("first"), names(&["etag", "x-session"]));
    assert_eq!(of("second"), of("first"), "`second` may run in place of `first`");
    assert_eq!(of("any"), None, "the name of the header is computed when the step runs");
    assert_eq!(
        (recorded(&plan, "named", StepPart::Undo), recorded(&plan, "named", StepPart::Probe)),
        (names(&[]), None)
    );
}
