use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::names::StepId;
use crate::problem::Severity;
use crate::workflow::{CallBody, EffectClass, Retry, StepIndex, StepKind};

mod failing;
mod headers;
mod inject;
mod names;
mod order;
mod people;
mod shape;
mod stream;

/// The services, secrets and limits that the tests' workflows may refer to.
struct Environment {
    services: BTreeMap<ServiceName, bool>,
    secrets: BTreeSet<String>,
    limits: Limits,
    store_key: bool,
}

impl Environment {
    fn new() -> Self {
        let services = [("stock", true), ("bank", false), ("mail", false)];
        Self {
            services: services.into_iter().map(|(name, keyed)| (ServiceName::new(name), keyed)).collect(),
            secrets: ["bank".to_owned()].into(),
            limits: Limits::default(),
            store_key: false,
        }
    }
    fn known(&self) -> DeclaredNames<'_> {
        DeclaredNames {
            services: &self.services,
            secrets: &self.secrets,
            has_store_key: self.store_key,
            limits: &self.limits,
        }
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

/// Returns the plan of a workflow, which must have no problems.
#[track_caller]
fn checked_plan(yaml: &str) -> Plan {
    let (plan, problems) = Environment::new().check(yaml);
    assert_eq!(problems, Vec::<String>::new());
    plan.expect("a plan")
}

/// A workflow with these steps, whose answer reads none of them.
fn steps(steps: &str) -> String {
    let steps: String = steps.lines().map(|line| format!("  {line}\n")).collect();
    format!("workflow: w\nsteps:\n{steps}respond: {{ status: 200 }}\n")
}

/// Asserts the problems of a workflow with these steps.
#[track_caller]
fn assert_step_problems(step_lines: &str, expected: &[&str]) {
    assert_problems(&steps(step_lines), expected);
}

/// Asserts the problems of a workflow: it becomes a plan only if all of them are warnings.
#[track_caller]
fn assert_problems(yaml: &str, expected: &[&str]) {
    let (plan, problems) = Environment::new().check(yaml);
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
    let plan = checked_plan(ORDER);
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
    assert!(plan.pending.is_some() && plan.calls(EffectClass::Shared).next().is_some() && plan.reads_body());
    assert_eq!(plan.unrehearsed().map(|s| s.id.as_str()).collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(plan.reads.iter().any(|path| path.to_string() == "steps.price.output.total"));
    assert_eq!(plan.step(&StepId::new("mail")).map(|(index, _)| index), Some(StepIndex(4)));
    assert_eq!(plan.check_input(&json!({"items": []})), Ok(()));
    assert_eq!(plan.check_input(&json!({})).unwrap_err(), [r#""items" is a required property"#]);
}

#[test]
fn a_plan_is_built_again_from_its_stored_definition() {
    let environment = Environment::new();
    let plan = checked_plan(ORDER);
    let stored: Value = serde_json::from_str(&plan.source.to_string()).unwrap();
    let again = Plan::from_source(&stored, &environment.known()).map_err(|p| p.len()).unwrap();
    assert_eq!(again.id, plan.id);
    assert!(plan.id.as_str().starts_with("plan_") && plan.id.as_str().len() == 25);
    // The plan's id depends on the order of the steps and on every value, but not on the order of other keys.
    let id = |yaml: &str| checked_plan(yaml).id;
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
    let without_services = Environment { services: BTreeMap::new(), ..Environment::new() };
    assert!(Plan::from_source(&stored, &without_services.known()).is_err());
}

#[test]
fn schemas_and_limits_are_checked() {
    let (_, problems) = Environment::new()
        .check("workflow: w\ninput: { schema: { type: 5 } }\nsteps: { a: { set: 1 } }\nrespond: { status: 200 }");
    assert!(problems.len() == 1 && problems[0].starts_with("w.input.schema.type: not a JSON Schema: "), "{problems:?}");
    let (_, problems) = Environment::new().check(
        "workflow: w\ninput: { schema: { anyOf: [{}, { properties: { 'a/b': { type: strin } } }] } }\n\
         steps: { a: { set: 1 } }\nrespond: { status: 200 }",
    );
    let place = "w.input.schema.anyOf[1].properties.a/b.type: not a JSON Schema: ";
    assert!(problems.len() == 1 && problems[0].starts_with(place), "{problems:?}");
    let (_, problems) = Environment::new().check(
        "workflow: w\ninput: { schema: { $ref: 'http://a/b' } }\nsteps: { a: { set: 1 } }\nrespond: { status: 200 }",
    );
    assert!(problems.len() == 1 && problems[0].starts_with("w.input.schema: not a JSON Schema: "), "{problems:?}");
    let environment = Environment { limits: Limits { steps_max: 1, ..Limits::default() }, ..Environment::new() };
    let (plan, problems) = environment.check(&steps("a: { set: 1 }\nb: { set: 1 }"));
    assert_eq!(
        (plan.is_none(), problems),
        (true, vec!["w.steps: 2 steps are more than the limit steps_max (1)".to_owned()])
    );
    let plan = checked_plan(
        "workflow: w\ninput: { schema: { properties: { n: { type: integer, maximum: 5 }, s: { pattern: '^(a+)+$' } } } }\nsteps: { a: { set: 1 } }\nrespond: { status: 200 }",
    );
    assert_eq!(plan.check_input(&json!({"n": 5, "s": "aaa"})), Ok(()));
    assert_eq!(plan.check_input(&json!({"n": 6})).unwrap_err(), ["/n: value is greater than the maximum of 5"]);
    assert!(plan.check_input(&json!({"s": format!("{}!", "a".repeat(64))})).is_err());
}

#[test]
fn everything_is_reported_at_once() {
    let (_, problems) = Environment::new().check(
        "workflow: 1w\nsteps:\n  a: { call: 'GET ${services.x}/y', timeout: soon }\n  b: { set: '${steps.z.output}', undo: 1 }\nrespond: { status: 9 }",
    );
    assert_eq!(problems.len(), 6, "{problems:#?}");
}

/// Adds the JSON pointers to all values in a definition to `found`.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| pointers(value, &format!("{at}/{key}"), found)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, value)| pointers(value, &format!("{at}/{index}"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

proptest! {
    #[test]
    fn any_definition_gives_a_plan_or_problems(at in any::<prop::sample::Index>(), with in prop::sample::select(vec![
        json!(null), json!(0), json!(-1), json!(1e300), json!(""), json!("${"), json!("${steps}"), json!("${steps.price}"), json!("é ${x.y}"),
        json!([]), json!([[]]), json!({}), json!({"": 1}), json!({"a": {"call": "GET"}}), json!(["price"]), json!("POST ${services.bank}"), json!(true),
    ])) {
        let environment = Environment::new();
        let mut source: Value = serde_saphyr::from_str(ORDER).unwrap();
        let mut found = Vec::new();
        pointers(&source, "", &mut found);
        *source.pointer_mut(at.get::<String>(&found)).unwrap() = with;
        let mut problems = Problems::default();
        let plan = Plan::check(&source, &Site::file("w"), &environment.known(), &mut problems);
        prop_assert_eq!(plan.is_none(), problems.has_errors());
    }
}

#[test]
fn the_example_workflows_pass_the_check() {
    let mut environment = Environment::new();
    environment.services = ["prices", "stock", "bank", "mail", "studio", "ads"]
        .into_iter()
        .map(|name| (ServiceName::new(name), true))
        .collect();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/flags/workflows");
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
    let routes = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/flags/routes")).unwrap();
    let routes: String = routes.map(|file| read(file.unwrap().path())).collect();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let (plan, problems) = environment.check(&read(path.clone()));
        assert_eq!(problems, Vec::<String>::new(), "{}", path.display());
        let plan = plan.unwrap();
        // A workflow that no route starts is never rehearsed.
        let rehearsed = routes.contains(&format!("workflow: {}\n", plan.workflow));
        assert!(!rehearsed || plan.unrehearsed().count() == 0, "{}", path.display());
    }
}
