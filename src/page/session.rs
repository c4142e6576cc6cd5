//! Sessions: who looks at the page, in a signed cookie.
//!
//! Always true: the cookie is signed with a key that all processes on the same store have, so that a session is valid
//! in each of them and none keeps a list; it has a hash of the holder's token, so that it ends when that token is not
//! in force any more; it is not readable by scripts, and no other site can send it (`HttpOnly`, `SameSite=Strict`, and
//! `Secure` unless the listener can be reached from this machine only). It does not contain the token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How the name of the cookie begins. Browsers send a cookie to all ports of a host: so the rest of the name depends on
/// the signing key, and processes with other stores leave it alone.
const COOKIE: &str = "pointsman-session-";
/// How long a session lasts, in seconds: a working day. After that, people log in again.
const SESSION_MAX_S: i64 = 12 * 3_600;
/// The longest cookie that is read.
const COOKIE_BYTES_MAX: usize = 1_024;

/// What the cookie says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    /// The name of the token, or, without tokens, the name that the person gave.
    pub name: Option<String>,
    /// The hash of the token; `None` without tokens.
    pub token_hash: Option<[u8; 32]>,
    /// When the session began, in seconds since 1970.
    began: i64,
    /// Random, so that no two sessions have the same form keys.
    random: [u8; 16],
}

impl Session {
    pub(super) fn begin(name: Option<String>, token_hash: Option<[u8; 32]>, now: Timestamp) -> Self {
        let mut random = [0; 16];
        // Without random numbers the form key of a session could be guessed only by who knows the signing key.
        let _ = getrandom::fill(&mut random);
        Self { name, token_hash, began: now.as_second(), random }
    }

    /// The session with another name. Forms that were made for it are accepted as before.
    pub(super) fn renamed(&self, name: Option<String>) -> Self {
        Self { name, ..self.clone() }
    }

    /// The session in the request's cookie; `None` if there is none, or if it is not signed with this key or is over.
    pub(super) fn of(headers: &HeaderMap, key: &[u8; 32], now: Timestamp) -> Option<Self> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let wanted = cookie_name(key);
        let (_, value) = pairs.find(|(name, value)| *name == wanted && value.len() <= COOKIE_BYTES_MAX)?;
        let (content, signature) = value.split_once('.')?;
        let content = URL_SAFE_NO_PAD.decode(content).ok()?;
        let signature: [u8; 32] = URL_SAFE_NO_PAD.decode(signature).ok()?.try_into().ok()?;
        // Compares in constant time.
        if blake3::keyed_hash(key, &content) != blake3::Hash::from_bytes(signature) {
            return None;
        }
        let session: Self = serde_json::from_slice(&content).ok()?;
        let age = now.as_second() - session.began;
        (-60..SESSION_MAX_S).contains(&age).then_some(session)
    }

    /// The header that sets the cookie.
    pub(super) fn set_cookie(&self, key: &[u8; 32], is_secure: bool) -> Option<HeaderValue> {
        let content = serde_json::to_vec(self).ok()?;
        let signature = blake3::keyed_hash(key, &content);
        let value = format!("{}.{}", URL_SAFE_NO_PAD.encode(content), URL_SAFE_NO_PAD.encode(signature.as_bytes()));
        cookie(key, &value, SESSION_MAX_S, is_secure)
    }

    /// The key of the forms that are made for this session.
    pub(super) fn form_key(&self, key: &[u8; 32]) -> String {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(b"form").update(&self.random);
        URL_SAFE_NO_PAD.encode(&hasher.finalize().as_bytes()[..18])
    }

    /// Whether a form has the key of this session.
    pub(super) fn accepts_form(&self, key: &[u8; 32], given: &str) -> bool {
        // Hashes are compared in constant time.
        blake3::hash(self.form_key(key).as_bytes()) == blake3::hash(given.as_bytes())
    }
}

/// The header that deletes the cookie.
pub(super) fn delete_cookie(key: &[u8; 32], is_secure: bool) -> Option<HeaderValue> {
    cookie(key, "", 0, is_secure)
}

fn cookie_name(key: &[u8; 32]) -> String {
    let hash = blake3::keyed_hash(key, b"cookie").to_hex();
    format!("{COOKIE}{}", &hash[..8])
}

fn cookie(key: &[u8; 32], value: &str, max_age_s: i64, is_secure: bool) -> Option<HeaderValue> {
    let (name, secure) = (cookie_name(key), if is_secure { "; Secure" } else { "" });
    let text = format!("{name}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookie: &HeaderValue) -> HeaderMap {
        let set = cookie.to_str().unwrap();
        let pair = set.split(';').next().unwrap();
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(&format!("a=b; {pair}")).unwrap())])
    }

    #[test]
    fn a_session_is_read_back_until_it_is_over_and_only_with_its_key() {
        let (key, other) = ([1; 32], [2; 32]);
        let now: Timestamp = "2026-12-01T12:00:00Z".parse().unwrap();
        let session = Session::begin(Some("ann".into()), Some([7; 32]), now);
        let cookie = session.set_cookie(&key, true).unwrap();
        assert!(cookie.to_str().unwrap().ends_with("; HttpOnly; SameSite=Strict; Secure"));
        let headers = headers(&cookie);
        let later = |hours| now + jiff::SignedDuration::from_hours(hours);
        assert_eq!(Session::of(&headers, &key, later(11)), Some(session.clone()));
        assert_eq!(Session::of(&headers, &key, later(12)), None);
        assert_eq!(Session::of(&headers, &other, now), None);
        let form_key = session.form_key(&key);
        assert!(session.accepts_form(&key, &form_key));
        assert!(!Session::begin(None, None, now).accepts_form(&key, &form_key));
        assert!(!session.accepts_form(&key, ""));
    }

    #[test]
    fn a_changed_cookie_is_no_session() {
        let key = [1; 32];
        let now: Timestamp = "2026-12-01T12:00:00Z".parse().unwrap();
        let cookie = Session::begin(Some("ann".into()), None, now).set_cookie(&key, false).unwrap();
        let text = cookie.to_str().unwrap();
        let value = text.split(';').next().unwrap().split_once('=').unwrap().1;
        for at in 0..value.len() {
            let mut changed = value.to_owned().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = format!("{}={}", cookie_name(&key), String::from_utf8(changed).unwrap());
            if changed.ends_with(value) {
                continue;
            }
            let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(&changed).unwrap())]);
            let is_same = Session::of(&headers, &key, now).is_some();
            // The last character of unpadded base64 may have bits that are not used.
            assert!(!is_same || at + 1 == value.len() || value.as_bytes()[at + 1] == b'.', "{at}");
        }
    }
}
