use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::names::StepId;
use crate::problem::Severity;
use crate::workflow::{CallBody, EffectClass, Retry, StepIndex, StepKind};

/// The surroundings of the tests' workflows.
struct Town {
    services: BTreeMap<ServiceName, bool>,
    secrets: BTreeSet<String>,
    limits: Limits,
    store_key: bool,
}

impl Town {
    fn new() -> Self {
        let services = [("stock", true), ("bank", false), ("mail", false)];
        Self {
            services: services.into_iter().map(|(name, keyed)| (ServiceName::new(name), keyed)).collect(),
            secrets: ["bank".to_owned()].into(),
            limits: Limits::default(),
            store_key: false,
        }
    }
    fn known(&self) -> Known<'_> {
        Known { services: &self.services, secrets: &self.secrets, has_store_key: self.store_key, limits: &self.limits }
    }
    fn check(&self, yaml: &str) -> (Option<Plan>, Vec<String>) {
        let source: Value = serde_saphyr::from_str(yaml).unwrap_or_else(|e| panic!("{yaml}\n{e}"));
        let mut problems = Problems::default();
        let plan = Plan::check(&source, &Site::file("w"), &self.known(), &mut problems);
        let lines = problems.iter().map(|problem| {
            let severity = if problem.severity == Severity::Error { "" } else { "warning: " };
            let offset = problem.offset.map_or(String::new(), |offset| format!("+{offset}"));
            let hint = problem.hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
            format!("{severity}{}{offset}: {}{hint}", problem.site, problem.message)
        });
        (plan, lines.collect())
    }
}

#[track_caller]
fn good(yaml: &str) -> Plan {
    let (plan, problems) = Town::new().check(yaml);
    assert_eq!(problems, Vec::<String>::new());
    plan.expect("a plan")
}

/// Steps in one workflow, with an answer that reads nothing.
fn steps(steps: &str) -> String {
    let steps: String = steps.lines().map(|line| format!("  {line}\n")).collect();
    format!("workflow: w\nsteps:\n{steps}respond: {{ status: 200 }}\n")
}

#[track_caller]
fn wrong(step_lines: &str, expected: &[&str]) {
    refused(&steps(step_lines), expected);
}

#[track_caller]
fn refused(yaml: &str, expected: &[&str]) {
    let (plan, problems) = Town::new().check(yaml);
    assert_eq!(problems, expected, "{yaml}");
    assert_eq!(plan.is_some(), expected.iter().all(|line| line.starts_with("warning: ")), "{yaml}");
}

const ORDER: &str = r#"
workflow: create-order
input: { schema: { type: object, required: [items] } }
steps:
  charge:
    needs: [reserve]
    call: POST ${services.bank}/charges
    headers: { authorization: "Bearer ${secrets.bank}" }
    body: { amount: "${steps.price.output.total}" }
    accept: [2xx, 402]
    rehearse: { id: "${legacy.body.payment_id}" }
  price:
    call: POST ${services.stock}/quotes
    effect: read
    body: { items: "${request.body.items}" }
    retry: { attempts: 4, base: 50ms, max: 2s }
    timeout: 1s
  reserve:
    for_each: ${request.body.items}
    concurrency: 4
    call: POST ${services.stock}/reservations
    body: { sku: "${item.sku}", qty: "${item.qty}" }
    rehearse: { id: "${legacy.body.reservations[index].id}" }
  declined:
    if: ${steps.charge.status == 402}
    fail: { status: 402, body: { error: "card declined" } }
  mail: { call: "POST ${services.mail}/messages", body: "${steps.charge.output}", not_done: [404] }
respond:
  - { when: "${has(failed.step)}", status: "${failed.status}", body: { error: "${failed.error}" } }
  - { after: [charge], when: "${request.body.fast}", status: 202, body: "${steps.price.output}" }
  - status: 201
    headers: { location: "/orders/${run.id}" }
    body: { id: "${run.id}", reservations: "${steps.reserve.output}" }
  - pending: { status: 202, body: { run: "${run.id}" } }
"#;

#[test]
fn a_whole_workflow_becomes_a_plan() {
    let plan = good(ORDER);
    let names: Vec<_> = plan.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(names, ["price", "reserve", "charge", "declined", "mail"]);
    let needs: Vec<_> = plan.steps.iter().map(|step| step.needs.iter().map(|n| n.0).collect::<Vec<_>>()).collect();
    assert_eq!(needs, [vec![], vec![], vec![0, 1], vec![2], vec![2]]);
    assert_eq!(plan.dependents[2], [StepIndex(3), StepIndex(4)]);
    let StepKind::Call(charge) = &plan.steps[2].kind else { panic!() };
    assert_eq!((charge.effect, charge.keyed, charge.service.as_str()), (EffectClass::Shared, false, "bank"));
    assert!(charge.accept.contains(204) && charge.accept.contains(402) && !charge.accept.contains(404));
    assert!(matches!(charge.body, CallBody::Json(_)));
    let StepKind::Call(price) = &plan.steps[0].kind else { panic!() };
    let ms = std::time::Duration::from_millis;
    assert_eq!(price.retry, Retry { attempts: 4, base: ms(50), max: ms(2000) });
    assert_eq!((price.timeout, price.effect), (Some(ms(1000)), EffectClass::Read));
    assert_eq!(plan.respond.len(), 3);
    assert_eq!(plan.respond[1].after, Some(vec![StepIndex(2)]));
    assert!(plan.pending.is_some() && plan.has_shared() && plan.reads_body());
    assert_eq!(plan.unrehearsed().map(|s| s.id.as_str()).collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(plan.reads.iter().any(|path| path.to_string() == "steps.price.output.total"));
    assert_eq!(plan.step(&StepId::new("mail")).map(|(index, _)| index), Some(StepIndex(4)));
    assert_eq!(plan.check_input(&json!({"items": []})), Ok(()));
    assert_eq!(plan.check_input(&json!({})).unwrap_err(), [r#""items" is a required property"#]);
}

#[test]
fn a_plan_is_made_again_from_what_was_kept() {
    let town = Town::new();
    let plan = good(ORDER);
    let kept: Value = serde_json::from_str(&plan.source.to_string()).unwrap();
    let again = Plan::from_source(&kept, &town.known()).map_err(|p| p.len()).unwrap();
    assert_eq!(again.id, plan.id);
    assert!(plan.id.as_str().starts_with("plan_") && plan.id.as_str().len() == 25);
    // The order of keys is no content; the order of steps, and every value, is.
    let id = |yaml: &str| good(yaml).id;
    let one = "workflow: w\nsteps: { a: { set: 1, if: '${true}' }, b: { set: 2 } }\nrespond: { status: 200 }";
    assert_eq!(
        id(one),
        id("respond: { status: 200 }\nsteps: { a: { if: '${true}', set: 1 }, b: { set: 2 } }\nworkflow: w")
    );
    assert_ne!(
        id(one),
        id("workflow: w\nsteps: { b: { set: 2 }, a: { set: 1, if: '${true}' } }\nrespond: { status: 200 }")
    );
    assert_ne!(
        id(one),
        id("workflow: w\nsteps: { a: { set: 1.0, if: '${true}' }, b: { set: 2 } }\nrespond: { status: 200 }")
    );
    let gone = Town { services: BTreeMap::new(), ..Town::new() };
    assert!(Plan::from_source(&kept, &gone.known()).is_err());
}

#[test]
fn cycles_are_named_step_by_step() {
    wrong(
        "a: { set: '${steps.c.output}' }\nb: { needs: [a], set: 1 }\nc: { set: '${steps.b.skipped}' }\nd: { set: '${steps.a.output}' }",
        &["w.steps.a: steps wait for each other: a → c → b → a (a → b: a reads the output of b, or needs it)"],
    );
    wrong(
        "a: { needs: [a], set: 1 }",
        &["w.steps.a: steps wait for each other: a → a (a → b: a reads the output of b, or needs it)"],
    );
    let two =
        "a: { needs: [b, d], set: 1 }\nb: { needs: [c], set: 1 }\nc: { needs: [b], set: 1 }\nd: { needs: [a], set: 1 }";
    let (_, problems) = Town::new().check(&steps(two));
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("b → c → b") && problems[1].contains("a → d → a"), "{problems:?}");
}

#[test]
fn names_that_do_not_exist_are_refused_with_what_may_be_meant() {
    wrong(
        "price: { set: 1 }\nb: { set: { x: ['total: ${1 + steps.prcie.output}'] } }",
        &["w.steps.b.set.x[0]+13: unknown step `prcie` (did you mean `price`?)"],
    );
    wrong(
        "a: { needs: [bb], set: 1 }\nbc: { set: 1 }",
        &["w.steps.a.needs[0]: unknown step `bb` (did you mean `bc`?)"],
    );
    wrong(
        "a-b: { set: 1 }\nc: { set: '${steps.a-b.output}' }",
        &[
            "w.steps.c.set+10: unknown name `b` (a name with a dash is written in brackets: a[\"b-c\"])",
            "w.steps.c.set+2: unknown step `a` (a name with a dash is written steps[\"a-b\"])",
        ],
    );
    wrong(
        "a: { set: '${a.output + reqest.body}' }",
        &[
            "w.steps.a.set+2: unknown name `a` (write steps.a.output)",
            "w.steps.a.set+13: unknown name `reqest` (did you mean `request`?)",
        ],
    );
    wrong(
        "a: { call: 'GET ${services.stok}/x' }",
        &["w.steps.a.call+6: unknown service `stok` (did you mean `stock`?)"],
    );
    wrong(
        "a: { call: 'GET ${services.x}/x' }",
        &[
            "w.steps.a.call+6: unknown service `x` (declare it under `services:` in pointsman.yaml; there are bank, mail, stock)",
        ],
    );
    wrong(
        "a: { call: 'GET ${services.bank}/x', headers: { x-key: '${secrets.bnak}' } }",
        &["w.steps.a.headers.x-key+2: unknown secret `bnak` (did you mean `bank`?)"],
    );
    wrong(
        "a: { set: '${request.bdy.x + request.query.q}' }",
        &["w.steps.a.set+2: `request` has no `bdy` (did you mean `body`?)"],
    );
    wrong(
        "b: { set: 1 }\na: { set: '${[steps.b.outptu, steps.b, steps, steps[\"b\"].body]}' }",
        &[
            "w.steps.a.set+3: name the step that is meant; a computed one cannot be waited for (write steps.NAME.output)",
            "w.steps.a.set+3: name what of the step `b` is meant (write steps.b.output)",
            "w.steps.a.set+3: a step has no `body` (the body is `output`)",
            "w.steps.a.set+3: a step has no `outptu` (did you mean `output`?)",
        ],
    );
    wrong(
        "b: { set: 1 }\nf: { fail: { status: 400 } }\na: { set: '${[steps.b.status, steps.f.output]}' }",
        &[
            "w.steps.a.set+3: `b` is no call and has no `status`",
            "w.steps.a.set+19: `f` ends the run and has no `output`",
        ],
    );
}

#[test]
fn names_are_refused_where_they_do_not_belong() {
    let stored = "anywhere else it would be stored and shown";
    wrong(
        "a: { call: 'POST ${services.bank}/x', body: '${secrets.bank}' }",
        &[&format!("w.steps.a.body+2: `secrets` can be read only in a call's headers or URL ({stored})")],
    );
    wrong(
        "a: { set: '${item.x}' }\nb: { for_each: '${[index]}', set: '${item}' }",
        &[
            "w.steps.a.set+2: `item` exists only in a step with `for_each`",
            "w.steps.b.for_each+3: `index` exists only in a step with `for_each`",
        ],
    );
    let legacy = "what the engine does must not depend on legacy's reply";
    wrong(
        "a: { if: '${legacy.status == 200}', set: 1 }",
        &[&format!("w.steps.a.if+2: `legacy` can be read only in `rehearse:` ({legacy})")],
    );
    wrong(
        "a: { set: '${[failed.step, intents.a]}' }",
        &[
            "w.steps.a.set+3: `failed` can be read only in `respond`",
            "w.steps.a.set+16: `intents` can be read only in a route's `assert` and `invariants`",
        ],
    );
    refused(
        "workflow: w\nsteps: { a: { set: 1 } }\nrespond: { body: '${services.bank}' }",
        &["w.respond.body+2: `services` cannot be read in `respond`: addresses are not for callers"],
    );
}

#[test]
fn credentials_of_callers_are_passed_on_only_sealed() {
    let pass =
        steps("a: { call: 'GET ${services.bank}/x', headers: { authorization: '${request.headers.Authorization}' } }");
    refused(
        &pass,
        &["w.steps.a.headers.authorization+2: the caller's `authorization` would stand in the store, and there is no \
         `store_key` to seal it with (declare `store_key: { file: … }` in pointsman.yaml)"],
    );
    let (plan, problems) = Town { store_key: true, ..Town::new() }.check(&pass);
    assert_eq!((problems.len(), plan.unwrap().sensitive().collect::<Vec<_>>()), (0, vec!["authorization"]));
    wrong(
        "a: { set: '${request.headers[\"cookie\"]}' }\nb: { set: '${request.headers}' }",
        &[
            "w.steps.a.set+2: the caller's `cookie` can be read only in a call's headers or URL \
         (credentials of callers are passed on in a call's headers and nowhere else)",
            "w.steps.b.set+2: name the header that is meant: all of them hold the caller's credentials (write request.headers[\"x-name\"])",
        ],
    );
}

#[test]
fn the_shape_of_a_step_is_checked() {
    wrong(
        "a: {}",
        &["w.steps.a: a step has one of `call`, `set` and `fail` (for example `call: GET ${services.NAME}/path`)"],
    );
    wrong(
        "a: { set: 1, fail: { status: 400 } }",
        &["w.steps.a.fail: a step is either a `set` or a `fail`; make it two steps"],
    );
    wrong(
        "a: { set: 1, retry: { attempts: 2 }, volatile: true }",
        &[
            "w.steps.a.retry: `retry` belongs to a `call`, not to a `set`",
            "w.steps.a.volatile: `volatile` belongs to a `call`, not to a `set`",
        ],
    );
    wrong(
        "a: { fail: { status: 400 }, body: 1 }",
        &[
            "w.steps.a.body: `body` belongs to a `call`, not to a `fail` (write it under `fail:`: `fail: { status: …, body: … }`)",
        ],
    );
    wrong(
        "a: { fail: { status: 99 } }\nb: { fail: {} }\nc: { fail: { status: 'a${1}' } }",
        &[
            "w.steps.a.fail.status: 99 is not a status; it is a number from 200 to 599",
            "w.steps.b.fail: `fail` says with which status (for example `fail: { status: 409 }`)",
            "w.steps.c.fail.status: a status is a number or one `${ … }`",
        ],
    );
    wrong(
        "a b: { set: 1 }",
        &[
            "w.steps.a b: `a b` cannot be the name of a step: a letter, then letters, digits, `-` and `_`, at most 64 in all",
        ],
    );
    wrong(
        "a: { set: 1, concurrency: 2 }\nb: { for_each: '${[1]}', concurrency: 0, set: 1 }\nc: { for_each: x, set: 1 }",
        &[
            "w.steps.a.concurrency: `concurrency` belongs to `for_each`",
            "w.steps.b.concurrency: a concurrency of 0 would never begin (1 takes one item after the other)",
            "w.steps.c.for_each: `for_each` takes a list or one `${ … }` that gives one",
        ],
    );
    wrong(
        "a: { set: 1, needs_any: true }",
        &[
            "warning: w.steps.a.needs_any: `a` needs no other step (name steps under `needs:`, or leave `needs_any` out)",
        ],
    );
    wrong("a: { set: '${1 +}' }", &["w.steps.a.set+5: not a CEL expression: it ends too early"]);
    wrong("a: { if: 'true', set: 1 }", &["w.steps.a.if: `true` is not one expression; write `${ … }`"]);
    refused("workflow: w\nsteps: {}\nrespond: { status: 200 }", &["w.steps: a workflow has at least one step"]);
}

#[test]
fn what_later_versions_bring_is_named_as_such() {
    let later = "is not supported by this version (leave it out; a later version brings it)";
    wrong(
        "a: { set: 1, undo: x, lock: { key: x } }\nb: { wait: 2s }",
        &[
            &format!("w.steps.a.undo: `undo` {later}"),
            &format!("w.steps.a.lock: `lock` {later}"),
            "w.steps.b.wait: `wait` is not supported by this version (this version has `call`, `set` and `fail` steps)",
        ],
    );
}

#[test]
fn calls_are_checked() {
    wrong(
        "a: { call: 'post ${services.bank}/x' }\nb: { call: '${services.bank}/x' }\nc: { call: BREW }\nd: { call: GET }",
        &[
            "w.steps.a.call: unknown method `post` (did you mean `POST`?)",
            "w.steps.b.call: a call is a method and a URL (write `call: GET ${services.bank}/x`)",
            "w.steps.c.call: unknown method `BREW` (methods are GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS)",
            "w.steps.d.call: a call is a method and a URL (write `GET ${services.NAME}/path`)",
        ],
    );
    wrong(
        "a: { call: 'GET http://bank:80/x' }\nb: { call: 'GET ${request.body.url}/x' }",
        &[
            "w.steps.a.call+4: a call goes to a declared service, not to an address \
         (declare `http://bank:80` under `services:` in pointsman.yaml and write `${services.NAME}`)",
            "w.steps.b.call+4: a URL begins with `${services.NAME}`; a computed host is not allowed",
        ],
    );
    wrong(
        "a: { call: 'GET ${services.bank}/x', timeout: 0s, retry: { attempts: 0, base: '5', max: 2d } }\n\
         b: { call: 'GET ${services.bank}/x', retry: { base: 2s, max: 1s }, accept: [2xx, 99, x], not_done: [204] }",
        &[
            "w.steps.a.retry.base: `5` is not a duration; write 50ms, 2s, 1m or 1h",
            "w.steps.a.retry.max: `2d` is not a duration; write 50ms, 2s, 1m or 1h",
            "w.steps.a.timeout: a duration is longer than 0",
            "w.steps.b.retry.max: `max` is shorter than `base`",
            "w.steps.b.accept[1]: `99` is not a status; write 402, or 4xx for all of them",
            "w.steps.b.accept[2]: `x` is not a status; write 402, or 4xx for all of them",
            "w.steps.b.not_done: a status cannot be both a result (`accept`) and `not_done`",
        ],
    );
    wrong(
        "a: { call: 'GET ${services.bank}/x', retry: { attempts: 0 } }",
        &["w.steps.a.retry.attempts: 0 attempts would never call (`attempts` counts the first one too: 1 is no retry)"],
    );
    wrong(
        "a: { call: 'POST ${services.stock}/x', body: 1, text: x, headers: { Host: x, 'a b': x, x-a: \"a\\nb\" } }",
        &[
            "w.steps.a.headers.Host: `host` cannot be set here: it is set for every message",
            "w.steps.a.headers.a b: `a b` is not a header's name",
            "w.steps.a.headers.x-a: a header's value has no line breaks or control characters",
            "w.steps.a.text: a call has one body: either `body` or `text`",
        ],
    );
    wrong(
        "a: { call: 'POST ${services.stock}/x', raw: '${request.body}' }",
        &[
            "w.steps.a.raw: `raw` passes the bytes of the request on, and nothing else (write `raw: ${request.raw}`; use `text:` or `body:` for anything else)",
        ],
    );
}

#[test]
fn what_is_allowed_and_probably_not_meant_is_a_warning() {
    wrong(
        "a: { call: 'DELETE ${services.bank}/x', effect: read }",
        &[
            "warning: w.steps.a.effect: a DELETE that is declared `read` is sent in shadow, beside legacy's own (`read` means that it changes nothing at all)",
        ],
    );
    wrong(
        "a: { call: 'POST ${services.bank}/x', retry: { attempts: 3 } }\nb: { call: 'POST ${services.stock}/x', retry: { attempts: 3 } }",
        &[
            "warning: w.steps.a.retry: after an unknown outcome (a timeout, a cut connection) this POST is not tried again: doing it twice could do harm \
         (declare `bank` as `keyed: true` if it honours Idempotency-Key; else `retry` holds only for attempts that certainly did nothing)",
        ],
    );
    wrong(
        "a: { call: 'POST ${services.bank}/x', volatile: true }\nb: { call: 'GET ${services.bank}/x', body: 1 }",
        &[
            "warning: w.steps.a.volatile: `volatile` means something only for a `read`",
            "warning: w.steps.b.call: a GET with a body is not understood by every service",
        ],
    );
}

#[test]
fn respond_is_checked() {
    let with = |respond: &str| {
        format!("workflow: w\nsteps: {{ a: {{ set: 1 }}, b: {{ needs: [a], set: 2 }} }}\nrespond: {respond}\n")
    };
    refused(
        "workflow: w\nsteps: { a: { set: 1 } }",
        &[
            "w: a workflow says what the caller gets: `respond` is missing (for example `respond: { status: 200, body: \"${steps.NAME.output}\" }`)",
        ],
    );
    refused(
        &with("[{ after: [a, c], body: '${steps.b.output}' }, { status: 200 }]"),
        &[
            "w.respond[0].after[1]: unknown step `c` (did you mean `a`?)",
            "w.respond[0].after: the answer reads `steps.b`, which may not have ended after a, c (add `b` to `after`)",
        ],
    );
    refused(
        &with("[{ status: 200 }, { when: '${true}' }]"),
        &[
            "warning: w.respond[1]: this entry is never taken: the one before it has no `when` (put the entries with `when` and `after` first)",
        ],
    );
    refused(
        &with("[{ when: '${input_error != null}', status: 422 }]"),
        &[
            "warning: w.respond: where no entry holds, the caller gets an error (end the list with an entry without `when` and `after`)",
        ],
    );
    refused(
        &with("[{ status: 200, pending: { body: '${steps.a.output}' } }, { pending: {} }]"),
        &[
            "w.respond[0].pending: `pending` reads `steps.a`, which may not have ended (`request` and `run` are always there)",
            "w.respond[1].pending: `pending` stands twice; there is one answer while a run goes on",
        ],
    );
    refused(&with("[]"), &["w.respond: `respond` is empty"]);
    let plan = good(&with("{ status: 201, pending: { status: 202 } }"));
    assert!(plan.respond.len() == 1 && plan.pending.is_some());
    // What after names has ended, and so has all that it needs.
    good(&with("[{ after: [b], body: '${steps.a.output}' }, { status: 200 }]"));
}

#[test]
fn schemas_and_limits_are_checked() {
    let (_, problems) = Town::new()
        .check("workflow: w\ninput: { schema: { type: 5 } }\nsteps: { a: { set: 1 } }\nrespond: { status: 200 }");
    assert!(problems.len() == 1 && problems[0].starts_with("w.input.schema: not a JSON Schema: "), "{problems:?}");
    let (_, problems) = Town::new().check(
        "workflow: w\ninput: { schema: { $ref: 'http://a/b' } }\nsteps: { a: { set: 1 } }\nrespond: { status: 200 }",
    );
    assert!(problems.len() == 1 && problems[0].starts_with("w.input.schema: not a JSON Schema: "), "{problems:?}");
    let town = Town { limits: Limits { steps_max: 1, ..Limits::default() }, ..Town::new() };
    let (plan, problems) = town.check(&steps("a: { set: 1 }\nb: { set: 1 }"));
    assert_eq!(
        (plan.is_none(), problems),
        (true, vec!["w.steps: 2 steps are more than the limit steps_max (1)".to_owned()])
    );
    let plan = good(
        "workflow: w\ninput: { schema: { properties: { n: { type: integer, maximum: 5 }, s: { pattern: '^(a+)+$' } } } }\nsteps: { a: { set: 1 } }\nrespond: { status: 200 }",
    );
    assert_eq!(plan.check_input(&json!({"n": 5, "s": "aaa"})), Ok(()));
    assert_eq!(plan.check_input(&json!({"n": 6})).unwrap_err(), ["/n: value is greater than the maximum of 5"]);
    assert!(plan.check_input(&json!({"s": format!("{}!", "a".repeat(64))})).is_err());
}

#[test]
fn everything_is_reported_at_once() {
    let (_, problems) = Town::new().check(
        "workflow: 1w\nsteps:\n  a: { call: 'GET ${services.x}/y', timeout: soon }\n  b: { set: '${steps.z.output}', undo: 1 }\nrespond: { status: 9 }",
    );
    assert_eq!(problems.len(), 6, "{problems:#?}");
}

/// A graph as steps; an edge `(from, to)` makes `from` need `to`, by expression or by hand.
fn graph(size: usize, edges: &[(usize, usize, bool)]) -> String {
    let mut text = String::from("workflow: w\nsteps:\n");
    for step in 0..size {
        let of = |by_hand: bool| edges.iter().filter(move |(from, _, hand)| *from == step && *hand == by_hand);
        let needs: Vec<_> = of(true).map(|(_, to, _)| format!("s{to}")).collect();
        let reads: Vec<_> = of(false).map(|(_, to, _)| format!("'${{steps.s{to}.output}}'")).collect();
        text.push_str(&format!("  s{step}: {{ needs: [{}], set: [{}] }}\n", needs.join(", "), reads.join(", ")));
    }
    text.push_str("respond: { status: 200 }\n");
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_dag_is_ordered(size in 1usize..25, edges in prop::collection::vec((any::<u32>(), any::<u32>(), any::<bool>()), 0..60), shuffle in any::<u64>()) {
        // Edges lead from a higher rank to a lower one, and ranks are a shuffle of the file's order.
        let mut rank: Vec<usize> = (0..size).collect();
        let mut random = fastrand::Rng::with_seed(shuffle);
        random.shuffle(&mut rank);
        let edges: Vec<_> = edges.into_iter().filter_map(|(a, b, hand)| {
            let (a, b) = (a as usize % size, b as usize % size);
            (rank[a] != rank[b]).then(|| if rank[a] > rank[b] { (a, b, hand) } else { (b, a, hand) })
        }).collect();
        let plan = good(&graph(size, &edges));
        prop_assert_eq!(plan.steps.len(), size);
        let place = |step: usize| plan.step(&StepId::new(format!("s{step}"))).unwrap().0;
        for (from, to, _) in edges {
            prop_assert!(place(from) > place(to));
            prop_assert!(plan.steps[place(from).0].needs.contains(&place(to)));
            prop_assert!(plan.dependents[place(to).0].contains(&place(from)));
        }
        prop_assert!(plan.steps.iter().enumerate().all(|(at, step)| step.needs.iter().all(|need| need.0 < at)));
    }

    #[test]
    fn a_cycle_is_always_found(size in 1usize..20, from in any::<u32>(), length in 1usize..20, edges in prop::collection::vec((any::<u32>(), any::<u32>(), any::<bool>()), 0..20)) {
        let length = length.min(size);
        let from = from as usize % size;
        let mut all: Vec<_> = edges.into_iter().map(|(a, b, hand)| (a as usize % size, b as usize % size, hand)).collect();
        all.extend((0..length).map(|step| ((from + step) % size, (from + (step + 1) % length) % size, true)));
        let (plan, problems) = Town::new().check(&graph(size, &all));
        prop_assert!(plan.is_none());
        prop_assert!(!problems.is_empty());
        for problem in problems {
            // What is named is a cycle indeed: each step needs the next, and the last is the first.
            let names = problem.split("each other: ").nth(1).unwrap().split(" (").next().unwrap();
            let steps: Vec<usize> = names.split(" → ").map(|name| name[1..].parse().unwrap()).collect();
            prop_assert_eq!(steps.first(), steps.last());
            prop_assert!(steps.windows(2).all(|pair| all.iter().any(|(a, b, _)| (*a, *b) == (pair[0], pair[1]))));
        }
    }
}
