use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 2_000_000_000;
/// A key generated for these tests.
const ED_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJmIriGl/lFIMRvw/I51sMjzblw8Fu7lrUslE+C1xKTX
-----END PRIVATE KEY-----
";
const ED_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA8hSg603dM3oK3k8Jx68RvCg1fYgeYhcPZ1J5nev4imo=
-----END PUBLIC KEY-----
";
const EC_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgkRgW46pGPOMi4uKf
wT7pTHLQjO4vl52fLx+ZJDIuZ92hRANCAAQQeCbyluk8iJAm9vWw2CQi8NUXc5lM
xJpK8IGUy0nTRXTX4zrb0SbYYSDK/Y/yhwviwN2odkZrtp8w01IZin9Z
-----END PRIVATE KEY-----
";
const EC_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEHgm8pbpPIiQJvb1sNgkIvDVF3OZ
TMSaSvCBlMtJ00V01+M629Em2GEgyv2P8ocL4sDdqHZGa7afMNNSGYp/WQ==
-----END PUBLIC KEY-----
";

fn claims() -> Value {
    json!({ "iss": "https://issuer", "sub": "ada", "aud": "orders", "exp": NOW + 300 })
}

fn signed(claims: &Value) -> String {
    let key = EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).unwrap();
    encode(&Header::new(Algorithm::EdDSA), claims, &key).unwrap()
}

fn with(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
}

fn keys(text: &str) -> TokenKeys {
    TokenKeys::read(text, vec!["orders".into(), "shop".into()]).unwrap()
}

fn caller(keys: &TokenKeys, claims: &Value) -> Option<VerifiedCaller> {
    keys.verify(&with(&signed(claims)))
}

fn ada() -> Option<VerifiedCaller> {
    Some(VerifiedCaller { issuer: "https://issuer".into(), subject: "ada".into() })
}

fn jwk() -> Value {
    let body: String = ED_PUBLIC.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(body).unwrap();
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": "one", "use": "sig", "x": URL_SAFE_NO_PAD.encode(&der[der.len() - 32..]) })
}

#[test]
fn a_token_is_verified_only_for_its_audience_and_with_all_required_claims() {
    let keys = keys(ED_PUBLIC);
    assert_eq!(caller(&keys, &claims()), ada());
    let caller_with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        caller(&keys, &claims)
    };
    assert_eq!(caller_with("aud", json!(["other", "shop"])), ada());
    assert_eq!(caller_with("exp", json!(NOW + 1)), ada());
    assert_eq!(caller_with("exp", json!(NOW - 86_400)), ada(), "a retry after the expiry is the same caller's");
    assert_eq!(caller_with("jti", json!("another one")), ada(), "a refreshed token is the same caller");
    for (name, value) in [
        ("exp", Value::Null),
        ("aud", json!("another-api")),
        ("aud", Value::Null),
        ("iss", Value::Null),
        ("sub", json!("")),
    ] {
        assert_eq!(caller_with(name, value.clone()), None, "{name}: {value}");
    }
    for name in ["exp", "aud", "iss", "sub"] {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        assert_eq!(caller(&keys, &claims), None, "without {name}");
    }
    assert_ne!(caller_with("sub", json!("eve")), ada());
}

#[test]
fn a_forged_token_or_a_weak_algorithm_is_refused() {
    let keys = keys(ED_PUBLIC);
    let token = signed(&claims());
    let parts: Vec<&str> = token.split('.').collect();
    let eve = URL_SAFE_NO_PAD.encode(claims().to_string().replace("ada", "eve"));
    let forged = format!("{}.{eve}.{}", parts[0], parts[2]);
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    let unsigned = format!("{none}.{}.", parts[1]);
    // The public key, which everybody has, used as a shared secret.
    let secret = EncodingKey::from_secret(ED_PUBLIC.as_bytes());
    let shared = encode(&Header::new(Algorithm::HS256), &claims(), &secret).unwrap();
    let other = EncodingKey::from_ec_pem(EC_PRIVATE.as_bytes()).unwrap();
    let other = encode(&Header::new(Algorithm::ES256), &claims(), &other).unwrap();
    for bad in [forged, unsigned, shared, other, String::new(), "a.b.c".to_owned(), "x".repeat(20_000)] {
        assert_eq!(keys.verify(&with(&bad)), None, "{bad:.60}");
    }
    let mut twice = with(&token);
    twice.append(AUTHORIZATION, "Basic abc".parse().unwrap());
    assert_eq!(keys.verify(&twice), None, "two Authorization fields: legacy may read either");
    assert_eq!(keys.verify(&HeaderMap::new()), None);
}

#[test]
fn keys_are_read_from_a_jwk_set_one_jwk_or_pem() {
    for text in [json!({ "keys": [jwk()] }).to_string(), jwk().to_string(), format!("{EC_PUBLIC}{ED_PUBLIC}")] {
        assert_eq!(caller(&keys(&text), &claims()), ada(), "{text}");
    }
    let key = EncodingKey::from_ec_pem(EC_PRIVATE.as_bytes()).unwrap();
    let token = encode(&Header::new(Algorithm::ES256), &claims(), &key).unwrap();
    assert_eq!(keys(EC_PUBLIC).verify(&with(&token)), ada());
    let mut named = Header::new(Algorithm::EdDSA);
    named.kid = Some("two".into());
    let key = EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).unwrap();
    let token = encode(&named, &claims(), &key).unwrap();
    assert_eq!(keys(&json!({ "keys": [jwk()] }).to_string()).verify(&with(&token)), None, "it names another key");
}

#[test]
fn files_without_public_keys_are_refused_with_a_reason() {
    let secret = json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] }).to_string();
    for (text, why) in [
        (ED_PRIVATE, "a private key"),
        (secret.as_str(), "a shared secret"),
        (r#"{"keys": []}"#, "no public key"),
        ("{", "not JSON"),
        (r#"{"keys": [{"kty": "?"}]}"#, "not a JWK set"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a public key"),
        ("-----BEGIN PUBLIC KEY-----\n", "does not end"),
        ("hello", "neither"),
    ] {
        let error = TokenKeys::read(text, vec!["orders".into()]).unwrap_err();
        assert!(error.contains(why), "{text:.40}: {error}");
    }
}

#[test]
fn the_scope_is_described() {
    let of = |scope: CallerScope| scope.describe();
    assert_eq!(of(vec![AUTHORIZATION].into()), "the value of `authorization`");
    assert_eq!(of(Vec::new().into()), "the route alone: all callers share them");
    let scope = CallerScope { token: Some(std::sync::Arc::new(keys(ED_PUBLIC))), headers: vec![AUTHORIZATION] };
    assert!(of(scope).starts_with("issuer and subject of a verified token for `orders` or `shop` (1 key)"));
}
