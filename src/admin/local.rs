//! The API for callers in this process: the page answers people with it.
//!
//! Always true: such a call passes the same access control as one over the network, for a [`Viewer`] who has logged in
//! with a token. A request over the network cannot name a viewer: it has no header for that.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Request, Uri};
use tower::ServiceExt;

use super::caller::{ApiCaller, Viewer, valid_name};
use super::error::ApiError;
use super::state::ApiState;
use super::types::ApiProblem;
use crate::config::TokenScope;
use crate::store::StoreError;

/// The API, for callers in this process.
#[derive(Clone)]
pub struct LocalApi {
    router: Router,
    state: Arc<ApiState>,
}

impl LocalApi {
    pub(super) fn new(router: Router, state: Arc<ApiState>) -> Self {
        Self { router, state }
    }

    /// The API for callers over the network.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Whether people need a token.
    pub fn requires_token(&self) -> bool {
        self.state.access.requires_token()
    }

    /// Whether the listener can be reached from this machine only.
    pub fn is_on_loopback(&self) -> bool {
        self.state.access.is_on_loopback()
    }

    /// The holder of this token; `None` if there is no such token.
    pub fn log_in(&self, token: &str) -> Option<Viewer> {
        let (name, scopes, hash) = self.state.access.token(token)?;
        Some(Viewer { caller: ApiCaller::Token(name), scopes, token_hash: Some(hash) })
    }

    /// The holder of the token with this name and hash; `None` if it is not in force any more.
    pub fn holder(&self, name: &str, token_hash: [u8; 32]) -> Option<Viewer> {
        let hash = blake3::Hash::from_bytes(token_hash);
        let (name, scopes) = self.state.access.token_by_hash(name, hash)?;
        Some(Viewer { caller: ApiCaller::Token(name), scopes, token_hash: Some(hash) })
    }

    /// Somebody on this machine; `None` if the API has tokens, or can be reached from other machines.
    pub fn unverified(&self, name: Option<String>) -> Option<Viewer> {
        let scopes = vec![TokenScope::Read, TokenScope::Run, TokenScope::Decide, TokenScope::Flip];
        let is_allowed = !self.requires_token() && self.is_on_loopback();
        is_allowed.then_some(Viewer { caller: ApiCaller::Unverified(name), scopes, token_hash: None })
    }

    /// The name, if it may be recorded: a problem says what is wrong with it.
    ///
    /// # Errors
    /// It is empty, too long or has control characters.
    pub fn check_name(&self, name: &str) -> Result<(), Box<ApiProblem>> {
        valid_name(name).map(drop).map_err(|error| error.0)
    }

    /// The key for what the page signs, the same in every process on the same store.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn page_key(&self) -> Result<[u8; 32], Box<ApiProblem>> {
        let secret = self.state.parts.store.secret().await.map_err(|error: StoreError| ApiError::from(error).0)?;
        Ok(blake3::derive_key("pointsman 2026-12 sessions of the page", &secret))
    }

    /// Refuses a request of another web site, as the API does.
    ///
    /// # Errors
    /// The Host or Origin header names another site.
    pub fn check_origin(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Box<ApiProblem>> {
        self.state.access.check_origin(uri, headers).map_err(|error| error.0)
    }

    /// Makes a request as this viewer.
    pub async fn call(&self, viewer: &Viewer, mut request: Request<Body>) -> Response {
        request.extensions_mut().insert(viewer.clone());
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => never.into_response(),
        }
    }
}
