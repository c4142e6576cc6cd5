//! Names that the files declare as secret for the whole process, and how names are compared.

use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;

/// A name as names are compared: `X-Customer_Ref` and `xCustomerRef` are one.
pub(super) fn plain_name(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The names that `redact:` of pointsman.yaml declares. They are known to the whole process, because the log and the
/// access log show texts that belong to no route.
static NAMES_OF_PROCESS: LazyLock<ArcSwap<Vec<String>>> = LazyLock::new(ArcSwap::default);

/// Sets the names that are secret everywhere in this process, in place of those that were set before.
pub fn set_secret_names(names: &[String]) {
    NAMES_OF_PROCESS.store(Arc::new(names.iter().map(|name| plain_name(name)).collect()));
}

/// Whether a name is secret by what was set last.
pub(super) fn is_secret_in_process(name: &str) -> bool {
    let names = NAMES_OF_PROCESS.load();
    !names.is_empty() && names.contains(&plain_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{is_secret, redact_line};

    #[test]
    fn names_of_the_process_are_secret_everywhere() {
        assert!(!is_secret("customer_ref"));
        set_secret_names(&["customer_ref".to_owned()]);
        assert!(is_secret("customerRef") && redact_line("/x?customer_ref=7") == "/x?customer_ref=***");
        set_secret_names(&[]);
        assert!(!is_secret("customer_ref"));
    }
}
