//! An endpoint of the API: what it serves, who may call it, and what the OpenAPI document says about it.

use std::sync::Arc;

use axum::routing::MethodRouter;
use http::Method;
use schemars::JsonSchema;

use super::content::{Content, Header, SchemaFn};
use super::state::ApiState;
use crate::config::TokenScope;

/// Who may call an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody, probes and scrapers included.
    Public,
    /// Callers who have this scope.
    Scope(TokenScope),
    /// Callers on this machine, and holders of tokens that may start runs.
    DeprecatedStart,
}

/// An endpoint: a method of a path.
pub(super) struct Endpoint {
    pub method: Method,
    pub path: &'static str,
    pub access: Access,
    /// Whether it is also served on the listener for applications.
    pub for_applications: bool,
    pub id: &'static str,
    pub about: &'static str,
    pub query: Option<SchemaFn>,
    pub body: Option<SchemaFn>,
    pub headers: Vec<Header>,
    pub responses: Vec<(u16, Content)>,
    /// Whether the response names a run: then OpenAPI links lead from it to the endpoints of that run.
    pub links_to_run: bool,
    /// Error statuses in addition to those that follow from `access` and the request.
    pub errors: &'static [u16],
    pub handler: MethodRouter<Arc<ApiState>>,
}

impl Endpoint {
    pub(super) fn new(
        method: Method,
        path: &'static str,
        access: Access,
        handler: MethodRouter<Arc<ApiState>>,
        id: &'static str,
        about: &'static str,
    ) -> Self {
        Self {
            method,
            path,
            access,
            for_applications: false,
            id,
            about,
            query: None,
            body: None,
            headers: Vec::new(),
            responses: Vec::new(),
            links_to_run: false,
            errors: &[],
            handler,
        }
    }
    pub(super) fn returns<T: JsonSchema>(self) -> Self {
        self.responds(200, Content::Json(|generator| generator.subschema_for::<T>()))
    }
    pub(super) fn responds(mut self, status: u16, content: Content) -> Self {
        self.responses.push((status, content));
        self
    }
    pub(super) fn body<T: JsonSchema>(mut self) -> Self {
        self.body = Some(|generator| generator.subschema_for::<T>());
        self
    }
    /// Each field of `T` is a query parameter.
    pub(super) fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(|generator| T::json_schema(generator));
        self
    }
    pub(super) fn header(mut self, header: Header) -> Self {
        self.headers.push(header);
        self
    }
    pub(super) fn errors(mut self, errors: &'static [u16]) -> Self {
        self.errors = errors;
        self
    }
    pub(super) fn links_to_run(mut self) -> Self {
        self.links_to_run = true;
        self
    }
    pub(super) fn for_applications(mut self) -> Self {
        self.for_applications = true;
        self
    }
}
