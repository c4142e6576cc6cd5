//! Who makes a request to the API.

use super::error::ApiError;
use crate::config::TokenScope;
use crate::workflow::UNVERIFIED;

/// The longest name that is recorded.
const NAME_CHARS_MAX: usize = 64;

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ApiCaller {
    /// The name of the token.
    Token(String),
    /// A caller on this machine without a token, and the name in the header, if there is one.
    Unverified(Option<String>),
}

impl ApiCaller {
    /// The name to record: the token's, or without a token the one in the body (`given`), else the one in the header.
    pub(super) fn recorded_name(&self, given: Option<&str>) -> Result<String, ApiError> {
        let given = given.map(valid_name).transpose()?;
        let name = match self {
            ApiCaller::Token(name) => return Ok(name.clone()),
            ApiCaller::Unverified(name) => given.or(name.as_deref()).map(str::trim).filter(|name| !name.is_empty()),
        };
        Ok(format!("{}{UNVERIFIED}", name.unwrap_or("somebody on this machine")))
    }
}

/// The name, if it may be recorded.
pub(super) fn valid_name(name: &str) -> Result<&str, ApiError> {
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(ApiError::bad(format!("a name has 1 to {NAME_CHARS_MAX} characters and no control characters")));
    }
    Ok(name)
}

/// A person who looks at the page: the holder of a token, or, where the API has no tokens, anybody on this machine.
#[derive(Clone, Debug)]
pub struct Viewer {
    pub(super) caller: ApiCaller,
    /// What the viewer may do.
    pub(super) scopes: Vec<TokenScope>,
    /// The hash of the token; `None` without a token.
    pub(super) token_hash: Option<blake3::Hash>,
}

impl Viewer {
    /// The viewer's name: of the token, or as they gave it; `None` if they gave none.
    pub fn name(&self) -> Option<&str> {
        match &self.caller {
            ApiCaller::Token(name) => Some(name),
            ApiCaller::Unverified(name) => name.as_deref(),
        }
    }

    /// Whether the viewer has logged in with a token.
    pub fn has_token(&self) -> bool {
        self.token_hash.is_some()
    }

    /// Whether the viewer may make requests that need this scope: `read`, `run`, `decide` or `flip`.
    pub fn may(&self, scope: &str) -> bool {
        self.scopes.iter().any(|has| has.as_str() == scope)
    }

    /// The hash of the token: a session is valid only while the token is.
    pub fn token_hash(&self) -> Option<[u8; 32]> {
        self.token_hash.map(|hash| *hash.as_bytes())
    }
}
