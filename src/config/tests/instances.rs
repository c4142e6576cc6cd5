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
