//! Secrets, read from environment and files.
//!
//! Always true: the value of a secret is never part of a message; it has no control characters, and is not empty; the
//! size of a file is bounded. A file that blocks delays only loading.

use std::io::Read;
use std::path::Path;

use base64::Engine as _;

use super::secret_keys::is_variable_name;
use super::setup::Overrides;
use crate::problem::{Problems, Site};
use crate::secret::Secret;

/// The largest file of a secret or of public keys.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Reads a secret from its environment variable or file.
pub(super) fn secret(
    env: &Option<String>,
    file: &Option<String>,
    site: &Site,
    dir: &Path,
    overrides: &Overrides,
    problems: &mut Problems,
) -> Option<String> {
    let (site, read) = match (env, file) {
        (Some(env), None) => {
            let named = if is_variable_name(env) { format!(" `{env}`") } else { String::new() };
            let value = std::env::var(env).map_err(|error| match error {
                std::env::VarError::NotPresent => format!("the environment variable{named} is not set"),
                std::env::VarError::NotUnicode(_) => format!("the environment variable{named} is not UTF-8"),
            });
            (site.key("env"), value)
        }
        (None, Some(file)) => (site.key("file"), read_bounded(&dir.join(file))),
        (Some(_), Some(_)) => {
            problems.error(site, "both `env` and `file` are given").hint("keep one of them");
            return None;
        }
        (None, None) => {
            problems.error(site, "neither `env` nor `file` is given").hint("give `env: NAME` or `file: PATH`");
            return None;
        }
    };
    let message = match read {
        Ok(value) => {
            let value = value.trim_end_matches(['\n', '\r']);
            match value {
                "" => "the secret is empty".to_owned(),
                _ if value.contains(|c: char| c.is_control()) => {
                    "the secret has line breaks or control characters".to_owned()
                }
                _ => return Some(value.to_owned()),
            }
        }
        Err(message) => message,
    };
    if overrides.secrets_may_be_absent {
        problems.warn(&site, message);
    } else {
        problems.error(&site, message).hint("the secret is read whenever the flag files are loaded");
    }
    None
}

/// Reads a file of public keys. `None` if it cannot be read and `secrets_may_be_absent` is set.
pub(super) fn public_keys(path: &Path, overrides: &Overrides) -> Result<Option<String>, String> {
    match read_bounded(path) {
        Ok(text) => Ok(Some(text)),
        Err(_) if overrides.secrets_may_be_absent => Ok(None),
        Err(why) => Err(why),
    }
}

fn read_bounded(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let mut text = String::new();
    let file = std::fs::metadata(path)
        .and_then(|meta| if meta.is_file() { Ok(()) } else { Err(std::io::Error::other("not a regular file")) })
        .and_then(|()| std::fs::File::open(path));
    file.and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| format!("the file `{shown}` cannot be read: {error}"))?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(format!("the file `{shown}` is larger than {SECRET_BYTES_MAX} bytes"));
    }
    Ok(text)
}

/// Parses a store key of 32 bytes; returns the key as 64 hex digits.
pub(super) fn store_key(text: &str, site: &Site, problems: &mut Problems) -> Option<Secret> {
    let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex {
        return Some(Secret::new(text.to_ascii_lowercase()));
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok().filter(|bytes| bytes.len() == 32);
    match bytes {
        Some(bytes) => Some(Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())),
        None => {
            problems
                .error(site, "the store key is not 32 bytes written as 64 hex digits or base64")
                .hint("make one with `openssl rand -hex 32`");
            None
        }
    }
}
