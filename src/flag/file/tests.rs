//! The problems that the checks of files report.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::flag::{
    BreakerSettings, Compress, Instance, InstanceLifetime, Percent, RelaySettings, Route, State, TotalTimeout,
    UnknownInstance,
};
use crate::problem::{Problems, Severity, Site};

type Services = BTreeMap<ServiceName, Option<Arc<Service>>>;
type Workflows = BTreeMap<WorkflowName, Option<WorkflowFacts>>;

pub(super) fn known_names() -> (Services, Workflows) {
    let shop = crate::flag::tests::service("shop");
    let services = [("shop".into(), Some(shop)), ("broken".into(), None)].into();
    let workflows = [
        (
            "create-order".into(),
            Some(WorkflowFacts {
                shared_steps: true,
                private_steps: false,
                reason_to_keep: Some("the shared step `charge`".into()),
                streaming_step: None,
                tells_legacy: true,
            }),
        ),
        (
            "read-order".into(),
            Some(WorkflowFacts {
                shared_steps: false,
                private_steps: false,
                reason_to_keep: None,
                streaming_step: None,
                tells_legacy: false,
            }),
        ),
        (
            "download".into(),
            Some(WorkflowFacts {
                shared_steps: false,
                private_steps: false,
                reason_to_keep: None,
                streaming_step: Some("file".into()),
                tells_legacy: false,
            }),
        ),
        (
            "note-order".into(),
            Some(WorkflowFacts {
                shared_steps: false,
                private_steps: true,
                reason_to_keep: Some("the private step `note`".into()),
                streaming_step: None,
                tells_legacy: false,
            }),
        ),
        ("broken".into(), None),
    ];
    (services, workflows.into())
}

/// Checks routes as one file; problems are given as `severity site: message [hint]`.
fn check(routes: Value) -> (Vec<Route>, Vec<String>) {
    let file: RouteFileDraft = serde_json::from_value(json!({ "routes": routes })).unwrap();
    let site = Site::file("r.yaml").key("routes");
    let drafts: Vec<_> = file.routes.into_iter().enumerate().map(|(n, draft)| (site.index(n), draft)).collect();
    let (services, workflows) = known_names();
    let read = |file: &str| match file {
        "bad.pem" => Ok(Some("hello".to_owned())),
        _ => Err(format!("the file `{file}` cannot be read")),
    };
    let mut problems = Problems::default();
    let routes = check_routes(
        &drafts,
        &KnownNames {
            services: &services,
            workflows: &workflows,
            promote: &Promote::default(),
            guard: None,
            redact: &Default::default(),
            read_file: &read,
        },
        &mut problems,
    );
    (routes, messages(&problems))
}

pub(super) fn messages(problems: &Problems) -> Vec<String> {
    let messages = problems.iter().map(|p| {
        let severity = if p.severity == Severity::Error { "error" } else { "warning" };
        let hint = p.hint.as_ref().map_or(String::new(), |hint| format!(" [{hint}]"));
        format!("{severity} {}: {}{hint}", p.site, p.message)
    });
    messages.collect()
}

/// A correct route, changed by a patch.
pub(super) fn with(patch: Value) -> Value {
    let mut route = json!({ "id": "orders.get", "match": { "method": "GET", "path": "/orders/{id}" },
        "legacy": "shop", "workflow": "read-order" });
    for (key, value) in patch.as_object().unwrap() {
        route[key] = value.clone();
    }
    route
}

/// A creator with this key in its `instance:`. It has no workflow, so that nobody misses its followers.
fn of_creator(key: &str, value: Value) -> Value {
    json!({ "workflow": null, "instance": { "creates": "$.id", key: value } })
}

fn with_end(condition: &str) -> Value {
    of_creator("ends", json!(condition))
}

fn with_alive(call: &str, ids: &str) -> Value {
    of_creator("alive", json!({ "call": call, "ids": ids }))
}

/// The only problem that a patch causes.
pub(super) fn only_problem(patch: Value) -> String {
    let (_, messages) = check(json!([with(patch.clone())]));
    assert_eq!(messages.len(), 1, "{patch}: {messages:#?}");
    messages[0].clone()
}

#[test]
fn a_route_with_every_part_is_read() {
    let (routes, messages) = check(json!([
        { "id": "orders.create", "match": { "method": "POST", "path": "/orders", "host": "Shop.Example.com" },
          "legacy": "shop", "workflow": "create-order", "state": "shadow", "percent": 50,
          "key": "${request.headers[\"x-tenant\"]}", "retry_key": "${request.headers[\"idempotency-key\"]}",
          "cohorts": [{ "name": "staff", "when": "${request.headers[\"x-staff\"] == \"1\"}", "state": "live" }],
          "instance": { "creates": "$.id" }, "caller": "x-user", "deadline": "1500ms", "paths": "strict",
          "buffer_request": 4096, "compress": "gzip", "requests_max": 5, "timeouts": { "idle": "2m", "total": "1h" },
          "compare": { "ignore": ["$.at"] }, "force": { "reason": "a drill" },
          "guard": { "mismatch": "0.1%", "errors": "1%", "p99_ratio": 1.5, "over": 200 },
          "invariants": ["${reply.body.total >= 0}"] },
        with(json!({ "state": "dark", "percent": { "dark": 20, "shadow": 5 }, "key": "${request.params.id}",
          "instance": { "follows": "orders.create", "key": "path.id" } })),
    ]));
    assert!(messages.is_empty(), "{messages:#?}");
    let create = &routes[0];
    assert_eq!(create.matches.host.as_deref(), Some("shop.example.com"));
    assert_eq!(create.shares.shadow, Percent::new(50.0).unwrap());
    assert_eq!(create.declared, State::Shadow);
    assert_eq!(create.deadline, Some(std::time::Duration::from_millis(1_500)));
    let (buffer_request, idle) = (Some(4_096), Some(Duration::from_secs(120)));
    let total = Some(TotalTimeout::After(Duration::from_secs(3_600)));
    assert_eq!(
        create.relay,
        RelaySettings { buffer_request, first_byte: None, idle, total, compress: Some(Compress::Gzip) }
    );
    assert_eq!(create.requests_max, Some(5));
    assert_eq!(create.guard.as_ref().and_then(|g| g.mismatch), Some(0.001));
    assert_eq!(create.invariants[0].name, "${reply.body.total >= 0}");
    assert!(create.strict_paths && create.caller.headers == ["x-user"] && create.force.as_deref() == Some("a drill"));
    assert_eq!(routes[1].shares.dark, Percent::new(20.0).unwrap());
    assert!(matches!(&routes[1].instance, Some(Instance::Follows { creator, key })
        if creator.as_str() == "orders.create" && key.path_parameter() == Some("id")));
}

#[test]
fn the_life_of_instances_is_read() {
    let (routes, messages) = check(json!([
        { "id": "orders.create", "match": { "method": "POST", "path": "/orders" }, "legacy": "shop",
          "workflow": "create-order", "retry_key": "${request.headers.k}",
          "instance": { "creates": "$.id", "ends_after": "90d", "adopt": "create-order", "alive": { "call": "GET ${services.shop}/orders?open=1",
            "ids": "$.items[*].id", "headers": { "x-key": "${secrets.shop}" } } } },
        with(json!({ "instance": { "follows": "orders.create", "key": "path.id", "unknown": "not_found",
          "ends": "${reply.status == 200 && reply.body.state == \"closed\" && request.params.id != \"0\"}" } })),
    ]));
    assert!(messages.is_empty(), "{messages:#?}");
    let InstanceLifetime { ends, ends_after, alive, unknown, adopt } = &routes[0].lifetime;
    assert_eq!((ends.is_none(), *ends_after), (true, Some(Duration::from_secs(90 * 24 * 3_600))));
    assert_eq!(*unknown, UnknownInstance::NotDeclared);
    let adopt = adopt.as_ref().unwrap();
    assert_eq!((adopt.workflow.as_str(), adopt.tells_legacy), ("create-order", true));
    assert_eq!(adopt.settles, Duration::from_secs(30));
    let alive = alive.as_ref().unwrap();
    assert_eq!((alive.service.name.as_str(), alive.path.as_str()), ("shop", "/orders?open=1"));
    assert_eq!((alive.list.to_string(), alive.headers.len()), ("$.items".to_owned(), 1));
    assert_eq!(routes[1].lifetime.unknown, UnknownInstance::NotFound);
    assert!(routes[1].lifetime.ends.as_ref().unwrap().reads_body());
    let refused =
        with(json!({ "instance": { "follows": "x", "key": "path.id", "alive": { "call": "GET ${services.shop}/x",
        "ids": "$[*]" }, "ends_after": "1d", "adopt": "read-order" } }));
    let (_, messages) = check(json!([refused]));
    for key in ["alive", "ends_after", "adopt"] {
        let refused = format!("a follower must not have `{key}`");
        assert!(messages.iter().any(|message| message.contains(&refused)), "{messages:#?}");
    }
}

#[test]
fn unknown_names_are_reported() {
    assert_eq!(
        only_problem(json!({ "legacy": "shpo" })),
        "error r.yaml.routes[0].legacy: no service is called `shpo` [did you mean `shop`?]"
    );
    assert_eq!(
        only_problem(json!({ "workflow": "raed-order" })),
        "error r.yaml.routes[0].workflow: no workflow is called `raed-order` [did you mean `read-order`?]"
    );
    let (routes, messages) = check(json!([with(json!({ "legacy": "broken", "workflow": "broken" }))]));
    assert!(routes.is_empty() && messages.is_empty(), "a name whose own check failed is reported there only");
}

#[test]
fn a_workflow_with_a_step_that_streams_needs_keep_none() {
    assert_eq!(
        only_problem(json!({ "workflow": "download" })),
        "error r.yaml.routes[0].workflow: the step `file` streams its reply, and this route keeps what its runs read [say `keep: none` on the route, or leave `stream` out of the step]"
    );
    let (routes, messages) = check(json!([with(json!({ "workflow": "download", "keep": "none" }))]));
    assert!(messages.is_empty() && !routes[0].keeps_runs, "{messages:#?}");
}

#[test]
fn keep_none_is_for_workflows_that_only_read() {
    let (routes, messages) = check(json!([
        with(json!({ "keep": "none" })),
        with(json!({ "id": "b", "match": { "method": "GET", "path": "/b" }, "keep": "all" })),
        with(json!({ "id": "c", "match": { "method": "GET", "path": "/c" } })),
    ]));
    assert!(messages.is_empty(), "{messages:#?}");
    assert_eq!(routes.iter().map(|route| route.keeps_runs).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(
        only_problem(json!({ "keep": "none", "workflow": "create-order" })),
        "error r.yaml.routes[0].keep: `keep: none` is for workflows that only read, and `create-order` has the shared step `charge` [such a run has to be stored, so that it can be continued and found again: leave `keep` out]"
    );
    assert_eq!(
        only_problem(json!({ "keep": "none", "instance": { "creates": "$.id" } })),
        "error r.yaml.routes[0].keep: `keep: none` and `instance.creates` exclude each other: an instance is pinned to the stored run that created it [leave `keep` or `instance.creates` out]"
    );
    assert_eq!(
        only_problem(json!({ "keep": "none", "retry_key": "${request.headers.x}" })),
        "error r.yaml.routes[0].keep: `keep: none` and `retry_key` exclude each other: a retry is answered from the stored run of its first try [a read may be repeated: leave `retry_key` out]"
    );
    assert_eq!(
        only_problem(json!({ "keep": "none", "workflow": null })),
        "error r.yaml.routes[0].keep: `keep` is about the engine's runs, and this route has no workflow [add `workflow`, or leave `keep` out]"
    );
}

#[test]
fn each_field_is_checked() {
    let many_params: String = (0..26).map(|n| format!("/{{p{n}}}")).collect();
    let key = "${request.headers[\"x\"]}";
    let steps = json!({ "steps": ["1%"], "each": "1m" });
    let auto = |own: Value| {
        let whole =
            steps.as_object().cloned().into_iter().flatten().chain(own.as_object().cloned().unwrap_or_default());
        json!({ "key": key, "guard": { "errors": "1%" }, "auto": whole.collect::<serde_json::Map<_, _>>() })
    };
    for (patch, place, message) in [
        (json!({ "id": "Orders Get" }), ".id", "is not a valid id for a route"),
        (json!({ "id": "" }), ".id", "`` is not a valid id for a route"),
        (json!({ "id": ".." }), ".id", "`..` is not a valid id for a route"),
        (json!({ "was": ["Orders Get"] }), ".was[0]", "is not a valid id for a route"),
        (json!({ "was": ["orders.get"] }), ".was[0]", "is the route's id now"),
        (json!({ "was": ["a", "a"] }), ".was[1]", "is listed twice"),
        (json!({ "percent": 150, "state": "shadow" }), ".percent", "percent 150 is not between 0 and 100"),
        (json!({ "percent": { "live": 150 }, "key": key }), ".percent.live", "percent 150 is not between"),
        (json!({ "percent": 0.001, "state": "shadow" }), ".percent", "finer than 0.01"),
        (json!({ "percent": 20, "state": "dark" }), ".percent", "a share below 100 in `dark` needs a `key`"),
        (json!({ "percent": { "live": 20 } }), ".percent.live", "a share below 100 in `live` needs a `key`"),
        (json!({ "percent": 20 }), ".percent", "`off` has no share"),
        (json!({ "percent": { "off": 20 } }), ".percent.off", "`off` is not a rung with a share"),
        (json!({ "state": "shadow", "workflow": null }), ".state", "`shadow` needs a `workflow`"),
        (json!({ "key": "${request.headers[" }), ".key", ""),
        (json!({ "key": "${request.body.tenant}" }), ".key", "before the body is read"),
        (json!({ "key": "${string(request)}" }), ".key", "reads the whole request"),
        (json!({ "key": "${steps.price.output}" }), ".key", "`steps` cannot be read here"),
        (json!({ "key": "${request.headrs.x}" }), ".key", "has no `headrs` [did you mean `headers`?]"),
        (json!({ "key": "${request.params.order}" }), ".key", "no parameter `order`"),
        (json!({ "key": "always" }), ".key", "reads nothing of the request"),
        (json!({ "retry_key": "${request.body.id}" }), ".retry_key", "before the body is read"),
        (json!({ "cohorts": [{ "name": "a", "when": "true", "state": "off" }] }), ".cohorts[0].when", "${true}"),
        (
            json!({ "cohorts": [{ "name": "a", "when": "${request.body.x}", "state": "off" }] }),
            ".cohorts[0].when",
            "before the body",
        ),
        (json!({ "instance": { "creates": format!("$[?{}", "(".repeat(99)) } }), ".instance.creates", "are open here"),
        (with_end("reply.status"), ".instance.ends", "a condition has to be one expression"),
        (with_end("${reply.sttus == 200}"), ".instance.ends", "a reply has no `sttus` [did you mean `status`?]"),
        (with_end("${legacy.status == 200 && reply.status == 200}"), ".instance.ends", "`legacy` cannot be read here"),
        (with_end("${request.body.x && reply.status == 200}"), ".instance.ends", "before the body is read"),
        (with_end("${request.method == \"POST\"}"), ".instance.ends", "it does not read the reply"),
        (of_creator("ends_after", json!("soon")), ".instance.ends_after", "is not a duration"),
        (of_creator("ends_after", json!("10ms")), ".instance.ends_after", "not between 1s and 36500d"),
        (of_creator("unknown", json!("not_found")), ".instance.unknown", "a creator must not have `unknown`"),
        (with_alive("POST ${services.shop}/x", "$.a[*].id"), ".instance.alive.call", "has to use the method GET"),
        (with_alive("GET http://shop/x", "$.a[*].id"), ".instance.alive.call", "has to go to a declared service"),
        (with_alive("GET ${services.shpo}/x", "$.a[*].id"), ".instance.alive.call", "did you mean `shop`?"),
        (
            with_alive("GET ${services.shop}/x?at=${request.params.id}", "$.a[*].id"),
            ".instance.alive.call",
            "`request` cannot be read here",
        ),
        (with_alive("GET ${services.shop}/x", "a"), ".instance.alive.ids", "is not a JSONPath"),
        (with_alive("GET ${services.shop}/x", "$.id"), ".instance.alive.ids", "one id in each element of one list"),
        (with_alive("GET ${services.shop}/x", "$.a[*].b[*].id"), ".instance.alive.ids", "in each element of one list"),
        (
            json!({ "workflow": null, "instance": { "creates": "$.id", "alive": { "call": "GET ${services.shop}/x",
                "ids": "$[*]", "headers": { "a": "${request.headers.a}" } } } }),
            ".instance.alive.headers.a",
            "`request` cannot be read here [only `secrets` can]",
        ),
        (
            json!({ "workflow": null, "instance": { "creates": "$.orders[*].id" } }),
            ".instance.creates",
            "may select several",
        ),
        (json!({ "workflow": null, "instance": { "creates": "$..id" } }), ".instance.creates", "may select several"),
        (json!({ "workflow": null, "instance": { "creates": "$.a[0,1]" } }), ".instance.creates", "may select several"),
        (json!({ "instance": {} }), ".instance", "exactly one of `creates` and `follows`"),
        (json!({ "instance": { "follows": "x" } }), ".instance.follows", "needs a `key`"),
        (json!({ "instance": { "follows": "x", "key": "reply.id" } }), ".instance.key", "does not say where"),
        (json!({ "instance": { "follows": "x", "key": "path.idd" } }), ".instance.key", "did you mean `id`?"),
        (json!({ "instance": { "follows": "x", "key": "path.id" } }), ".instance.follows", "no route is called `x`"),
        (json!({ "caller": ["a b"] }), ".caller[0]", "is not a header name"),
        (json!({ "caller": ["Proxy-Authorization"] }), ".caller[0]", "`proxy-authorization` concerns one connection"),
        (json!({ "caller": "upgrade" }), ".caller", "concerns one connection"),
        (json!({ "key": "${request.headers.te}" }), ".key", "concerns one connection"),
        (json!({ "retry_key": "a-${request.headers[\"Keep-Alive\"]}" }), ".retry_key", "concerns one connection"),
        (
            json!({ "cohorts": [{ "name": "a", "when": "${has(request.headers.connection)}", "state": "off" }] }),
            ".cohorts[0].when",
            "concerns one connection",
        ),
        (json!({ "caller": { "jwt": { "keys": "gone.pem", "audience": "a" } } }), ".caller.jwt.keys", "cannot be read"),
        (json!({ "caller": { "jwt": { "keys": "bad.pem", "audience": "a" } } }), ".caller.jwt.keys", "neither"),
        (
            json!({ "caller": { "jwt": { "keys": "bad.pem", "audience": [] } } }),
            ".caller.jwt.audience",
            "needs an audience",
        ),
        (json!({ "deadline": "5 parsecs" }), ".deadline", "is not a duration"),
        (json!({ "deadline": "0s" }), ".deadline", "not between 1ms and 24h"),
        (json!({ "timeouts": { "idle": "0s" } }), ".timeouts.idle", "not between 1ms and 24h"),
        (json!({ "requests_max": 0 }), ".requests_max", "no request could ever be answered"),
        (json!({ "buffer_request": -1 }), ".buffer_request", "`-1` is not a size"),
        (json!({ "guard": { "mismatch": "1" } }), ".guard.mismatch", "is not a rate"),
        (json!({ "guard": { "over": 5 } }), ".guard", "has no condition"),
        (json!({ "guard": { "p99_ratio": 0.0 } }), ".guard.p99_ratio", "above 0"),
        (json!({ "guard": { "p99_ratio": 1e30 } }), ".guard.p99_ratio", "at most 1000000"),
        (json!({ "guard": { "errors": "1%", "over": 0 } }), ".guard.over", "between 1 and 10000"),
        (json!({ "guard": { "errors": "60%", "over": 5 } }), ".guard.errors", "would never act"),
        (json!({ "guard": { "errors": "100%" } }), ".guard.errors", "[lower the rate"),
        (json!({ "guard": { "errors": "1%", "over": 4 } }), ".guard.errors", "[over: 5 at least"),
        (json!({ "guard": { "p99_ratio": 2.0, "over": 2 } }), ".guard.p99_ratio", "would never act"),
        (auto(json!({ "steps": [] })), ".auto.steps", "has 0 entries; 1 to 20 are allowed"),
        (auto(json!({ "steps": ["5%", "5%"] })), ".auto.steps[1]", "have to grow"),
        (auto(json!({ "steps": ["0%"] })), ".auto.steps[0]", "not allowed as a step"),
        (auto(json!({ "steps": ["0.001%"] })), ".auto.steps[0]", "finer than 0.01"),
        (auto(json!({ "steps": ["101%"] })), ".auto.steps[0]", "not between 0% and 100%"),
        (auto(json!({ "each": "1ms" })), ".auto.each", "not between 1s and 30d"),
        (auto(json!({ "at_least": 0 })), ".auto.at_least", "`at_least` is 0"),
        (json!({ "guard": { "errors": "1%" }, "auto": steps }), ".auto", "needs a `key`"),
        (json!({ "key": key, "auto": steps }), ".auto", "a guard that watches errors"),
        (json!({"state": "dark", "key": key, "guard": {"errors": "1%"}, "auto": steps}), ".auto", "begins with 100 %"),
        (json!({ "guard": { "errors": "1%", "notify": "http://a/b" } }), ".guard.notify", "declared service"),
        (
            json!({ "guard": { "errors": "1%", "notify": "${services.shpo}/b" } }),
            ".guard.notify",
            "did you mean `shop`?",
        ),
        (json!({ "guard": { "errors": "1%", "notify": "${services.shop}/${run.id}" } }), ".guard.notify", "read `run`"),
        (json!({ "invariants": { "a": "${rpely.status < 500}" } }), ".invariants.a", "did you mean `reply`?"),
        (json!({ "force": { "reason": " " } }), ".force.reason", "needs a reason"),
        (json!({ "workflow": "create-order", "replay_safe": true }), ".replay_safe", "a shared step is not safe"),
        (json!({ "workflow": "note-order", "replay_safe": true }), ".replay_safe", "a private step is not safe"),
        (json!({ "replay_safe": true, "instance": { "creates": "$.id" } }), ".replay_safe", "creates instances"),
        (json!({ "noise": "1%" }), ".noise", "needs `replay_safe: true`"),
        (json!({ "replay_safe": true, "noise": "1" }), ".noise", "is not a rate"),
        (json!({ "replay_safe": true, "noise": "0.001%" }), ".noise", "finer than 0.01"),
        (json!({ "match": { "method": "get", "path": "/a" } }), ".match.method", "not in upper case: write `GET`"),
        (json!({ "match": { "method": "CONNECT", "path": "/a" } }), ".match.method", "tunnel"),
        (json!({ "match": { "method": "GET", "path": "a" } }), ".match.path", "does not start with a slash"),
        (json!({ "match": { "method": "GET", "path": "/a?b" } }), ".match.path", "paths cannot have"),
        (json!({ "match": { "method": "GET", "path": "/a/../b" } }), ".match.path", "write `/b`"),
        (json!({ "match": { "method": "GET", "path": "/a//b" } }), ".match.path", "can match nothing"),
        (json!({ "match": { "method": "GET", "path": "/a/x{b}" } }), ".match.path", "is not a parameter"),
        (json!({ "match": { "method": "GET", "path": "/{*rest}" } }), ".match.path", "is not a parameter"),
        (json!({ "match": { "method": "GET", "path": "/a/:id" } }), ".match.path", "`:id` matches this text only"),
        (json!({ "match": { "method": "GET", "path": "/a/*" } }), ".match.path", "`*` matches this text only"),
        (json!({ "retry_key": "x-request-id" }), ".retry_key", "reads nothing of the request"),
        (json!({ "match": { "method": "GET", "path": "/%7Ba%7D" } }), ".match.path", "is not a parameter"),
        (json!({ "match": { "method": "GET", "path": "/{a}/{a}" } }), ".match.path", "is used twice"),
        (json!({ "match": { "method": "GET", "path": many_params } }), ".match.path", "has 26 parameters"),
        (json!({ "match": { "method": "GET", "path": "/a", "host": "x:80" } }), ".match.host", "a dot at its end"),
        (json!({ "match": { "method": "GET", "path": "/a", "host": "*.x" } }), ".match.host", "is not a host"),
    ] {
        let messages = only_problem(patch.clone());
        assert!(messages.contains(&format!("r.yaml.routes[0]{place}: ")), "{patch}: {messages}");
        assert!(messages.contains(message), "{patch}: {messages}");
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let (_, messages) = check(json!([with(json!({ "legacy": "x", "workflow": "y", "percent": 150, "deadline": "z",
        "state": "live", "key": "${" }))]));
    assert_eq!(messages.len(), 5, "{messages:#?}");
}

#[test]
fn shared_steps_need_a_retry_key() {
    let post = json!({ "workflow": "create-order", "match": { "method": "POST", "path": "/a" } });
    assert!(only_problem(post).starts_with("warning r.yaml.routes[0].id: without the header `Idempotency-Key`"));
}

#[test]
fn equal_routes_are_refused() {
    let other = |id: &str, path: &str| with(json!({ "id": id, "match": { "method": "GET", "path": path } }));
    let (_, messages) =
        check(json!([other("a", "/orders/{id}"), other("b", "/%6Frders/{order}"), other("c", "/orders/x")]));
    assert_eq!(
        messages,
        ["error r.yaml.routes[1].match: `b` matches the same requests as `a` [`a` is at r.yaml.routes[0]; method, \
          path or host must differ]"]
    );
    let (_, messages) = check(json!([other("a", "/x"), other("a", "/y")]));
    assert_eq!(messages, ["error r.yaml.routes[1].id: two routes are called `a` [the other is at r.yaml.routes[0]]"]);
}

#[test]
fn families_are_checked() {
    let creator = |state: &str| {
        with(json!({ "id": "create", "match": { "method": "POST", "path": "/orders" }, "state": state,
            "instance": { "creates": "$.id" } }))
    };
    let follower = |creator: &str, state: &str| {
        with(json!({ "state": state, "instance": { "follows": creator, "key": "path.id" } }))
    };
    assert!(check(json!([creator("dark"), follower("create", "live")])).1.is_empty());
    let (_, messages) = check(json!([creator("dark"), follower("create", "shadow")]));
    assert_eq!(
        messages,
        ["error r.yaml.routes[1].state: `create` is declared `dark`, above its follower `orders.get` [raise \
          followers first: `orders.get` to `dark` too]"]
    );
    let (_, messages) = check(json!([creator("off"), follower("craete", "off")]));
    assert!(messages[0].contains("no route is called `craete` [did you mean `create`?]"), "{messages:?}");
    let plain = with(json!({ "id": "plain", "match": { "method": "POST", "path": "/x" } }));
    let (_, messages) = check(json!([plain, follower("plain", "off")]));
    assert!(messages[0].contains("`plain` creates no instances"), "{messages:?}");
    for (state, workflow, errors) in
        [("live", Value::Null, 1), ("dark", Value::Null, 0), ("live", json!("read-order"), 0)]
    {
        let mut creator = creator("off");
        creator["cohorts"] =
            json!([{ "name": "staff", "when": "${true}", "state": state, "force": { "reason": "a" } }]);
        let mut follower = follower("create", "off");
        follower["workflow"] = workflow;
        let (_, messages) = check(json!([creator, follower]));
        let says = "error r.yaml.routes[0].cohorts[0].state: a cohort of `create` is in `live`, and its follower \
                    `orders.get` has no workflow";
        assert!(messages.len() == errors && messages.iter().all(|message| message.starts_with(says)), "{messages:?}");
    }
}

#[test]
fn services_are_checked() {
    let service = |draft: Value| {
        let draft: ServiceDraft = serde_json::from_value(draft).unwrap();
        let mut problems = Problems::default();
        let service = check_service(
            "shop",
            &draft,
            &Site::file("p.yaml").key("services").key("shop"),
            &mut |_, _, _| None,
            &mut problems,
        );
        (service, messages(&problems))
    };
    let (shop, messages) = service(json!("http://127.0.0.1:9000/api/"));
    assert_eq!(shop.unwrap().urls[0].uri.to_string(), "http://127.0.0.1:9000/api", "{messages:?}");
    let (shop, _) = service(json!("http://127.0.0.1:9000"));
    assert_eq!(shop.unwrap().urls[0].uri.authority().unwrap(), "127.0.0.1:9000");
    let (stock, messages) = service(json!({ "urls": ["http://a:1", "http://b:2"], "keyed": true, "connect": "1s",
        "first_byte": "2s", "idle": "3s", "total": "off", "buffer_request": "64KiB", "compress": "off",
        "calls_max": 7, "requests_max": 9 }));
    let stock = stock.unwrap();
    let (first_byte, idle) = (Some(Duration::from_secs(2)), Some(Duration::from_secs(3)));
    let (total, compress) = (Some(TotalTimeout::Off), Some(Compress::Off));
    assert_eq!(stock.relay, RelaySettings { buffer_request: Some(65_536), first_byte, idle, total, compress });
    assert!(
        stock.keyed
            && stock.urls.len() == 2
            && (stock.calls_max, stock.requests_max) == (Some(7), Some(9))
            && messages.is_empty()
    );
    for (draft, message) in [
        (json!("ftp://shop"), "is not an http or https URL"),
        (json!("shop:9000"), "is not an http or https URL"),
        (json!("http://u:p@shop"), "cannot have a user name or password"),
        (json!("http://shop/?a=b"), "neither query nor fragment"),
        (json!("http://shop/a/../b"), "interpret differently"),
        (json!("http://"), "is not a URL"),
        (json!({ "urls": [] }), "has no URL"),
        (json!({ "urls": ["http://a"], "buffer_request": "64KB" }), "`64KB` is not a size"),
        (json!({ "urls": ["http://a"], "buffer_request": "65MiB" }), "at most 64MiB of a body are buffered"),
        (json!({ "urls": ["http://a"], "total": "never" }), "`never` is not a duration"),
        (json!({ "urls": ["http://a"], "calls_max": 0 }), "no call could ever be made"),
        (json!({ "urls": ["http://a"], "requests_max": 0 }), "no request could ever be forwarded"),
        (json!({ "urls": ["http://a"], "connect": "soon" }), "is not a duration"),
    ] {
        let (service, messages) = service(draft.clone());
        assert!(service.is_none() && messages.len() == 1 && messages[0].contains(message), "{draft}: {messages:?}");
    }
}

fn check_bank(draft: Value) -> (Option<Service>, Vec<String>) {
    let mut map = json!({ "urls": ["http://a:1"] });
    map.as_object_mut().unwrap().extend(draft.as_object().unwrap().clone());
    let mut problems = Problems::default();
    let draft = serde_json::from_value(map).unwrap();
    let service = check_service("bank", &draft, &Site::file("p.yaml"), &mut |_, _, _| None, &mut problems);
    (service, messages(&problems))
}

#[test]
fn a_breaker_is_on_by_default() {
    let seconds = Duration::from_secs;
    let breaker = |draft: Value| check_bank(draft).0.unwrap().breaker;
    let default = BreakerSettings::default();
    assert_eq!(breaker(json!({})), Some(default));
    assert_eq!(breaker(json!({ "breaker": "on" })), Some(default));
    assert_eq!(breaker(json!({ "breaker": {} })), Some(default));
    assert_eq!(breaker(json!({ "breaker": "off" })), None);
    let draft = json!({ "breaker": { "failures": "20%", "over": "1m", "min": 5, "slow": "2s", "open": "90s" } });
    let (failures, over, open, open_max) = (0.2, seconds(60), seconds(90), seconds(90));
    let expected = BreakerSettings { failures, over, min: 5, slow: Some(seconds(2)), open, open_max, ..default };
    assert_eq!(breaker(draft), Some(expected), "`open_max` is never shorter than `open`");
}

#[test]
fn a_rate_has_a_default_burst() {
    let rate =
        |draft: Value| check_bank(draft).0.unwrap().rate.map(|rate| (rate.calls, rate.per.as_secs(), rate.burst));
    assert_eq!(rate(json!({})), None);
    assert_eq!(rate(json!({ "rate": "100/s" })), Some((100, 1, 10)));
    assert_eq!(rate(json!({ "rate": "100/s", "burst": 20 })), Some((100, 1, 20)));
    assert_eq!(rate(json!({ "rate": "90 / m" })), Some((90, 60, 1)));
    assert_eq!(rate(json!({ "rate": "1000/h" })), Some((1_000, 3_600, 1)));
    for (draft, message) in [
        (json!({ "rate": "0/s" }), "0 is not between 1 and"),
        (json!({ "rate": "1/d" }), "is not a rate of calls"),
        (json!({ "rate": "-1/s" }), "is not a rate of calls"),
        (json!({ "rate": "1/s", "burst": 0 }), "no call could ever begin"),
        (json!({ "burst": 1 }), "without `rate`"),
        (json!({ "breaker": { "failures": "101%" } }), "not between 0% and 100%"),
        (json!({ "breaker": { "probes": 101 } }), "are too many"),
    ] {
        let (service, messages) = check_bank(draft.clone());
        assert!(service.is_none() && messages.len() == 1 && messages[0].contains(message), "{draft}: {messages:?}");
    }
}

#[test]
fn schemas_refuse_unknown_keys() {
    for schema in [schemars::schema_for!(RouteFileDraft), schemars::schema_for!(ServiceDraft)] {
        let text = serde_json::to_string(&schema).unwrap();
        assert!(text.contains("\"additionalProperties\":false") && !text.contains("anyOf\":[{\"type\":\"string\"}"));
    }
    let schema = serde_json::to_value(schemars::schema_for!(RouteFileDraft)).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let file = |route: Value| json!({ "routes": [route] });
    assert!(validator.is_valid(&file(with(json!({ "percent": 20 })))));
    assert!(validator.is_valid(&file(with(json!({ "percent": { "dark": 20 }, "caller": ["a"], "compare": {} })))));
    assert!(!validator.is_valid(&file(with(json!({ "percnt": 20 })))));
    assert!(!validator.is_valid(&file(with(json!({ "percent": { "drak": 20 } })))));
    assert!(!validator.is_valid(&file(with(json!({ "state": "bright" })))));
}

#[test]
fn an_earlier_id_is_listed_by_one_route_only_and_is_not_the_present_id_of_another() {
    let at = |id: &str, path: &str, was: &[&str]| {
        with(json!({ "id": id, "match": { "method": "GET", "path": path }, "was": was }))
    };
    let (routes, messages) = check(json!([at("a", "/a", &["old.a", "older.a"]), at("b", "/b", &[])]));
    assert!(messages.is_empty(), "{messages:#?}");
    assert_eq!(routes[0].was, ["old.a".into(), "older.a".into()]);
    assert_eq!(routes[0].first_id().as_str(), "older.a");
    assert_eq!(routes[1].first_id().as_str(), "b");

    let (_, messages) = check(json!([at("a", "/a", &["b"]), at("b", "/b", &["a"])]));
    assert_eq!(messages.len(), 2, "a circle: {messages:#?}");
    assert!(messages[0].contains("routes[0].was[0]: a route is still called `b`"), "{messages:#?}");
    let (_, messages) = check(json!([at("a", "/a", &["old"]), at("b", "/b", &["old"])]));
    assert!(messages.len() == 1 && messages[0].contains("`old` is an earlier id of two routes"), "{messages:#?}");
}
