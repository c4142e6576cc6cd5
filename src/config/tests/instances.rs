//! What `check` says about the question to legacy for its instances.

use super::set::Set;

fn asking(secret: &str) -> Set {
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
fn the_question_to_legacy_reads_secrets_that_are_declared() {
    let shown = asking("shop").shown();
    assert!(!shown.contains("secret"), "{shown}");
    let shown = asking("shpo").shown();
    assert!(shown.contains("no secret is called `shpo`") && shown.contains("did you mean `shop`?"), "{shown}");
}

/// The follower reads the order from elsewhere than its path.
fn following_by(key: &str) -> Set {
    asking("shop").edit("routes/orders.yaml", "key: path.id", &format!("key: {key}"))
}

#[test]
fn a_follower_has_the_id_in_its_path_in_the_query_or_in_a_header() {
    for key in ["path.id", "query.order", "header.X-Order-Id"] {
        assert!(following_by(key).read().is_ok(), "{}", following_by(key).shown());
    }
    for (key, why) in [
        ("path.idd", "the path has no parameter `idd`"),
        ("body.id", "`body.id` is no place of a request's head"),
        ("id", "`id` is no place of a request's head"),
        ("query.", "`query.` is no place of a request's head"),
        ("header.a b", "`a b` is not the name of a header"),
        ("header.connection", "concerns one connection"),
    ] {
        let shown = following_by(&format!("'{key}'")).shown();
        assert!(shown.contains(why) && shown.contains("routes/orders.yaml"), "{key}: {shown}");
    }
}

#[test]
fn a_follower_that_reads_the_input_of_adopted_instances_is_warned_of() {
    let adopting = "workflow: adopt\nlegacy_passive: { reason: it does nothing }\nsteps:\n  see: { set: 1 }\n\
                    respond: { status: 200, body: { id: '${instance.legacy_id}' } }\n";
    let reading =
        "workflow: read\nsteps:\n  see: { set: '${instance.input.email}' }\nrespond: { status: 200, body: {} }\n";
    let with = |workflow: &str| {
        asking("shop")
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
    assert!(shown.contains("it reads `instance.input`, which is null for an instance that was adopted"), "{shown}");
    let shown = with(&reading.replace("instance.input", "instance.output")).shown();
    assert!(!shown.contains("which is null for an instance"), "{shown}");
}
