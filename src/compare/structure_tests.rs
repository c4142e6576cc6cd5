//! Texts that are compared by structure.

use serde_json::{Value, json};

use super::tests::{compared, found, reply, rules};
use super::{Comparison, DifferenceKind, Verdict};

fn compared_as(content_type: &str, legacy: &str, engine: &str, draft: Value) -> Comparison {
    let of = |body: &str| reply(200, &[("content-type", content_type)], body.to_owned());
    compared(&of(legacy), &of(engine), &rules(draft)).unwrap()
}

#[test]
fn rows_are_paired_by_a_column_and_columns_have_rules() {
    let legacy = "sku,n,at\nA,1,9:00\nB,2,9:00\n";
    let engine = "sku,n,at\nB,2,9:01\nA,1,9:01\n";
    let draft = json!({"unordered": {"$.rows": "sku"}, "ignore": ["$.rows[*].at"]});
    assert_eq!(compared_as("text/csv", legacy, engine, draft.clone()).verdict, Verdict::Ignored);
    let wrong = compared_as("text/csv", legacy, &engine.replace("B,2", "B,3"), draft.clone());
    assert_eq!(found(&wrong), [("$.rows[*].n", DifferenceKind::Value)]);
    let renamed = compared_as("text/csv", legacy, &engine.replace("n,at", "m,at"), draft);
    assert!(found(&renamed).contains(&("$.columns[*]", DifferenceKind::Value)), "{:?}", found(&renamed));
}

#[test]
fn a_table_may_have_semicolons_and_then_differs_from_one_with_commas() {
    let (legacy, engine) = ("sku;n;at\nA;1,50;9:00\nB;2,00;9:00\n", "sku;n;at\nA;1,50;9:01\nB;2,00;9:01\n");
    let draft = json!({"ignore": ["$.rows[*].at"]});
    assert_eq!(compared_as("text/csv", legacy, engine, draft.clone()).verdict, Verdict::Ignored);
    let wrong = compared_as("text/csv", legacy, &engine.replace("2,00", "2,01"), draft.clone());
    assert_eq!(found(&wrong), [("$.rows[*].n", DifferenceKind::Value)]);
    let commas = compared_as("text/csv", "a;b\n1;2\n", "a,b\n1,2\n", draft);
    assert_eq!(found(&commas), [("$.delimiter", DifferenceKind::Missing)]);
    // The semicolons of the first line are no delimiters if the other lines do not have as many.
    let one_column = compared_as("text/csv", "name; first\nA\nB\n", "name; first\nA\nC\n", json!({}));
    assert_eq!(found(&one_column), [("$.rows[*]['name; first']", DifferenceKind::Value)]);
}

#[test]
fn elements_are_compared_whatever_the_order_of_attributes_and_the_indentation() {
    let legacy = "<order id='4012' at='9:00'><item sku='A'><n>1</n></item><item sku='B'><n>2</n></item></order>";
    let engine =
        "<order at=\"9:01\" id=\"e-7\">\n  <item sku=\"B\"><n>2</n></item>\n  <item sku=\"A\"><n>1</n></item></order>";
    let draft = json!({"ids": ["$.order['@id']"], "ignore": ["$.order['@at']"], "unordered": {"$.order.item": "@sku"}});
    let equal = compared_as("application/xml", legacy, engine, draft.clone());
    assert_eq!(found(&equal), []);
    let wrong = compared_as("application/xml", legacy, &engine.replace("<n>2", "<n>3"), draft);
    assert_eq!(found(&wrong), [("$.order.item[*].n[*]", DifferenceKind::Value)]);
    let moved = compared_as("text/xml", "<a><b/><c/></a>", "<a><c/><b/></a>", json!({}));
    assert_eq!(found(&moved), [("$.a['#order']", DifferenceKind::Value)]);
}

#[test]
fn a_child_element_pairs_elements_too() {
    let legacy = "<r><i><k>A</k><v>1</v></i><i><k>B</k><v>2</v></i></r>";
    let engine = "<r><i><k>B</k><v>2</v></i><i><k>A</k><v>1</v></i></r>";
    let draft = json!({"unordered": {"$.r.i": "k"}});
    assert_eq!(compared_as("text/xml", legacy, engine, draft).verdict, Verdict::Ignored);
}

#[test]
fn fields_of_a_form_have_no_order_and_lines_of_json_have_paths() {
    let form = "application/x-www-form-urlencoded";
    assert_eq!(compared_as(form, "a=1&b=%20", "b=+&a=1", json!({})).verdict, Verdict::Match);
    let lines = compared_as("application/x-ndjson", "{\"n\":1}\n{\"n\":2}\n", "{\"n\":1}\n\n{ \"n\": 3 }", json!({}));
    assert_eq!(found(&lines), [("$[*].n", DifferenceKind::Value)]);
}

#[test]
fn a_text_that_is_not_of_its_format_is_compared_by_lines() {
    assert_eq!(compared_as("text/xml", "<a>", "<a>", json!({})).verdict, Verdict::Match);
    for (legacy, engine) in [("<a>", "<b>"), ("<a/>", "<a>"), ("<a/>", "<b>")] {
        let texts = compared_as("text/xml", legacy, engine, json!({}));
        // The second says which of the two is not XML.
        let expected = [("text", DifferenceKind::Value), ("body", DifferenceKind::Type)];
        assert_eq!(found(&texts), expected, "{legacy} {engine}");
    }
    // One content type, two dialects of it.
    let of = |header: &str| reply(200, &[("content-type", header)], "a\n1\n".to_owned());
    let rules = rules(json!({"headers": []}));
    assert_eq!(compared(&of("text/csv"), &of("text/csv; header=absent"), &rules).unwrap().verdict, Verdict::Match);
}

#[test]
fn secrets_are_hidden_by_the_names_of_elements_and_columns() {
    let xml = compared_as(
        "text/xml",
        "<a><password x='1'>hunter1</password></a>",
        "<a><password x='1'>hunter2</password></a>",
        json!({}),
    );
    let csv = compared_as("text/csv", "password\nhunter1\n", "password\nhunter2\n", json!({}));
    for comparison in [xml, csv] {
        assert_eq!(comparison.differences.len(), 1);
        assert!(!format!("{:?}", comparison.differences).contains("hunter"), "{:?}", comparison.differences);
    }
}

#[test]
fn parts_are_compared_by_name_whatever_the_boundary() {
    let body = |boundary: &str, amount: &str| {
        format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"order\"\r\nContent-Type: application/json\r\n\r\n\
             {{\"amount\": {amount}}}\r\n--{boundary}\r\n\
             Content-Disposition: form-data; name=\"scan\"; filename=\"s.png\"\r\nContent-Type: image/png\r\n\r\n\
             \u{89}PNG {boundary}\r\n--{boundary}--\r\n"
        )
    };
    let reply_of = |boundary: &str, amount: &str| {
        let content_type = format!("multipart/form-data; boundary={boundary}");
        reply(200, &[("content-type", &content_type)], body(boundary, amount))
    };
    let rules = rules(json!({ "ignore": ["$.scan.body"] }));
    let equal = compared(&reply_of("a1", "17.50"), &reply_of("b2", "17.5"), &rules).unwrap();
    assert_eq!((equal.verdict, found(&equal)), (Verdict::Ignored, vec![]));
    let wrong = compared(&reply_of("a1", "17.50"), &reply_of("b2", "71.50"), &rules).unwrap();
    assert_eq!(found(&wrong), [("$.order.body.amount", DifferenceKind::Value)]);
}
