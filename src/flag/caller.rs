//! PURE. The caller of a request, as the scope of its retry key.
//!
//! The question it answers: "is this the same caller as before?" Always true: a token counts only if its signature,
//! algorithm and audience were verified; any other credential is a header that anybody could send, and its bytes are
//! the scope. A refreshed token has the same issuer and subject, and thus the same scope.
//!
//! A token's `exp` and `nbf` are not compared with the time: a retry may come when the token of its first try has
//! expired, and still comes from the same caller. Legacy and the services decide whether an expired token is served.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HeaderName, PROXY_AUTHORIZATION};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::{Deserialize, Serialize};

/// The length of the longest token that is verified.
const TOKEN_BYTES_MAX: usize = 16 << 10;
const RSA: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// How a route's retry keys are scoped by caller.
#[derive(Clone, Debug)]
pub struct CallerScope {
    /// Verifies bearer tokens. The issuer and subject of a verified token are the scope.
    pub token: Option<std::sync::Arc<TokenKeys>>,
    /// The headers whose values are the scope of a request without a verified token.
    pub headers: Vec<HeaderName>,
}

/// Public keys that verify tokens, and the accepted audiences of the tokens.
pub struct TokenKeys {
    keys: Vec<Key>,
    source: TokenSource,
}

/// The text that public keys are read from, and the accepted audiences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSource {
    /// A JWK set, one JWK, or PEM.
    pub keys: String,
    /// The accepted audiences; a token must be for one of them.
    pub audience: Vec<String>,
}

struct Key {
    id: Option<String>,
    /// The algorithms that a token verified with this key may name: never `none` nor one with a shared secret.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// The verified issuer and subject of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedCaller {
    /// Who issued the token.
    pub issuer: String,
    /// Whom the token identifies.
    pub subject: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
}

impl From<Vec<HeaderName>> for CallerScope {
    fn from(headers: Vec<HeaderName>) -> Self {
        Self { token: None, headers }
    }
}

fn is_credential(name: &HeaderName) -> bool {
    [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(name)
}

impl CallerScope {
    /// Whether the same caller may send other header values in its next try, because its credential was refreshed.
    ///
    /// `check` refuses `proxy-authorization`, but stored scopes of earlier versions may have it.
    pub fn is_refreshable(&self) -> bool {
        self.headers.iter().any(is_credential)
    }

    /// The headers of the scope that are no credentials: their values stay the same in the same caller's next try.
    pub(super) fn lasting_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers.iter().filter(|name| !is_credential(name))
    }

    /// Whether the scope of a request may depend on this header.
    pub fn depends_on_header(&self, name: &HeaderName) -> bool {
        self.headers.contains(name) || (self.token.is_some() && *name == AUTHORIZATION)
    }

    /// The scope, described for people.
    pub fn describe(&self) -> String {
        let headers = match self.headers.as_slice() {
            [] => "the route alone: all callers share them".to_owned(),
            headers => {
                let names: Vec<String> = headers.iter().map(|name| format!("`{name}`")).collect();
                format!("the value of {}", names.join(" and "))
            }
        };
        match &self.token {
            None => headers,
            Some(keys) => format!(
                "issuer and subject of a verified token for {} ({}), and without one {headers}",
                keys.source.audience.iter().map(|audience| format!("`{audience}`")).collect::<Vec<_>>().join(" or "),
                match keys.keys.len() {
                    0 => "keys not read".to_owned(),
                    1 => "1 key".to_owned(),
                    count => format!("{count} keys"),
                },
            ),
        }
    }
}

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenKeys({} keys, {:?})", self.keys.len(), self.source.audience)
    }
}

impl TokenKeys {
    /// Reads public keys: a JWK set, one JWK, or PEM.
    ///
    /// # Errors
    /// What is wrong, as the rest of a sentence whose subject is the file, such as "is not JSON".
    pub fn read(text: &str, audience: Vec<String>) -> Result<Self, String> {
        let keys = if text.trim_start().starts_with('{') { parse_jwks(text)? } else { parse_pem(text)? };
        if keys.is_empty() {
            return Err("holds no public key that verifies signatures (RSA, EC P-256 or P-384, Ed25519)".into());
        }
        Ok(Self { keys, source: TokenSource { keys: text.to_owned(), audience } })
    }

    /// Stands for keys whose file cannot be read on this machine, which only checks the flag files. Verifies no token.
    pub fn unread(audience: Vec<String>) -> Self {
        Self { keys: Vec::new(), source: TokenSource { keys: String::new(), audience } }
    }

    /// The text that the keys were read from, and the audiences.
    pub fn source(&self) -> &TokenSource {
        &self.source
    }

    /// The caller, if the request has exactly one bearer token, signed by one of the keys and for one of the audiences.
    pub fn verify(&self, headers: &HeaderMap) -> Option<VerifiedCaller> {
        let mut all = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (all.next(), all.next()) else { return None };
        let (kind, token) = value.to_str().ok()?.trim().split_once(' ')?;
        let token = token.trim_start();
        if !kind.eq_ignore_ascii_case("bearer") || token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let header = decode_header(token).ok()?;
        let fits = |key: &&Key| {
            key.algorithms.contains(&header.alg) && (header.kid.is_none() || key.id.is_none() || key.id == header.kid)
        };
        let claims = self.keys.iter().filter(fits).find_map(|key| {
            let mut validation = Validation::new(header.alg);
            validation.algorithms = vec![header.alg];
            validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
            validation.set_audience(&self.source.audience);
            // A retry may come after the expiry: see the top of this file.
            validation.validate_exp = false;
            decode::<Claims>(token, &key.key, &validation).ok()
        })?;
        let Claims { iss, sub } = claims.claims;
        (!iss.is_empty() && !sub.is_empty()).then_some(VerifiedCaller { issuer: iss, subject: sub })
    }
}

fn parse_jwks(text: &str) -> Result<Vec<Key>, String> {
    let parsed: serde_json::Value = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
    let listed = match parsed.get("keys") {
        Some(_) => serde_json::from_value::<JwkSet>(parsed).map(|set| set.keys),
        None => serde_json::from_value::<Jwk>(parsed).map(|key| vec![key]),
    };
    let listed = listed.map_err(|error| format!("is not a JWK set: {error}"))?;
    let mut keys = Vec::new();
    for jwk in listed {
        if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
            continue;
        }
        let algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => RSA.to_vec(),
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                EllipticCurve::P521 | EllipticCurve::Ed25519 => continue,
            },
            AlgorithmParameters::OctetKeyPair(_) => vec![Algorithm::EdDSA],
            AlgorithmParameters::OctetKey(_) => {
                return Err(
                    "holds a shared secret (`oct`): whoever can verify with it can also sign; give public keys".into(),
                );
            }
        };
        let algorithms = match jwk.common.key_algorithm {
            None => algorithms,
            Some(only) => algorithms.into_iter().filter(|algorithm| is_algorithm(only, *algorithm)).collect(),
        };
        let key = DecodingKey::from_jwk(&jwk).map_err(|error| format!("holds a key that cannot be read: {error}"))?;
        if !algorithms.is_empty() {
            keys.push(Key { id: jwk.common.key_id, algorithms, key });
        }
    }
    Ok(keys)
}

/// Whether a JWK's `alg` is this algorithm.
fn is_algorithm(named: KeyAlgorithm, algorithm: Algorithm) -> bool {
    named.to_string() == format!("{algorithm:?}")
}

fn parse_pem(text: &str) -> Result<Vec<Key>, String> {
    const BEGIN: &str = "-----BEGIN ";
    let mut keys = Vec::new();
    for (at, _) in text.match_indices(BEGIN) {
        let block = text[at..].split_once("-----END ").and_then(|(body, rest)| {
            let end = rest.split_once("-----")?.0.len();
            Some(&text[at..at + body.len() + "-----END ".len() + end + "-----".len()])
        });
        let block = block.ok_or("holds a PEM block that does not end")?;
        if block.contains("PRIVATE KEY") {
            return Err("holds a private key: give the public one, and remove this one".into());
        }
        let readings = [
            (DecodingKey::from_rsa_pem(block.as_bytes()), RSA.to_vec()),
            (DecodingKey::from_ec_pem(block.as_bytes()), vec![Algorithm::ES256, Algorithm::ES384]),
            (DecodingKey::from_ed_pem(block.as_bytes()), vec![Algorithm::EdDSA]),
        ];
        let read = readings.into_iter().find_map(|(key, algorithms)| Some((key.ok()?, algorithms)));
        let (key, algorithms) = read.ok_or(
            "holds a PEM block that is not a public key (RSA, EC or Ed25519; of a certificate, give the public key)",
        )?;
        keys.push(Key { id: None, algorithms, key });
    }
    if keys.is_empty() { Err("holds neither a JWK set nor PEM".into()) } else { Ok(keys) }
}

#[cfg(test)]
mod tests;
