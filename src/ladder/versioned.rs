//! A value that an older observation never replaces.

/// A value and the version of what it was made of.
#[derive(Clone, Debug)]
pub(super) struct Versioned<T> {
    version: u64,
    value: T,
}

impl<T: PartialEq> Versioned<T> {
    /// A first value; whatever is set replaces one of version 0.
    pub fn new(version: u64, value: T) -> Self {
        Self { version, value }
    }
    /// The newest value.
    pub fn get(&self) -> &T {
        &self.value
    }
    /// What the newest value was made of.
    pub fn version(&self) -> u64 {
        self.version
    }
    /// Takes a value unless a newer one is there; whether that changed anything.
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
    fn an_older_observation_changes_nothing() {
        let mut health = Versioned::new(0, true);
        assert!(health.set(4, false));
        assert!(!health.set(3, true) && !*health.get(), "made of an older look");
        assert!(!health.set(5, false), "newer, and the same");
        assert!(!health.set(4, true));
        assert!(health.set(6, true) && *health.get());
    }
}
