//! `/openapi.json`: the table of paths, described.
//!
//! Always true: it is made of the table that the router is made of and of the types that are read and written, so that
//! it cannot say anything else than what the process does.

use std::collections::BTreeMap;

use http::Method;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::table::{Content, Door, Header, Row};
use super::types::ApiProblem;

/// OpenAPI 3.1. `secured`: whether the listener wants tokens.
pub(super) fn document(rows: &[Row], secured: bool) -> Value {
    // What leads from an envelope to a run: the paths with its id alone.
    let followers = rows.iter().filter(|row| row.path.contains("/run/{id}") && names(row.path).count() == 1);
    let links: Map<String, Value> = followers
        .map(|row| {
            let link = json!({ "operationId": row.id, "parameters": { "id": "$response.body#/data/run_id" } });
            (row.id.to_owned(), link)
        })
        .collect();
    let mut writer = Writer {
        links: Value::Object(links),
        asks: settings().into_generator(),
        answers: settings().for_serialize().into_generator(),
        secured,
    };
    let mut paths: Map<String, Value> = Map::new();
    for row in rows {
        let operation = writer.operation(row);
        let path = paths.entry(row.path).or_insert_with(|| json!({}));
        path[row.method.as_str().to_ascii_lowercase()] = operation;
    }
    let mut schemas: BTreeMap<String, Value> = BTreeMap::new();
    for generator in [&mut writer.asks, &mut writer.answers] {
        schemas.extend(generator.take_definitions(true));
    }
    let mut components = json!({ "schemas": schemas });
    if secured {
        components["securitySchemes"] = json!({
            "token": { "type": "http", "scheme": "bearer", "description": "`admin.tokens` of pointsman.yaml" },
        });
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Pointsman",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Routes and their flags, and the runs of the embedded engine. Errors are RFC 9457 problems.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": components,
    });
    bounded(&mut document);
    document
}

fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    })
}

struct Writer {
    asks: SchemaGenerator,
    answers: SchemaGenerator,
    secured: bool,
    links: Value,
}

impl Writer {
    fn operation(&mut self, row: &Row) -> Value {
        let mut parameters: Vec<Value> = names(row.path).map(|name| path_parameter(row.path, name)).collect();
        if let Some(query) = row.query {
            parameters.extend(query_parameters(query(&mut self.asks).to_value()));
        }
        parameters.extend(row.headers.iter().map(header_parameter));
        let mut operation = json!({ "operationId": row.id, "summary": row.about, "tags": [tag(row.path)] });
        if !parameters.is_empty() {
            operation["parameters"] = json!(parameters);
        }
        if let Some(body) = row.body {
            let schema = body(&mut self.asks);
            operation["requestBody"] =
                json!({ "required": true, "content": { "application/json": { "schema": schema } } });
        }
        operation["responses"] = self.responses(row);
        match row.door {
            Door::Open => {}
            Door::Older => {
                operation["deprecated"] = json!(true);
                if self.secured {
                    // Callers on the same machine need none.
                    operation["security"] = json!([{}, { "token": [] }]);
                }
            }
            Door::Wants(scope) => {
                operation["description"] = json!(format!("Scope: `{}`.", scope.as_str()));
                if self.secured {
                    operation["security"] = json!([{ "token": [] }]);
                }
            }
        }
        operation
    }

    fn responses(&mut self, row: &Row) -> Value {
        let mut responses: BTreeMap<u16, Value> = BTreeMap::new();
        for (status, content) in &row.answers {
            let response = responses.entry(*status).or_insert_with(|| json!({ "description": about(*status) }));
            match content {
                Content::Json(shape) => {
                    response["content"]["application/json"]["schema"] = json!(shape(&mut self.answers));
                    if row.leads {
                        response["links"] = self.links.clone();
                    }
                }
                Content::Text => response["content"]["text/plain"]["schema"] = json!({ "type": "string" }),
                Content::Page => {
                    for kind in ["text/plain", "text/html"] {
                        response["content"][kind]["schema"] = json!({ "type": "string" });
                    }
                }
                Content::Events => response["content"]["text/event-stream"]["schema"] = frame(),
                Content::Nothing => {}
            }
        }
        // Host or Origin of somebody else's.
        let mut refusals = vec![403];
        if row.door != Door::Open {
            refusals.extend([401, 503]);
        }
        if row.path.contains('{') || row.query.is_some() || row.body.is_some() || !row.headers.is_empty() {
            refusals.push(400);
        }
        if row.body.is_some() {
            refusals.extend([408, 413, 415]);
        }
        refusals.extend(row.refusals);
        for status in refusals {
            let problem = self.answers.subschema_for::<ApiProblem>();
            responses.entry(status).or_insert_with(|| {
                json!({
                    "description": about(status),
                    "content": { "application/problem+json": { "schema": problem } },
                })
            });
        }
        let responses: Map<String, Value> =
            responses.into_iter().map(|(status, response)| (status.to_string(), response)).collect();
        Value::Object(responses)
    }
}

/// One event of a stream.
fn frame() -> Value {
    let names = ["plan", "step_started", "step_finished", "step_retrying", "checkpoint", "conflict", "progress", "end"];
    let fact = json!({
        "type": "object",
        "required": ["run_id", "seq", "at", "kind", "status"],
        "properties": {
            "run_id": { "type": "string" },
            "seq": { "type": "integer", "minimum": 1 },
            "at": { "type": "string", "format": "date-time" },
            "kind": { "type": "string", "description": "The event of the audit trail" },
            "status": { "type": "string", "description": "Where the run stands after it" },
        },
    });
    json!({
        "type": "object",
        "description": "One event. `Last-Event-ID` goes on behind its `id`; comments are signs of life.",
        "required": ["id", "event", "data"],
        "properties": {
            "id": { "type": "string", "pattern": "^[0-9]+$", "description": "The place of the run's event" },
            "event": { "type": "string", "enum": names },
            "data": { "type": "string", "contentMediaType": "application/json", "contentSchema": fact },
        },
    })
}

fn tag(path: &str) -> &'static str {
    if path.contains("orchestrate") || path.contains("maestro") {
        "runs"
    } else if path.starts_with("/api/") {
        "flags"
    } else {
        "process"
    }
}

fn about(status: u16) -> &'static str {
    match status {
        200 => "Done",
        202 => "Under way: look again, or follow the stream",
        204 => "There is nothing more",
        400 => "The call is not what the path takes",
        401 => "A token is needed",
        403 => "Not from there, or not with this token",
        404 => "There is no such thing",
        408 => "The body did not arrive in time",
        409 => "It is refused where things stand",
        410 => "It was there, and was purged",
        413 => "The body is too large",
        415 => "The body is not JSON",
        422 => {
            "A schema refuses the values, they make no sense together, they name a step that is not there, or a key belongs to another start"
        }
        429 => "There are too many streams",
        500 => "The run's events cannot be read",
        501 => "There is no planner in this version",
        _ => "Not now: the store or the engine does not answer",
    }
}

/// The names in a path.
fn names(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn path_parameter(path: &str, name: &str) -> Value {
    let (about, schema) = match name {
        "id" if path.contains("/run/") => {
            ("A run, or a job: its newest run", json!({ "type": "string", "pattern": "^(run|job)_[0-9a-f]{32}$" }))
        }
        "id" => ("A route", json!({ "type": "string", "minLength": 1 })),
        "topic" => {
            let names: Vec<&str> = crate::docs::TOPICS.iter().map(|topic| topic.name).collect();
            ("A topic", json!({ "type": "string", "enum": names }))
        }
        "step" => ("A step", json!({ "type": "string", "minLength": 1 })),
        "checkpoint" => ("A checkpoint", json!({ "type": "string", "minLength": 1 })),
        _ => ("A signal", json!({ "type": "string", "minLength": 1 })),
    };
    json!({ "name": name, "in": "path", "required": true, "description": about, "schema": schema })
}

fn header_parameter(header: &Header) -> Value {
    let Header { name, about, pattern } = header;
    let mut schema = json!({ "type": "string" });
    if let Some(pattern) = pattern {
        schema["pattern"] = json!(pattern);
    }
    json!({ "name": name, "in": "header", "required": false, "description": about, "schema": schema })
}

/// The members of an object as parameters. What may be absent in a query is left out, never `null`.
fn query_parameters(mut schema: Value) -> Vec<Value> {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return Vec::new() };
    let members = std::mem::take(properties);
    members
        .into_iter()
        .map(|(name, mut schema)| {
            let mut parameter = json!({ "name": name, "in": "query", "required": false });
            if let Some(members) = schema.as_object_mut() {
                if let Some(about) = members.remove("description") {
                    parameter["description"] = about;
                }
                members.remove("default");
                if let Some(Value::Array(kinds)) = members.get_mut("type") {
                    kinds.retain(|kind| kind != "null");
                    if let [kind] = kinds.as_slice() {
                        let kind = kind.clone();
                        members.insert("type".into(), kind);
                    }
                }
            }
            parameter["schema"] = schema;
            parameter
        })
        .collect()
}

/// Integers that have a width have its bound.
fn bounded(value: &mut Value) {
    match value {
        Value::Object(members) => {
            let max = match members.get("format").and_then(Value::as_str) {
                Some("uint16") => Some(json!(u16::MAX)),
                Some("uint32") => Some(json!(u32::MAX)),
                Some("uint64") => Some(json!(u64::MAX)),
                _ => None,
            };
            if let Some(max) = max
                && !members.contains_key("maximum")
            {
                members.insert("maximum".into(), max);
            }
            members.values_mut().for_each(bounded);
        }
        Value::Array(items) => items.iter_mut().for_each(bounded),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What is here, for a person.
pub(super) fn index(rows: &[Row]) -> String {
    let mut text = String::from("pointsman\n");
    for row in rows.iter().filter(|row| row.path != "/") {
        let method = if row.method == Method::GET { "GET " } else { "POST" };
        text.push_str(&format!("{method} {:<56} {}\n", row.path, row.about));
    }
    text.push_str("The same on a terminal: pointsman status | flip | freeze | diffs | evidence | services | runs | explain | replay\n");
    text
}
