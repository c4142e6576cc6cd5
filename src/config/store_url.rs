//! Where the store is, as people write it.
//!
//! Always true: a password never stands in a message, and not in a line of source that is shown with one.

use std::path::PathBuf;

use super::StoreUrl;
use crate::secret::Secret;

pub(super) const STORES: &str = "one of `sqlite:PATH`, `postgres://USER@HOST:PORT/DATABASE`, `memory`";

/// What may follow the `?` of PostgreSQL's.
const PARAMETERS: [&str; 12] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
    "statement-cache-capacity",
];
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// Where a store is, with a password that stands beside its address.
///
/// # Errors
/// What is wrong with it.
pub fn parse_store(text: &str, password: Option<Secret>) -> Result<StoreUrl, String> {
    let url = match text.split_once(':').unwrap_or((text, "")) {
        // Without the colon too: YAML takes `store: memory:` for a map in a line.
        ("memory", "") => StoreUrl::Memory,
        ("sqlite", path) if !path.is_empty() => {
            StoreUrl::Sqlite(PathBuf::from(path.strip_prefix("//").unwrap_or(path)))
        }
        ("postgres" | "postgresql", rest) => {
            check_postgres(rest)?;
            return Ok(StoreUrl::Postgres { url: Secret::new(text), password });
        }
        _ => return Err(format!("`{}` is no store", veiled(text))),
    };
    match password {
        Some(_) => Err("a `store_password` is for PostgreSQL, which this is not".into()),
        None => Ok(url),
    }
}

fn check_postgres(rest: &str) -> Result<(), String> {
    let Some(rest) = rest.strip_prefix("//") else {
        return Err("PostgreSQL's address begins with `postgres://`".into());
    };
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (server, _) = place.split_once('/').unwrap_or((place, ""));
    let (_, server) = server.rsplit_once('@').unwrap_or(("", server));
    let port = match server.rsplit_once(']') {
        Some((_, after)) => after.strip_prefix(':'),
        None => server.split_once(':').map(|(_, port)| port),
    };
    if let Some(port) = port
        && port.parse::<u16>().is_err()
    {
        return Err("what stands after the host's `:` is no port (a `@`, `:` or `/` in a password is written `%40`, \
                    `%3A`, `%2F`)"
            .into());
    }
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if name == "password" {
            return Err("a password does not belong behind the `?`: say `store_password: { file: … }`".into());
        }
        if !PARAMETERS.contains(&name) && !name.starts_with("options[") {
            return Err(format!("`{name}` is no parameter of PostgreSQL's address"));
        }
        if name == "sslmode" && !SSL_MODES.contains(&value) {
            return Err(format!("`sslmode` is one of {}", SSL_MODES.join(", ")));
        }
    }
    Ok(())
}

/// The same text with stars for a password in an address; as long as it was, so that places in it stay.
pub(super) fn veiled(line: &str) -> String {
    let mut veiled = line.to_owned();
    let mut from = 0;
    while let Some(at) = veiled[from..].find("://") {
        let begin = from + at + 3;
        // Up to the last `@` of the word: whoever does not know that it must be written `%40` has one in the password.
        let end = veiled[begin..].find(char::is_whitespace).map_or(veiled.len(), |end| begin + end);
        if let Some(host) = veiled[begin..end].rfind('@')
            && let Some(colon) = veiled[begin..begin + host].find(':')
        {
            let password = begin + colon + 1..begin + host;
            veiled.replace_range(password.clone(), &"*".repeat(password.len()));
        }
        from = begin;
    }
    veiled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_checked_before_anybody_connects() {
        let of = |text: &str| parse_store(text, None);
        assert!(matches!(of("postgres://ada:pw@db:5432/flags?sslmode=verify-full"), Ok(StoreUrl::Postgres { .. })));
        assert!(matches!(of("postgresql://[::1]:5432/flags"), Ok(StoreUrl::Postgres { .. })));
        assert!(matches!(of("postgres:///flags?host=/run/postgresql"), Ok(StoreUrl::Postgres { .. })));
        for (text, says) in [
            ("postgres:flags", "begins with"),
            ("postgres://ada:s3cret@db:x/flags", "no port"),
            ("postgres://ada:s3cret/x@db/flags", "no port"),
            ("postgres://db/flags?sslmode=on", "one of disable"),
            ("postgres://db/flags?ssl=on", "no parameter"),
            ("postgres://db/flags?password=s3cret", "store_password"),
            ("mysql://ada:s3cret@db/flags", "no store"),
        ] {
            let why = of(text).unwrap_err();
            assert!(why.contains(says), "{text}: {why}");
            assert!(!why.contains("s3cret"), "{why}");
        }
        assert!(parse_store("memory", Some(Secret::new("pw"))).is_err());
    }

    #[test]
    fn a_shown_line_hides_the_password_and_keeps_its_places() {
        let line = "store: postgres://ada:p@ss/w:ö@db:5432/flags # postgres://eve:x@y";
        let shown = veiled(line);
        assert_eq!(shown, "store: postgres://ada:*********@db:5432/flags # postgres://eve:*@y");
        assert_eq!(shown.len(), line.len());
        assert_eq!(veiled("listen: 127.0.0.1:1"), "listen: 127.0.0.1:1");
        assert_eq!(veiled("postgres://ada@db:5432/x"), "postgres://ada@db:5432/x");
    }
}
