//! Every YAML example passes `check`. Its first line says what it is: a whole file (`# flags/NAME`), or a part of one
//! (`# in pointsman.yaml`, `# in a route`, `# in a step`, `# steps of a workflow`), which is put into a small set of
//! files.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Document, documents, shown_file};
use crate::support::FlagsDir;
use crate::support::process::{cli, output_text};

/// One file of a small set, into which every part of an example can be put.
fn base(name: &str) -> Value {
    let services = json!({
        "shop": "http://127.0.0.1:9000", "stock": "http://127.0.0.1:9101", "mail": "http://127.0.0.1:9103",
        "ops": "http://127.0.0.1:9104", "bank": { "urls": ["http://127.0.0.1:9102"], "keyed": true },
    });
    match name {
        "pointsman.yaml" => {
            let egress = json!({ "listen": "127.0.0.1:8090" });
            json!({ "services": services, "default_legacy": "shop", "store": "memory:", "egress": egress })
        }
        "routes/orders.yaml" => json!({ "routes": [{
            "id": "orders.create", "match": { "method": "POST", "path": "/orders" }, "legacy": "shop",
            "workflow": "create-order", "state": "off", "retry_key": "${request.headers[\"idempotency-key\"]}",
        }] }),
        _ => json!({
            "workflow": "create-order",
            "steps": {
                "charge": { "call": "POST ${services.bank}/charges", "rehearse": { "id": 1 } },
                "mail": { "call": "POST ${services.shop}/mails", "rehearse": {} },
                "print": { "call": "POST ${services.shop}/labels", "rehearse": {} },
                "stock-level": { "call": "GET ${services.shop}/levels/1", "rehearse": {} },
            },
            "respond": { "status": 200, "body": { "done": true } },
        }),
    }
}

const FILES: [&str; 3] = ["pointsman.yaml", "routes/orders.yaml", "workflows/create-order.yaml"];

fn write(flags: &FlagsDir, name: &str, value: &Value) {
    flags.write(name, &format!("{value:#}\n"));
}

async fn check_files(flags: &FlagsDir, what: &str) {
    let dir = flags.path().display().to_string();
    let output = cli(&["check", &dir, "--no-secrets"], &[]).await;
    assert!(output.status.success(), "{what}:\n{}", output_text(&output));
}

/// Checks the files that a document shows, together. Where it shows a file twice, they are checked with the first
/// version before the second one replaces it.
async fn check_whole_files(document: &Document) {
    let flags = FlagsDir::empty();
    write(&flags, FILES[0], &base(FILES[0]));
    write(&flags, FILES[2], &base(FILES[2]));
    let mut shown: Vec<&str> = Vec::new();
    for block in document.blocks("yaml") {
        let Some(name) = shown_file(block) else { continue };
        if shown.contains(&name) {
            check_files(&flags, &document.name).await;
        }
        shown.push(name);
        flags.write(name, block);
    }
    check_files(&flags, &document.name).await;
}

fn fields(of: &mut Value) -> &mut Map<String, Value> {
    of.as_object_mut().expect("a map")
}

/// Checks one part of a file, put where it belongs in the small set of files.
async fn check_part(document: &Document, block: &str) {
    let file_comment = block.lines().next().unwrap_or_default();
    let value: Value = serde_saphyr::from_str(block).unwrap_or_else(|e| panic!("{}: {e}:\n{block}", document.name));
    let part = value.as_object().unwrap_or_else(|| panic!("{}: no map:\n{block}", document.name)).clone();
    let mut files = FILES.map(base);
    match file_comment {
        "# in pointsman.yaml" => fields(&mut files[0]).extend(part),
        "# in a route" => fields(&mut files[1]["routes"][0]).extend(part),
        "# in a step" => fields(&mut files[2]["steps"]["charge"]).extend(part),
        "# steps of a workflow" => {
            // The route's rules may name a step of the base.
            files[1]["routes"] = json!([]);
            files[2]["steps"] = Value::Object(part);
        }
        _ => panic!("{}: an example does not say where it belongs:\n{block}", document.name),
    }
    let flags = FlagsDir::empty();
    for (name, value) in FILES.iter().zip(&files) {
        write(&flags, name, value);
    }
    check_files(&flags, &format!("{}:\n{block}", document.name)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_passes_the_check() {
    let mut parts = 0;
    for document in documents() {
        check_whole_files(&document).await;
        for block in document.blocks("yaml").into_iter().filter(|block| shown_file(block).is_none()) {
            check_part(&document, block).await;
            parts += 1;
        }
    }
    assert!(parts > 10, "the examples were found: {parts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_example_that_the_check_refuses_is_found() {
    let flags = FlagsDir::empty();
    for name in FILES {
        write(&flags, name, &base(name));
    }
    check_files(&flags, "the base").await;
    let mut wrong = base(FILES[1]);
    fields(&mut wrong["routes"][0]).insert("percents".to_owned(), json!(3));
    write(&flags, FILES[1], &wrong);
    let output = cli(&["check", &flags.path().display().to_string()], &[]).await;
    assert!(!output.status.success(), "{}", output_text(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_set_passes_the_check_without_a_warning() {
    let flags = Path::new(env!("CARGO_MANIFEST_DIR")).join("flags");
    let checked = cli(&["check", &flags.display().to_string()], &[]).await;
    let text = output_text(&checked);
    assert!(checked.status.success() && !text.contains("warning"), "{text}");
}
