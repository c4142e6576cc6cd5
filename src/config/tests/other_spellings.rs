//! Warnings of spellings that bypass a route, and `paths:` of services.

use super::set::Set;

#[test]
fn spellings_that_would_bypass_a_route_cause_a_warning() {
    let lenient = Set::valid().edit("routes/orders.yaml", "paths: strict", "paths: lenient");
    let shown = lenient.shown();
    assert!(
        shown.contains("flags/routes/orders.yaml:3:34")
            && shown
                .contains("if it takes `/orders/`, `/ORDERS` or `/orders.json` for `/orders`, such requests bypass"),
        "{shown}"
    );
    let shop = "  shop: { urls: [http://127.0.0.1:9000], paths: ";
    let with = |paths: &str| {
        let set = Set::valid().edit("routes/orders.yaml", "paths: strict", "paths: lenient");
        set.edit("pointsman.yaml", "  shop: http://127.0.0.1:9000", &format!("{shop}{paths} }}")).shown()
    };
    assert_eq!(with("rails"), "nothing wrong");
    assert_eq!(with("{ trailing_slash: different, case: different, suffix: keep }"), "nothing wrong");
    assert!(with("{ trailing_slash: same, case: different }").contains("if it takes `/orders.json` for"));
    assert!(with("django").contains("`paths: django` is not known"), "{}", with("django"));
    assert!(with("{ like: django }").contains("error: "), "{}", with("{ like: django }"));
    assert!(with("{ like: rails, casing: same }").contains("casing"));
}
