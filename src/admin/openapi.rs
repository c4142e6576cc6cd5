//! Generates `/openapi.json` and the text of `/` from the table of endpoints.
//!
//! Always true: the router is made from the same table, and the same types convert requests and responses, so the
//! document cannot differ from what the process does.

use std::collections::BTreeMap;

use http::Method;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::content::{Content, Header};
use super::endpoint::{Access, Endpoint};
use super::types::ApiProblem;

/// The OpenAPI 3.1 document. `requires_token`: whether the listener requires tokens.
pub(super) fn document(endpoints: &[Endpoint], requires_token: bool) -> Value {
    // OpenAPI links lead from a response that names a run to the paths whose only parameter is a run's id.
    let linked =
        endpoints.iter().filter(|endpoint| endpoint.path.contains("/run/{id}") && names(endpoint.path).count() == 1);
    let links: Map<String, Value> = linked
        .map(|endpoint| {
            let link = json!({ "operationId": endpoint.id, "parameters": { "id": "$response.body#/data/run_id" } });
            (endpoint.id.to_owned(), link)
        })
        .collect();
    let mut generator = DocumentGenerator {
        links: Value::Object(links),
        requests: settings().into_generator(),
        responses: settings().for_serialize().into_generator(),
        requires_token,
    };
    let mut paths: Map<String, Value> = Map::new();
    for endpoint in endpoints {
        let operation = generator.operation(endpoint);
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method.as_str().to_ascii_lowercase()] = operation;
    }
    let mut schemas: BTreeMap<String, Value> = BTreeMap::new();
    for generator in [&mut generator.requests, &mut generator.responses] {
        schemas.extend(generator.take_definitions(true));
    }
    let mut components = json!({ "schemas": schemas });
    if requires_token {
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
    add_integer_bounds(&mut document);
    document
}

fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    })
}

struct DocumentGenerator {
    requests: SchemaGenerator,
    responses: SchemaGenerator,
    requires_token: bool,
    links: Value,
}

impl DocumentGenerator {
    fn operation(&mut self, endpoint: &Endpoint) -> Value {
        let mut parameters: Vec<Value> = names(endpoint.path).map(|name| path_parameter(endpoint.path, name)).collect();
        if let Some(query) = endpoint.query {
            parameters.extend(query_parameters(query(&mut self.requests).to_value()));
        }
        parameters.extend(endpoint.headers.iter().map(header_parameter));
        let mut operation =
            json!({ "operationId": endpoint.id, "summary": endpoint.about, "tags": [tag(endpoint.path)] });
        if !parameters.is_empty() {
            operation["parameters"] = json!(parameters);
        }
        if let Some(body) = endpoint.body {
            let schema = body(&mut self.requests);
            operation["requestBody"] =
                json!({ "required": true, "content": { "application/json": { "schema": schema } } });
        }
        operation["responses"] = self.responses(endpoint);
        match endpoint.access {
            Access::Public => {}
            Access::DeprecatedStart => {
                operation["deprecated"] = json!(true);
                if self.requires_token {
                    // Callers on the same machine need no token.
                    operation["security"] = json!([{}, { "token": [] }]);
                }
            }
            Access::Scope(scope) => {
                operation["description"] = json!(format!("Scope: `{}`.", scope.as_str()));
                if self.requires_token {
                    operation["security"] = json!([{ "token": [] }]);
                }
            }
        }
        operation
    }

    fn responses(&mut self, endpoint: &Endpoint) -> Value {
        let mut responses: BTreeMap<u16, Value> = BTreeMap::new();
        for (status, content) in &endpoint.responses {
            let response = responses.entry(*status).or_insert_with(|| json!({ "description": status_text(*status) }));
            match content {
                Content::Json(shape) => {
                    response["content"]["application/json"]["schema"] = json!(shape(&mut self.responses));
                    if endpoint.links_to_run {
                        response["links"] = self.links.clone();
                    }
                }
                Content::Text => response["content"]["text/plain"]["schema"] = json!({ "type": "string" }),
                Content::TextOrHtml => {
                    for kind in ["text/plain", "text/html"] {
                        response["content"][kind]["schema"] = json!({ "type": "string" });
                    }
                }
                Content::EventStream => response["content"]["text/event-stream"]["schema"] = event_schema(),
                Content::ChangeStream(data) => {
                    response["content"]["text/event-stream"]["schema"] =
                        change_schema(json!(data(&mut self.responses)));
                }
                Content::Empty => {}
            }
        }
        // 403: the Host or Origin header names another site.
        let mut errors = vec![403];
        if endpoint.access != Access::Public {
            errors.extend([401, 503]);
        }
        if endpoint.path.contains('{')
            || endpoint.query.is_some()
            || endpoint.body.is_some()
            || !endpoint.headers.is_empty()
        {
            errors.push(400);
        }
        if endpoint.body.is_some() {
            errors.extend([408, 413, 415]);
        }
        errors.extend(endpoint.errors);
        for status in errors {
            let problem = self.responses.subschema_for::<ApiProblem>();
            responses.entry(status).or_insert_with(|| {
                json!({
                    "description": status_text(status),
                    "content": { "application/problem+json": { "schema": problem } },
                })
            });
        }
        let responses: Map<String, Value> =
            responses.into_iter().map(|(status, response)| (status.to_string(), response)).collect();
        Value::Object(responses)
    }
}

/// The schema of one server-sent event.
fn event_schema() -> Value {
    let names = ["plan", "step_started", "step_finished", "step_retrying", "checkpoint", "conflict", "progress", "end"];
    let data = json!({
        "type": "object",
        "required": ["run_id", "seq", "at", "kind", "status"],
        "properties": {
            "run_id": { "type": "string" },
            "seq": { "type": "integer", "minimum": 1 },
            "at": { "type": "string", "format": "date-time" },
            "kind": { "type": "string", "description": "The event of the audit trail" },
            "status": { "type": "string", "description": "The run's status after the event" },
        },
    });
    json!({
        "type": "object",
        "description": "One event. A request with its `id` as `Last-Event-ID` gets the events after it. Each stream begins with a \
                        block of `id` and `retry` without `data`; comments are heartbeats.",
        "required": ["id", "event", "data"],
        "properties": {
            "id": { "type": "string", "pattern": "^[0-9]+$", "description": "The sequence number of the run's event" },
            "event": { "type": "string", "enum": names },
            "data": { "type": "string", "contentMediaType": "application/json", "contentSchema": data },
        },
    })
}

/// The schema of one server-sent event of the stream over all runs and routes.
fn change_schema(data: Value) -> Value {
    let names = ["run", "runs", "waiting", "route", "evidence", "freeze", "files", "store", "reset"];
    json!({
        "type": "object",
        "description": "One event: something has changed, and is to be read again. A request with its `id` as \
                        `Last-Event-ID` gets the events after it, or a `reset` if some of them are not known any more; a \
                        stream that does not continue another one begins with `reset`. Comments are heartbeats; a block \
                        of `id` alone has no event.",
        "required": ["id", "event", "data"],
        "properties": {
            "id": { "type": "string", "pattern": "^[0-9a-f]{16}-[0-9]+$", "description": "The process and the number" },
            "event": { "type": "string", "enum": names },
            "data": { "type": "string", "contentMediaType": "application/json", "contentSchema": data },
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

fn status_text(status: u16) -> &'static str {
    match status {
        200 => "Done",
        202 => {
            "Accepted and not finished. A run: poll it, or follow its stream. A freeze or a flip down: it is in force, and not \
             recorded yet"
        }
        204 => "The run has ended and the client has every event",
        400 => "The request is malformed",
        401 => "A token is required",
        403 => "Another site's request, or a token without the scope",
        404 => "Not found",
        408 => "The body did not arrive in time",
        409 => "Refused in the present state",
        410 => "The events were purged",
        413 => "The body is too large",
        415 => "The body is not JSON",
        422 => {
            "A schema refuses the values, they contradict each other, they name an unknown step, the idempotency key belongs to another start, or the files or rules are refused"
        }
        429 => "Too many streams are open",
        500 => "The run's events cannot be read",
        501 => "There is no planner in this version",
        _ => "The store or the engine is not available",
    }
}

/// The names of a path's parameters.
fn names(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn path_parameter(path: &str, name: &str) -> Value {
    let (about, schema) = match name {
        "id" if path.contains("/run/") => (
            "The id of a run, or of a job, which stands for its newest run",
            json!({ "type": "string", "pattern": "^(run|job)_[0-9a-f]{32}$" }),
        ),
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

/// The properties of an object schema as query parameters; `null` is removed from their types, since an absent
/// parameter is left out of a query.
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

/// Gives every schema of an unsigned integer without a maximum the maximum of the integer's width.
fn add_integer_bounds(value: &mut Value) {
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
            members.values_mut().for_each(add_integer_bounds);
        }
        Value::Array(items) => items.iter_mut().for_each(add_integer_bounds),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The list of endpoints that `/` shows.
pub(super) fn index(endpoints: &[Endpoint]) -> String {
    let mut text = String::from("pointsman\n");
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.path != "/") {
        let method = if endpoint.method == Method::GET { "GET " } else { "POST" };
        text.push_str(&format!("{method} {:<56} {}\n", endpoint.path, endpoint.about));
    }
    text.push_str("On the command line: pointsman status | flip | freeze | reload | diffs | evidence | egress | processes | services | runs | explain | replay\n");
    text
}
