//! A value that an update with an older version never replaces.

/// A value, and the version of the update that set it.
#[derive(Clone, Debug)]
pub(super) struct Versioned<T> {
    version: u64,
    value: T,
}

impl<T: PartialEq> Versioned<T> {
    /// A first value. If its version is 0, any other version replaces it.
    pub fn new(version: u64, value: T) -> Self {
        Self { version, value }
    }
    /// The newest value.
    pub fn get(&self) -> &T {
        &self.value
    }
    /// The version of the newest value.
    pub fn version(&self) -> u64 {
        self.version
    }
    /// Sets the value, unless one with a newer version is set. Returns whether the value changed.
    pub fn set(&mut self, version: u64, value: T) -> bool {
        if version < self.version {
            return false;
        }
        self.version = version;
        std::mem::replace(&mut self.value, value) != self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_check_changes_nothing() {
        let mut health = Versioned::new(0, true);
        assert!(health.set(4, false));
        assert!(!health.set(3, true) && !*health.get(), "of an older check");
        assert!(!health.set(5, false), "newer, and the same");
        assert!(!health.set(4, true));
        assert!(health.set(6, true) && *health.get());
    }
}
