//! Which keys of the files have a secret as their value.

use crate::secret::{is_secret, singular};

/// Whether a key of the files has a secret, or a list of some.
pub(super) fn is_secret_name(name: &str) -> bool {
    name == "store_key" || is_secret(name) || singular(name).is_some_and(is_secret)
}
