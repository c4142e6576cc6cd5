//! Parses the URL of the store.
//!
//! Always true: a password is never part of a message, nor of the source line that is shown with the message.

use std::borrow::Cow;
use std::path::PathBuf;

use super::setup::StoreUrl;
use crate::secret::{STARS, Secret};

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
            return Ok(StoreUrl::Postgres { url: Secret::new(text), direct: None, password });
        }
        // Not quoted: it may have a password in a form that is not known.
        _ => return Err("this is not a store's URL".into()),
    };
    match password {
        Some(_) => Err("`store_password` is for PostgreSQL, and this store is not PostgreSQL".into()),
        None => Ok(url),
    }
}

impl StoreUrl {
    /// The store behind a pooler, whose URL this is: `direct` is that of the server itself.
    ///
    /// # Errors
    /// What is wrong with `direct`.
    pub(super) fn behind_pooler(self, direct: &str) -> Result<Self, String> {
        let Self::Postgres { url, direct: _, password } = self else {
            return Err("`store_direct` is for PostgreSQL behind a pooler, and this store is not PostgreSQL".into());
        };
        match direct.split_once(':') {
            Some(("postgres" | "postgresql", rest)) => check_postgres(rest)?,
            // Not quoted: it may be a password without the rest of a URL.
            _ => return Err("this is not the URL of a PostgreSQL server, `postgres://USER@HOST:PORT/DATABASE`".into()),
        }
        if url.reveal() == direct {
            return Err("`store_direct` is the URL of `store`: it is the server's, and `store` is the pooler's; \
                        without a pooler leave it out"
                .into());
        }
        Ok(Self::Postgres { url, direct: Some(Secret::new(direct)), password })
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

/// What is shown of a store's URL: neither its parameters, nor any of one that has a form of its own and may have a
/// password.
pub(super) fn shown_store(text: &str) -> Cow<'_, str> {
    let is_postgres = text.starts_with("postgres://") || text.starts_with("postgresql://");
    match text.split_once('?') {
        _ if !is_postgres && text.contains('@') => STARS.into(),
        _ if !is_postgres && text.contains(':') && !text.starts_with("sqlite:") && text != "memory:" => STARS.into(),
        Some((address, _)) if is_postgres => format!("{}?{STARS}", mask_password(address)).into(),
        _ => mask_password(text).into(),
    }
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
    fn the_address_of_the_server_behind_a_pooler_is_checked() {
        let of = |store: &str, direct: &str| parse_store(store, None).unwrap().behind_pooler(direct);
        let (pooler, server) = ("postgres://ada@pooler:6432/flags", "postgres://ada:s3cret@db/flags");
        let found = of(pooler, server).unwrap();
        let StoreUrl::Postgres { url, direct: Some(direct), .. } = found else { panic!("{found:?}") };
        assert_eq!((url.reveal(), direct.reveal()), (pooler, server));
        for (store, direct, says) in [
            (pooler, pooler, "is the URL of `store`"),
            (pooler, "sqlite:pointsman.db", "not the URL of a PostgreSQL server"),
            (pooler, "ada:s3cret@db", "not the URL of a PostgreSQL server"),
            (pooler, "postgres://ada:s3cret@db:x/flags", "not a port"),
            ("memory", server, "this store is not PostgreSQL"),
        ] {
            let why = of(store, direct).unwrap_err();
            assert!(why.contains(says), "{direct}: {why}");
            assert!(!why.contains("s3cret"), "{why}");
        }
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
