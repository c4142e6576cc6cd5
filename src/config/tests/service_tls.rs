//! What `check` says about the TLS of services, and which changes of files make a service another one.

use super::set::Set;
use crate::config::{Loaded, Overrides, read};
use crate::listener::test_certificates::{Authority, Issued, Subject};

/// A set in which `bank` is an https service with these settings.
fn with_tls(tls: &str) -> Set {
    Set::valid().edit(
        "pointsman.yaml",
        "bank: { urls: [http://127.0.0.1:9102], keyed: true }",
        &format!("bank:\n    urls: [https://127.0.0.1:9102]\n    keyed: true\n    tls: {{ {tls} }}"),
    )
}

fn bank(loaded: &Loaded) -> crate::flag::Service {
    let (_, bank) = loaded.setup.services.iter().find(|(name, _)| name.as_str() == "bank").unwrap();
    crate::flag::Service::clone(bank)
}

#[test]
fn problems_of_service_certificates_are_reported_with_file_and_position() {
    let authority = Authority::new("Test");
    let Issued { cert, key } = authority.issue_for("pointsman.test");
    let other = authority.issue_for("pointsman.test");
    let dated = |years| authority.issue(&Subject { years: Some(years), ..Subject::default() });
    let (old, young) = (dated((2001, 2002)), dated((2900, 2901)));
    let ca = authority.pem();
    for (tls, cert, key, ca, message) in [
        ("ca: no.pem", &cert, &key, &ca, "no.pem` cannot be read: No such file"),
        ("ca: a.key", &cert, &key, &ca, "a.key` holds a private key and no certificate"),
        ("ca: ca.pem", &cert, &key, &old.cert, "ca.pem` holds only certificates that have expired"),
        ("cert: a.pem, key: a.key", &cert, &other.key, &ca, "a.key` does not belong to the certificate"),
        ("cert: a.pem, key: a.key", &old.cert, &old.key, &ca, "a.pem` expired at 2002"),
        ("cert: a.pem, key: a.key", &young.cert, &young.key, &ca, "a.pem` is valid only from 2900"),
        ("cert: a.pem", &cert, &key, &ca, "`cert` is given without `key`"),
        ("ca: ca.pem, min_version: 1.1", &cert, &key, &ca, "`1.1` is not a version of TLS"),
        ("ca: ca.pem, server_name: 'a b'", &cert, &key, &ca, "`a b` is not a name that a certificate can have"),
    ] {
        let set = with_tls(&format!("{tls}{}", if tls.contains("ca:") { "" } else { ", ca: ca.pem" }));
        let shown = set.put("a.pem", cert).put("a.key", key).put("ca.pem", ca).shown();
        assert!(shown.contains("error:") && shown.contains(message), "{tls}: {message}\n{shown}");
        assert!(shown.contains("flags/pointsman.yaml:"), "{shown}");
        assert!(!shown.contains(key.lines().nth(1).unwrap_or("-----")), "no key is shown\n{shown}");
    }
    let both = format!("{ca}{}", old.cert);
    let shown = with_tls("ca: ca.pem").put("ca.pem", both).shown();
    assert!(shown.contains("warning:") && shown.contains("also holds certificates that have expired"), "{shown}");
}

#[test]
fn a_service_changes_with_its_files_and_only_then() {
    let authority = Authority::new("Test");
    let (first, second) = (authority.issue_for("pointsman.test"), authority.issue_for("pointsman.test"));
    let loaded = |issued: &Issued, more: &str| {
        let set = with_tls(&format!("ca: ca.pem, cert: a.pem, key: a.key{more}")).put("ca.pem", authority.pem());
        bank(&set.put("a.pem", &issued.cert).put("a.key", &issued.key).read().unwrap_or_else(|e| panic!("{e}")))
    };
    assert_eq!(loaded(&first, ""), loaded(&first, ""));
    assert_ne!(loaded(&first, ""), loaded(&second, ""));
    assert_ne!(loaded(&first, ""), loaded(&first, ", server_name: bank.test"));
    assert_ne!(loaded(&first, ""), loaded(&first, ", min_version: 1.3"));
}

#[test]
fn files_that_are_not_on_the_machine_are_allowed_where_secrets_may_be_absent() {
    let set = with_tls("ca: ca.pem, cert: a.pem, key: a.key");
    let overrides = Overrides { secrets_may_be_absent: true, ..Overrides::default() };
    let loaded = read(&set.dir(), &overrides).unwrap_or_else(|failed| panic!("{failed}"));
    assert!(bank(&loaded).tls.is_some());
    assert!(set.read().is_err());
}
