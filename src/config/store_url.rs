//! Parses the URL of the store.
//!
//! Always true: a password is never part of a message, nor of the source line that is shown with the message.

use std::path::PathBuf;

use super::setup::StoreUrl;
use crate::secret::Secret;

/// The forms of a store's URL, for hints.
pub(super) const STORE_FORMS: &str = "one of `sqlite:PATH`, `postgres://USER@HOST:PORT/DATABASE`, `memory`";

/// The parameters that a PostgreSQL URL may have.
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

/// Parses a store's URL. `password` is one that is given in addition to the URL.
///
/// # Errors
/// What is wrong with the URL.
pub fn parse_store(text: &str, password: Option<Secret>) -> Result<StoreUrl, String> {
    let url = match text.split_once(':').unwrap_or((text, "")) {
        // Accepted without the colon too, since YAML reads `store: memory:` as a map.
        ("memory", "") => StoreUrl::Memory,
        ("sqlite", path) if !path.is_empty() => {
            StoreUrl::Sqlite(PathBuf::from(path.strip_prefix("//").unwrap_or(path)))
        }
        ("postgres" | "postgresql", rest) => {
            check_postgres(rest)?;
            return Ok(StoreUrl::Postgres { url: Secret::new(text), password });
        }
        _ => return Err(format!("`{}` is not a store's URL", mask_password(text))),
    };
    match password {
        Some(_) => Err("`store_password` is for PostgreSQL, and this store is not PostgreSQL".into()),
        None => Ok(url),
    }
}

fn check_postgres(rest: &str) -> Result<(), String> {
    let Some(rest) = rest.strip_prefix("//") else {
        return Err("a PostgreSQL URL begins with `postgres://`".into());
    };
    let (address, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (server, _) = address.split_once('/').unwrap_or((address, ""));
    let (_, server) = server.rsplit_once('@').unwrap_or(("", server));
    let port = match server.rsplit_once(']') {
        Some((_, after)) => after.strip_prefix(':'),
        None => server.split_once(':').map(|(_, port)| port),
    };
    if let Some(port) = port
        && port.parse::<u16>().is_err()
    {
        return Err("the text after the host's `:` is not a port (a `@`, `:` or `/` in a password is written `%40`, \
                    `%3A`, `%2F`)"
            .into());
    }
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if name == "password" {
            return Err("a password must not be a parameter of the URL: use `store_password: { file: … }`".into());
        }
        if !PARAMETERS.contains(&name) && !name.starts_with("options[") {
            return Err(format!("`{name}` is not a parameter of a PostgreSQL URL"));
        }
        if name == "sslmode" && !SSL_MODES.contains(&value) {
            return Err(format!("`sslmode` is one of {}", SSL_MODES.join(", ")));
        }
    }
    Ok(())
}

/// The text with each password in a URL replaced by stars of the same length, so that positions in the text stay valid.
pub(super) fn mask_password(line: &str) -> String {
    let mut masked = line.to_owned();
    let mut from = 0;
    while let Some(at) = masked[from..].find("://") {
        let begin = from + at + 3;
        // The password ends at the last `@` of the word: it may contain an `@` that should have been written `%40`.
        let end = masked[begin..].find(char::is_whitespace).map_or(masked.len(), |end| begin + end);
        if let Some(host) = masked[begin..end].rfind('@')
            && let Some(colon) = masked[begin..begin + host].find(':')
        {
            let password = begin + colon + 1..begin + host;
            masked.replace_range(password.clone(), &"*".repeat(password.len()));
        }
        from = begin;
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_url_is_checked_without_connecting() {
        let of = |text: &str| parse_store(text, None);
        assert!(matches!(of("postgres://ada:pw@db:5432/flags?sslmode=verify-full"), Ok(StoreUrl::Postgres { .. })));
        assert!(matches!(of("postgresql://[::1]:5432/flags"), Ok(StoreUrl::Postgres { .. })));
        assert!(matches!(of("postgres:///flags?host=/run/postgresql"), Ok(StoreUrl::Postgres { .. })));
        for (text, says) in [
            ("postgres:flags", "begins with"),
            ("postgres://ada:s3cret@db:x/flags", "not a port"),
            ("postgres://ada:s3cret/x@db/flags", "not a port"),
            ("postgres://db/flags?sslmode=on", "one of disable"),
            ("postgres://db/flags?ssl=on", "not a parameter"),
            ("postgres://db/flags?password=s3cret", "store_password"),
            ("mysql://ada:s3cret@db/flags", "not a store's URL"),
        ] {
            let why = of(text).unwrap_err();
            assert!(why.contains(says), "{text}: {why}");
            assert!(!why.contains("s3cret"), "{why}");
        }
        assert!(parse_store("memory", Some(Secret::new("pw"))).is_err());
    }

    #[test]
    fn a_masked_line_keeps_its_length_and_hides_the_password() {
        let line = "store: postgres://ada:p@ss/w:ö@db:5432/flags # postgres://eve:x@y";
        let shown = mask_password(line);
        assert_eq!(shown, "store: postgres://ada:*********@db:5432/flags # postgres://eve:*@y");
        assert_eq!(shown.len(), line.len());
        assert_eq!(mask_password("listen: 127.0.0.1:1"), "listen: 127.0.0.1:1");
        assert_eq!(mask_password("postgres://ada@db:5432/x"), "postgres://ada@db:5432/x");
    }
}
