//! What `check` says about the request that lists legacy's instances (`instance.alive`), and about ids of instances.

use super::set::Set;

fn with_alive(secret: &str) -> Set {
    let instance = format!(
        "    instance:\n      creates: $.id\n      alive:\n        call: GET ${{services.shop}}/orders\n        \
         ids: $.items[*].id\n        headers: {{ x-key: 'Bearer ${{secrets.{secret}}}' }}\n"
    );
    let follower = "  - id: orders.get\n    match: { method: GET, path: '/orders/{id}' }\n    legacy: shop\n    \
                    workflow: create-order\n    state: shadow\n    instance: { follows: orders.create, key: path.id }\n";
    let secrets = "secrets: { shop: { file: key } }\nlisten: 127.0.0.1:8080";
    Set::valid()
        .put("key", "a key")
        .edit("pointsman.yaml", "listen: 127.0.0.1:8080", secrets)
        .edit("routes/orders.yaml", "    percent: 50\n", &instance)
        .edit("routes/orders.yaml", "routes:\n", &format!("routes:\n{follower}"))
}

#[test]
fn the_alive_request_reads_only_declared_secrets() {
    let shown = with_alive("shop").shown();
    assert!(!shown.contains("secret"), "{shown}");
    let shown = with_alive("shpo").shown();
    assert!(shown.contains("no secret is called `shpo`") && shown.contains("did you mean `shop`?"), "{shown}");
}

/// The follower reads the order from elsewhere than its path.
fn following_by(key: &str) -> Set {
    with_alive("shop").edit("routes/orders.yaml", "key: path.id", &format!("key: {key}"))
}

#[test]
fn a_follower_has_the_id_in_its_path_in_the_query_in_a_header_or_in_its_body() {
    for key in ["path.id", "query.order", "header.X-Order-Id"] {
        assert!(following_by(key).read().is_ok(), "{}", following_by(key).shown());
    }
    for key in ["body.id", "body.order.id", "body.$['order-id']", "body.orders[0]"] {
        let set = following_by(&format!("\"{key}\"")).edit(
            "routes/orders.yaml",
            "method: GET, path: '/orders/{id}'",
            "method: PUT, path: '/orders/{id}'",
        );
        assert!(set.read().is_ok(), "{}", set.shown());
    }
    // Only the last name counts.
    assert!(!following_by("body.token.id").shown().contains("secret, and ids"));
    for (key, why) in [
        ("path.idd", "the path has no parameter `idd`"),
        ("body.id", "a request with the method GET has no body"),
        ("body.", "`body.` does not say where a request has the instance's id"),
        ("body.order-id", "`$.order-id` is not a JSONPath"),
        ("body.$.orders[*].id", "may select several values"),
        ("id", "`id` does not say where a request has the instance's id"),
        ("query.", "`query.` does not say where a request has the instance's id"),
        ("header.a b", "`a b` is not the name of a header"),
        ("header.connection", "concerns one connection"),
        ("header.cookie", "`cookie` is a secret, and ids of instances are stored and shown"),
        ("header.authorization", "`authorization` is a secret"),
        ("query.token", "`token` is a secret"),
        ("body.user.token", "`token` is a secret, and ids of instances are stored and shown"),
        ("body.password", "`password` is a secret"),
        ("body.$['access-token'][0]", "`access-token` is a secret"),
    ] {
        let shown = following_by(&format!("\"{key}\"")).shown();
        assert!(shown.contains(why) && shown.contains("routes/orders.yaml"), "{key}: {shown}");
    }
}

#[test]
fn an_instance_id_that_redact_names_is_refused() {
    let listen = "listen: 127.0.0.1:8080";
    let redact = format!("redact: {{ names: [order_ref, order] }}\n{listen}");
    let declaring = |set: Set| set.edit("pointsman.yaml", listen, &redact);
    for key in ["header.x-order-id", "body.order.id"] {
        let shown = declaring(following_by(&format!("\"{key}\""))).shown();
        assert!(!shown.contains("is a secret"), "{shown}");
    }
    for (key, name) in [
        ("header.Order-Ref", "Order-Ref"),
        ("query.order[order_ref]", "order[order_ref]"),
        ("query.order", "order"),
        ("body.ids.order_ref", "order_ref"),
    ] {
        let shown = declaring(following_by(&format!("\"{key}\""))).shown();
        assert!(shown.contains(&format!("`{name}` is a secret, and ids of instances are stored and shown")), "{shown}");
    }
    for (creates, name) in [("header.order-ref", "order-ref"), ("$.order", "order")] {
        let shown = declaring(creating_in(creates)).shown();
        assert!(shown.contains(&format!("`{name}` is a secret, and ids of instances are stored and shown")), "{shown}");
    }
}

/// The creator has the id of a new order elsewhere than in `$.id`.
fn creating_in(creates: &str) -> Set {
    with_alive("shop").edit("routes/orders.yaml", "creates: $.id", &format!("creates: {creates}"))
}

#[test]
fn a_creator_has_the_id_in_its_body_or_in_a_header() {
    for creates in [
        "$.order.id",
        "header.location",
        "header.X-Order-Id",
        "{ header.location: '/orders/{id}' }",
        "{ header.location: '/customers/{customer}/orders/{id}' }",
    ] {
        assert!(creating_in(creates).read().is_ok(), "{}", creating_in(creates).shown());
    }
    for (creates, at, why, hint) in [
        ("headers.location", 16, "`headers.location` is not a JSONPath", "$.id, or header.location"),
        ("header.a b", 16, "`a b` is not the name of a header", "`creates: header.location`"),
        ("'header.'", 16, "`` is not the name of a header", "`creates: header.location`"),
        ("'header.location: /orders/{id}'", 16, "is not the name of a header", "header.location: \"/orders/{id}\""),
        ("header.Connection", 16, "`connection` concerns one connection", "header.location"),
        ("header.set-cookie", 16, "`set-cookie` is a secret", "header.location"),
        ("{ header.location: /orders }", 35, "does not say where the id is", "`/orders/{id}`"),
        ("{ header.location: '/{a}/{b}' }", 35, "`/{a}/{b}` has several names", "call that one `id`"),
        ("{ header.te: '/{id}' }", 18, "`te` concerns one connection", "header.location"),
        ("{ location: '/{id}' }", 18, "`location` is no header of a reply", "header.location"),
        ("{ header.a: '{id}', header.b: '{id}' }", 7, "`creates` does not name exactly one header", "header.location"),
        ("{}", 7, "`creates` does not name exactly one header", "header.location"),
        ("$.password", 16, "`password` is a secret, and ids of instances are stored and shown", "$.id"),
        ("$.data.token", 16, "`token` is a secret", "header.location"),
        ("7", 16, "", ""),
    ] {
        let set = creating_in(creates);
        let shown = set.shown();
        assert!(set.read().is_err(), "{creates}");
        let place = format!("routes/orders.yaml:14:{at}\n");
        assert!(shown.contains(&place) && shown.contains(why) && shown.contains(hint), "{creates} {place} {shown}");
    }
}

#[test]
fn a_list_of_places_for_the_id_is_refused_once_with_the_form_that_is_wanted() {
    let shown = creating_in("[ $.id ]").shown();
    assert!(shown.contains("expected text or a map, found a list") && shown.contains("`$.orders[0].id`"), "{shown}");
    assert!(!shown.contains("exactly one of `creates` and `follows`"), "{shown}");
}

/// As one whose id is in the body.
#[test]
fn a_pending_answer_without_the_header_that_has_the_id_causes_a_warning() {
    let (header, body) = ("headers: { location: '/orders/${run.id}' }", "body: { id: '${run.id}' }");
    for (answer, is_pinned) in [(header, true), (body, false)] {
        let set = creating_in("header.location").edit(
            "workflows/create-order.yaml",
            "respond:\n  status: 201\n  body:",
            &format!("respond:\n  - pending: {{ status: 202, {answer} }}\n  - status: 201\n    body:"),
        );
        let warning = "does not return the id of its instance (`header.location`)";
        assert_eq!(set.shown().contains(warning), !is_pinned, "{answer}: {}", set.shown());
    }
}

#[test]
fn a_workflow_without_the_header_that_has_the_id_causes_a_warning() {
    let warned = |set: &Set| {
        let shown = set.shown();
        ["`create-order` has the header `location`", "`adopt` has the header `location`"]
            .map(|text| shown.contains(text))
    };
    let answer = |set: Set, name: &str, from: &str| {
        set.edit(&format!("workflows/{name}.yaml"), from, &format!("{from}, headers: {{ location: '/orders/1' }}"))
    };
    let adopting = "workflow: adopt\nlegacy_passive: { reason: it does nothing }\nsteps:\n  see: { set: 1 }\n\
                    respond: { status: 200, body: {} }\n";
    let set = || {
        creating_in("header.location\n      adopt: adopt").put("workflows/adopt.yaml", adopting).edit(
            "workflows/create-order.yaml",
            "respond:\n  status: 201\n  body: { id: '${steps.charge.output.id}' }\n",
            "respond: { status: 201 }\n",
        )
    };
    assert!(set().read().is_ok(), "{}", set().shown());
    assert_eq!(warned(&set()), [true, true]);
    assert_eq!(warned(&answer(set(), "create-order", "status: 201")), [false, true]);
    assert_eq!(warned(&answer(set(), "adopt", "status: 200")), [true, false]);
    assert_eq!(warned(&set().edit("routes/orders.yaml", "creates: header.location", "creates: $.id")), [false, false]);
}

#[test]
fn a_follower_that_reads_the_input_of_adopted_instances_is_warned_of() {
    let adopting = "workflow: adopt\nlegacy_passive: { reason: it does nothing }\nsteps:\n  see: { set: 1 }\n\
                    respond: { status: 200, body: { id: '${instance.legacy_id}' } }\n";
    let reading =
        "workflow: read\nsteps:\n  see: { set: '${instance.input.email}' }\nrespond: { status: 200, body: {} }\n";
    let with = |workflow: &str| {
        with_alive("shop")
            .put("workflows/adopt.yaml", adopting)
            .put("workflows/read.yaml", workflow)
            .edit("routes/orders.yaml", "      creates: $.id\n", "      creates: $.id\n      adopt: adopt\n")
            .edit(
                "routes/orders.yaml",
                "workflow: create-order\n    state: shadow\n    instance: { f",
                "workflow: read\n    state: shadow\n    instance: { f",
            )
    };
    let shown = with(reading).shown();
    assert!(
        shown.contains("the workflow reads `instance.input`, which is null for an instance that was adopted"),
        "{shown}"
    );
    let shown = with(&reading.replace("instance.input", "instance.output")).shown();
    assert!(!shown.contains("which is null for an instance"), "{shown}");
}
