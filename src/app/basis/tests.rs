//! Tests of what the evidence of a route depends on.

use super::*;
use crate::config::{self, Overrides};

/// Files with these routes.
pub(in crate::app) fn setup(routes: &str) -> Setup {
    setup_with(routes, "workflow: v\nsteps: { a: { set: 1 } }\nrespond: { status: 200 }\n")
}

/// Files with these routes and this workflow beside another one.
fn setup_with(routes: &str, workflow: &str) -> Setup {
    setup_of("services: { shop: 'http://127.0.0.1:9' }\n", routes, workflow)
}

fn setup_of(services: &str, routes: &str, workflow: &str) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("pointsman.yaml", &format!("{services}default_legacy: shop\n"));
    write("workflows/w.yaml", "workflow: w\nsteps: { a: { set: 1 } }\nrespond: { status: 200, body: { id: 1 } }\n");
    write("workflows/v.yaml", workflow);
    write("routes/orders.yaml", routes);
    let loaded = config::read(dir.path(), &Overrides::default());
    loaded.unwrap_or_else(|failed| panic!("{}", failed.render(false))).setup
}

/// A creator with this id and these earlier ids, and its follower `get`.
fn family(creator: &str, was: &str) -> Setup {
    let routes = format!(
        "routes:
- {{ id: {creator}, was: [{was}], match: {{ method: POST, path: /orders }}, legacy: shop, workflow: w,
instance: {{ creates: $.id }} }}
- {{ id: get, match: {{ method: GET, path: '/orders/{{id}}' }}, legacy: shop, workflow: w,
instance: {{ follows: {creator}, key: path.id }} }}
"
    );
    setup(&routes)
}

fn basis_of_follower(creator: &str, was: &str) -> EvidenceBasis {
    of_follower(bases(&family(creator, was), &PlansInForce::default()))
}

fn of_follower(bases: Vec<(RouteId, EvidenceBasis)>) -> EvidenceBasis {
    bases.into_iter().find(|(route, _)| route.as_str() == "get").unwrap().1
}

/// What another follower did to an instance is what this one finds: a defect there shows here, and its mending must
/// start the evidence anew. One that only reads does nothing to it.
#[test]
fn the_workflows_of_other_followers_that_write_are_part_of_the_basis() {
    let writing = "workflow: v\nsteps: { a: { call: 'PUT ${services.shop}/a', body: { state: STATE } } }\n\
                   respond: { status: 200 }\n";
    let of = |workflow: &str, text: &str| {
        let follower = |id: &str, method: &str, workflow: &str| {
            format!(
                "- {{ id: {id}, match: {{ method: {method}, path: '/orders/{{id}}' }}, legacy: shop,\n    \
                 workflow: {workflow}, instance: {{ follows: create, key: path.id }} }}\n"
            )
        };
        let creator = "- { id: create, match: { method: POST, path: /orders }, legacy: shop, workflow: w,\n    \
                       instance: { creates: $.id } }\n";
        let routes = ["routes:\n", creator, &follower("get", "GET", "w"), &follower("put", "PUT", workflow)].concat();
        let found = bases(&setup_with(&routes, text), &PlansInForce::default());
        let of = |id: &str| found.iter().find(|(route, _)| route.as_str() == id).unwrap().1.clone();
        (of("get"), of("create"))
    };
    let one = of("v", &writing.replace("STATE", "1"));
    let two = of("v", &writing.replace("STATE", "2"));
    assert_ne!(one.0, two.0);
    assert_eq!(one.1, two.1, "the creator's evidence goes on");
    let reading = |n: u8| format!("workflow: v\nsteps: {{ a: {{ set: {n} }} }}\nrespond: {{ status: 200 }}\n");
    assert_eq!(of("v", &reading(1)).0, of("v", &reading(2)).0);
}

/// The basis of `GET /orders/{id}` in files that also have these routes.
fn basis_with_other_routes(others: &str) -> EvidenceBasis {
    let routes = format!(
        "routes:\n- {{ id: get, match: {{ method: GET, path: '/orders/{{id}}' }}, legacy: shop, workflow: w }}\n{others}"
    );
    let mut all = bases(&setup(&routes), &PlansInForce::default()).into_iter();
    all.find(|(route, _)| route.as_str() == "get").unwrap().1
}

#[test]
fn a_changed_part_is_known_by_its_name() {
    let of = |path: &str, rest: &str| {
        let route = format!("{{ id: a, match: {{ method: POST, path: {path} }}, legacy: shop, workflow: w{rest} }}");
        bases(&setup(&format!("routes:\n- {route}\n")), &PlansInForce::default()).remove(0).1
    };
    let before = of("/orders", "");
    for (after, changed) in [
        (of("/other", ""), "`match:`"),
        (of("/orders", ", compare: { status: class }"), "`compare:`"),
        (of("/orders", ", instance: { creates: $.id }"), "`instance:`"),
    ] {
        assert_ne!(after.hash, before.hash);
        assert_eq!(after.parts.hashes.len(), before.parts.hashes.len());
        let hashes = after.parts.hashes.iter();
        let names = hashes.filter(|(name, hash)| before.parts.hashes[*name] != **hash).map(|(name, _)| name);
        assert_eq!(names.collect::<Vec<_>>(), [changed]);
    }
    let values = &before.parts.values;
    assert!(values["the workflow `w`"].starts_with("plan_"), "{values:?}");
    assert_eq!(values["the address of its legacy service"], "http://127.0.0.1:9/");
    let nothing = of("/orders", ", compare: { ignore: ['$'], status: class, headers: [] }");
    assert!(nothing.rules.is_empty() && nothing.parts.values[RULES].contains("class"), "{nothing:?}");
}

/// The hash of a basis has the names, so evidence goes on where all parts are equal.
#[test]
fn the_names_of_path_parameters_are_a_part_only_where_something_reads_them() {
    let of = |path: &str, rest: &str, reads: &str| {
        let routes = format!(
            "routes:\n- {{ id: a, match: {{ method: POST, path: '{path}' }}, legacy: shop, workflow: v{rest} }}\n\
             - {{ id: make, match: {{ method: POST, path: /o }}, legacy: shop, workflow: w, instance: {{ creates: $.id }} }}\n"
        );
        let workflow = format!("workflow: v\nsteps: {{ a: {{ set: '{reads}' }} }}\nrespond: {{ status: 200 }}\n");
        let mut all = bases(&setup_with(&routes, &workflow), &PlansInForce::default()).into_iter();
        all.find(|(route, _)| route.as_str() == "a").unwrap().1.parts.hashes
    };
    let rule = ", compare: { ignore: [{ path: $.a, when: \"${request.params.x == request.params.y}\" }] }";
    for (reads, rest) in [("${request.body}", ""), ("${request.params.b}", "")] {
        assert_eq!(of("/o/{x}/{b}", rest, reads), of("/o/{y}/{b}", rest, reads), "{reads}");
    }
    let followers = [("x", "y"), ("y", "x")].map(|(key, other)| {
        let follows = format!(", instance: {{ follows: make, key: path.{key} }}");
        of(&format!("/o/{{{key}}}/{{{other}}}"), &follows, "${request.body}")
    });
    assert_eq!(followers[0], followers[1]);
    let by_second = of("/o/{x}/{y}", ", instance: { follows: make, key: path.y }", "${request.body}");
    assert_ne!(by_second["`instance:`"], followers[0]["`instance:`"]);
    for (reads, rest) in [("${request.params.x}", ""), ("${request.params}", ""), ("${request.body}", rule)] {
        let (before, after) = (of("/o/{x}/{y}", rest, reads), of("/o/{y}/{x}", rest, reads));
        assert_ne!(before[READ_PARAMETERS], after[READ_PARAMETERS], "{reads} {rest}");
    }
}

#[test]
fn what_decides_which_calls_belong_to_a_request_is_part_of_the_basis() {
    let of = |egress: &str| {
        let services = format!("services: {{ shop: 'http://127.0.0.1:9' }}\n{egress}");
        let routes = "routes:\n- { id: a, match: { method: POST, path: /orders }, legacy: shop, workflow: w }\n";
        let workflow = "workflow: v\nsteps: { a: { set: 1 } }\nrespond: { status: 200 }\n";
        bases(&setup_of(&services, routes, workflow), &PlansInForce::default()).remove(0).1
    };
    let with = |more: &str| of(&format!("egress: {{ listen: 127.0.0.1:8090{more} }}\n"));
    assert_eq!(of("").hash, with("").hash, "the evidence of earlier versions goes on");
    assert_eq!(with("").hash, with(", window: 10s").hash);
    let hashes = [
        with(""),
        with(", window: 5s"),
        with(", correlate: header.x-id"),
        with(", window: 5s, correlate: header.x-id"),
    ];
    let distinct: BTreeSet<&str> = hashes.iter().map(|basis| basis.hash.as_str()).collect();
    assert_eq!(distinct.len(), hashes.len());
    // Its texts may be secret, and what the parts say is recorded; but each of them counts.
    let keyed = |key: &str| {
        with(&format!(", correlate: '${{call.body.ref == default(request.headers[\"x-ref\"], \"{key}\")}}'"))
    };
    let (one, two) = (keyed("hunter2"), keyed("hunter3"));
    assert_ne!((&one.hash, &one.parts.hashes[ATTRIBUTION]), (&two.hash, &two.parts.hashes[ATTRIBUTION]));
    let shown = &one.parts.values[ATTRIBUTION];
    assert!(shown.contains("x-ref") && shown == &two.parts.values[ATTRIBUTION], "{shown}");
    assert!(!format!("{:?}", one.parts).contains("hunter2"), "{one:?}");
}

/// A gateway may choose by these names who answers.
#[test]
fn the_names_by_which_a_service_is_asked_are_part_of_the_basis() {
    let workflow = "workflow: v\nsteps: { a: { call: 'GET ${services.prices}/p' } }\nrespond: { status: 200 }\n";
    let of = |prices: &str, shop: &str| {
        let services = format!("services: {{ shop: {{ urls: [{A}]{shop} }}, prices: {{ urls: [{A}]{prices} }} }}\n");
        let route = "routes:\n- { id: a, match: { method: POST, path: /a }, legacy: shop, workflow: v }\n";
        bases(&setup_of(&services, route, workflow), &PlansInForce::default()).remove(0).1
    };
    const A: &str = "'https://127.0.0.1:9'";
    let plain = of("", "");
    assert_eq!(plain.hash, of(", host: client", "").hash, "the default");
    for (prices, shop, part, value) in [
        (", host: v1.prices", "", "the address of the service `prices`", "https://127.0.0.1:9/, host: v1.prices"),
        (", host: url", "", "the address of the service `prices`", "https://127.0.0.1:9/, host: url"),
        ("", ", host: v2.shop", "the address of its legacy service", "https://127.0.0.1:9/, host: v2.shop"),
        (
            ", tls: { server_name: v1.prices }",
            "",
            "the address of the service `prices`",
            "https://127.0.0.1:9/, tls.server_name: v1.prices",
        ),
    ] {
        let named = of(prices, shop);
        assert_ne!(named.hash, plain.hash, "{prices}{shop}");
        assert_ne!(named.parts.hashes[part], plain.parts.hashes[part], "{prices}{shop}");
        assert_eq!(named.parts.values[part], value);
    }
}

#[test]
fn the_noise_of_legacy_outlives_the_workflow_and_not_the_rules() {
    let of = |rest: &str| {
        let route = format!("{{ id: a, match: {{ method: GET, path: /a }}, legacy: shop, workflow: w{rest} }}");
        bases(&setup(&format!("routes:\n- {route}\n")), &PlansInForce::default()).remove(0).1
    };
    assert_eq!(of("").noise, "", "not declared safe to repeat");
    let (repeated, other) = (of(", replay_safe: true"), of(", replay_safe: true, compare: { status: class }"));
    assert!(!repeated.noise.is_empty() && repeated.noise != other.noise);
    assert_eq!(repeated.hash, of("").hash, "the evidence goes on");
}

/// Without the more specific route, the general route would get requests that were not compared.
#[test]
fn the_requests_that_a_more_specific_route_takes_are_part_of_the_basis() {
    let alone = basis_with_other_routes("");
    let with = |path: &str, workflow: &str| {
        basis_with_other_routes(&format!(
            "- {{ id: other, match: {{ method: GET, path: '{path}' }}, legacy: shop{workflow} }}\n"
        ))
    };
    assert_ne!(with("/orders/export", ""), alone);
    assert_ne!(with("/orders/export", ""), with("/orders/import", ""));
    assert_eq!(
        with("/orders/export", ", workflow: w"),
        with("/orders/export", ""),
        "the requests go to that route either way"
    );
    assert_eq!(with("/orders/{id}/lines", ""), alone, "that route takes none of the requests");
    assert_eq!(with("/{any}/{id}", ""), alone, "that route is more general");
}

#[test]
fn a_follower_keeps_its_basis_when_its_creator_is_renamed() {
    let before = basis_of_follower("create", "");
    assert_eq!(basis_of_follower("v2.create", "create"), before);
    assert_eq!(basis_of_follower("v3.create", "v2.create, create"), before);
    assert_ne!(basis_of_follower("v2.create", ""), before, "another route creates the instances");
    let (files, in_store) = (family("v2.create", ""), family("v2.create", "create").routes);
    let bases = bases_in_store(&files, &in_store, &PlansInForce::default());
    assert_eq!(of_follower(bases), before, "the store knows the id that the files no longer list");
}
