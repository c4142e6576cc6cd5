//! What `check` says about listeners, and which files are watched for them.

use std::time::Duration;

use super::set::Set;
use crate::config::{FilesChange, FlagFileWatcher, Overrides, WatchTiming, read};
use crate::limits::{CERTIFICATE_FILE_BYTES_MAX, LISTENERS_MAX};
use crate::listener::test_certificates::{Authority, Issued, Subject};
use crate::listener::{Listener, Network, ProxyProtocol, ProxyVersion};

fn listening(listen: &str) -> Set {
    Set::valid().edit("pointsman.yaml", "listen: 127.0.0.1:8080", listen)
}

/// A set with a TLS listener that has these files.
fn with_tls(more: &str, cert: &str, key: &str) -> Set {
    let listen = format!(
        "listen:\n  address: 127.0.0.1:8443\n  tls:\n    certificates:\n      - cert: a.pem\n        key: a.key\n{more}"
    );
    listening(&listen).put("a.pem", cert).put("a.key", key)
}

#[test]
fn a_listener_is_an_address_a_map_or_one_of_a_list() {
    let addresses = |set: &Set| {
        let settings = set.read().unwrap_or_else(|failed| panic!("{failed}")).setup.settings;
        settings.listen.iter().map(|listener| listener.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(addresses(&listening("")), ["127.0.0.1:8080"]);
    assert_eq!(addresses(&listening("listen: { address: 127.0.0.1:9 }")), ["127.0.0.1:9"]);
    assert_eq!(
        addresses(&listening("listen: [127.0.0.1:7, { address: '[::1]:7' }, localhost:9]")),
        ["127.0.0.1:7", "[::1]:7", "127.0.0.1:9"]
    );
    let set = listening("listen: { address: 127.0.0.1:9, proxy_protocol: { version: any, trust: [10.0.0.0/8] } }");
    let listener = set.read().unwrap().setup.settings.listen.remove(0);
    let trust = vec![Network::parse("10.0.0.0/8").unwrap()];
    assert_eq!(listener.proxy_protocol, Some(ProxyProtocol { version: ProxyVersion::Any, trust }));
    assert!(listener.http2);
    let without =
        listening("listen: { address: 127.0.0.1:9, http2: false }").read().unwrap().setup.settings.listen.remove(0);
    assert!(!without.http2 && listener.needs_restart(&Listener { http2: false, ..listener.clone() }));
}

#[test]
fn problems_of_listeners_are_reported_with_their_positions() {
    for (listen, place, message, hint) in [
        ("listen: 8080", "1:9", "expected text, a map or a list, found the number 8080", "quotes"),
        ("listen: []", "1:1", "the list has no listener", "127.0.0.1:8080"),
        ("listen: [127.0.0.1:1, x:1]", "1:23", "`x:1` is not an address to listen on", "ADDRESS:PORT"),
        ("listen: [127.0.0.1:1, 127.0.0.1:1]", "1:23", "two listeners have the address", "a port of its own"),
        ("listen: [127.0.0.1:1, 0.0.0.0:1]", "1:23", "cannot both be listened on", "a port of its own"),
        ("listen: [{ adress: 127.0.0.1:1 }]", "1:12", "unknown key `adress`", "`address`"),
        ("listen: { proxy_protocol: v1 }", "1:1", "the key `address` is missing", "ADDRESS:PORT"),
        ("listen: { address: 127.0.0.1:1, proxy_protocol: v3 }", "1:49", "`v3` is not a version", "`v"),
        (
            "listen: { address: 127.0.0.1:1, proxy_protocol: { version: v1, trust: [10.1.0.0/8] } }",
            "1:72",
            "after its prefix",
            "`10.0.0.0/8`",
        ),
        (
            "listen: { address: 127.0.0.1:1, proxy_protocol: { version: v1, trust: [] } }",
            "1:64",
            "trusts no network",
            "",
        ),
        ("listen: { address: 127.0.0.1:1, proxy_protocol: { trust: [::1] } }", "1:33", "`version` is missing", ""),
        ("listen: [127.0.0.1:1, 127.0.0.1:8081]", "2:18", "the API has the proxy's address", "another port"),
        ("listen: { address: 127.0.0.1:1, tls: { certificates: [] } }", "1:40", "the list has no certificate", "tls/"),
        ("listen: { address: 127.0.0.1:1, tls: {} }", "1:33", "`certificates` is missing", "SNI"),
        (
            "listen: { address: 127.0.0.1:1, tls: { certificates: [{ cert: no.pem, key: no.key }] } }",
            "1:63",
            "no.pem` cannot be read: No such file",
            "relative to",
        ),
    ] {
        let shown = listening(listen).shown();
        assert!(shown.contains(&format!("flags/pointsman.yaml:{place}")), "{listen}: {place}\n{shown}");
        assert!(shown.contains(message) && shown.contains(hint), "{listen}\n{shown}");
        assert!(shown.contains("error:"), "{shown}");
    }
    let many: Vec<String> = (0..=LISTENERS_MAX).map(|port| format!("127.0.0.1:{}", port + 1)).collect();
    let shown = listening(&format!("listen: [{}]", many.join(", "))).shown();
    assert!(shown.contains("65 listeners are too many: at most 64"), "{shown}");
    let open = listening("listen: { address: 0.0.0.0:1, proxy_protocol: any }").shown();
    assert!(open.contains("warning: whoever can connect to 0.0.0.0:1 can name any address"), "{open}");
}

#[test]
fn problems_of_certificates_are_reported_with_file_and_position() {
    let authority = Authority::new("Test");
    let Issued { cert, key } = authority.issue_for("shop.test");
    let other = authority.issue_for("shop.test");
    let earlier_form = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let broken = cert.replace("MII", "!!!");
    let chain = format!("{}{}", authority.pem(), cert);
    for (cert, key, place, message, hint) in [
        (cert.as_str(), other.key.as_str(), "6:14", "a.key` does not belong to the certificate", "mixed up"),
        (&chain, &key, "6:14", "a.key` does not belong to the certificate", "must be the first in its file"),
        (&cert, &cert, "6:14", "a.key` holds a certificate and no private key", "its key"),
        (&cert, encrypted, "6:14", "a.key` holds a key that is encrypted", "openssl pkey"),
        (&cert, earlier_form, "6:14", "a.key` holds a key that is encrypted", "openssl pkey"),
        (&cert, "", "6:14", "a.key` holds no private key in PEM form", ""),
        (&key, &key, "5:15", "a.pem` holds a private key and no certificate", ""),
        ("", &key, "5:15", "a.pem` holds no certificate in PEM form", ""),
        (&broken, &key, "5:15", "a.pem` is not PEM", ""),
    ] {
        let shown = with_tls("", cert, key).shown();
        assert!(shown.contains(&format!("flags/pointsman.yaml:{place}")), "{message}: {place}\n{shown}");
        assert!(shown.contains(message) && shown.contains(hint), "{message}, {hint}\n{shown}");
        assert!(!shown.contains(key.lines().nth(1).unwrap_or("-----")), "no key is shown\n{shown}");
    }
    let large = with_tls("", &"x".repeat(1 + usize::try_from(CERTIFICATE_FILE_BYTES_MAX).unwrap()), "").shown();
    assert!(large.contains("a.pem` is larger than"), "{large}");
    let in_tls = |more: &str| with_tls(more, &cert, &key).put("ca.pem", authority.pem()).put("key.pem", &key).shown();
    let clients = |more: &str| in_tls(&format!("    clients: {{ {more} }}\n"));
    for (shown, place, message) in [
        (in_tls("    min_version: 1.1\n"), "7:18", "`1.1` is not a version of TLS that can be served"),
        (in_tls("    min_version: x\n"), "7:18", "`x` is not a version of TLS that can be served"),
        (clients("ca: no.pem"), "7:20", "no.pem` cannot be read"),
        (clients("ca: key.pem"), "7:20", "holds a private key and no certificate"),
        (clients("ca: ca.pem, header: 'a b'"), "7:36", "`a b` is not the name of a header field"),
        (clients("ca: ca.pem, header: host"), "7:36", "`host` has another meaning"),
        (clients("ca: ca.pem, header: X_Client"), "7:36", "`x_client` has a `_`"),
        (clients("ca: ca.pem, header: x-a, names_header: x-a"), "7:55", "are the same field"),
        (clients("header: x-a"), "7:5", "the key `ca` is missing"),
    ] {
        assert!(shown.contains(&format!("flags/pointsman.yaml:{place}")), "{message}: {place}\n{shown}");
        assert!(shown.contains(message), "{message}\n{shown}");
    }
    for more in
        ["    min_version: 1.3\n", "    min_version: \"1.2\"\n", "    clients: { ca: ca.pem, require: false }\n"]
    {
        assert_eq!(in_tls(more), "nothing wrong", "{more}");
    }
}

#[test]
fn expired_and_future_certificates_cause_a_warning() {
    let authority = Authority::new("Test");
    for (years, message) in [((2001, 2002), "the certificate expired at 2002"), ((2900, 2901), "valid only from 2900")]
    {
        let issued = authority.issue(&Subject { years: Some(years), ..Subject::default() });
        let shown = with_tls("", &issued.cert, &issued.key).shown();
        assert!(shown.contains("warning: ") && shown.contains(message), "{shown}");
        assert!(shown.contains("flags/pointsman.yaml:5:15") && shown.contains("1 warning"), "{shown}");
    }
}

/// Otherwise a client of that one address could send such a field itself.
#[test]
fn one_address_on_the_command_line_keeps_the_names_of_identity_fields() {
    let set = listening(
        "listen: { address: 127.0.0.1:1, tls: { certificates: [{ cert: a, key: b }], clients: { ca: c, header: x-a } } }",
    );
    let listen = Some("127.0.0.1:9".parse().unwrap());
    let loaded = read(&set.dir(), &Overrides { listen, ..Overrides::default() }).unwrap_or_else(|e| panic!("{e}"));
    let settings = loaded.setup.settings;
    assert_eq!(settings.listen.len(), 1);
    assert!(settings.listen[0].tls.is_none());
    assert_eq!(settings.identity_headers, ["x-a"]);
}

#[tokio::test]
async fn a_renewed_certificate_is_a_change_and_a_missing_key_is_noticed_when_it_comes() {
    let authority = Authority::new("Test");
    let (first, second) = (authority.issue_for("shop.test"), authority.issue_for("shop.test"));
    let set = with_tls("", &first.cert, &first.key);
    let loaded = set.read().unwrap();
    let timing = WatchTiming { quiet: Duration::from_millis(200), ..WatchTiming::default() };
    let (_watcher, mut changes) =
        FlagFileWatcher::start(&set.dir(), Overrides::default(), loaded.hash, loaded.referenced_files, timing).unwrap();
    let mut next = async || tokio::time::timeout(Duration::from_secs(20), changes.recv()).await.unwrap().unwrap();
    let set = set.put("a.pem", &second.cert);
    assert!(matches!(next().await.change, FilesChange::Refused(_)), "the key is still the old one");
    let set = set.put("a.key", &second.key);
    let FilesChange::Loaded(loaded) = next().await.change else { panic!("refused") };
    let server = |loaded: &crate::config::Loaded| loaded.setup.settings.listen[0].tls.clone().unwrap().server.unwrap();
    assert!(!server(&loaded).is_same(&server(&with_tls("", &first.cert, &first.key).read().unwrap())));
    assert!(server(&loaded).is_same(&server(&set.read().unwrap())));
}

#[test]
fn settings_that_handshakes_do_not_need_wait_for_the_next_start() {
    let authority = Authority::new("Test");
    let Issued { cert, key } = authority.issue_for("shop.test");
    let renewed = authority.issue_for("shop.test");
    let settings = |set: Set| set.read().unwrap_or_else(|failed| panic!("{failed}")).setup.settings;
    let base = settings(with_tls("", &cert, &key));
    let waiting = |set: Set| base.settings_needing_restart(&settings(set));
    assert!(waiting(with_tls("    min_version: 1.3\n", &renewed.cert, &renewed.key)).is_empty());
    let clients = |more: &str| {
        with_tls(&format!("    clients: {{ ca: ca.pem{more} }}\n"), &cert, &key).put("ca.pem", authority.pem())
    };
    assert!(waiting(clients("")).is_empty());
    assert_eq!(waiting(clients(", header: x-a")), ["listen"]);
    assert_eq!(waiting(with_tls("  proxy_protocol: v1\n", &cert, &key)), ["listen"]);
    assert_eq!(waiting(listening("listen: 127.0.0.1:8443")), ["listen"]);
    assert_eq!(waiting(listening("listen: 127.0.0.1:8444")), ["listen"]);
}
