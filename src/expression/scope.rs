//! The names that an evaluation can read, and their values.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

/// The value of a name: shared JSON, or a map whose members are shared one by one, so that `steps` can gain an output
/// without copying the others.
#[derive(Clone, Debug)]
pub enum ScopeValue {
    /// JSON.
    Value(Arc<Value>),
    /// A map of such values.
    Map(Arc<BTreeMap<Arc<str>, ScopeValue>>),
}

impl ScopeValue {
    /// A map of members.
    pub fn map<K: Into<Arc<str>>>(members: impl IntoIterator<Item = (K, ScopeValue)>) -> Self {
        ScopeValue::Map(Arc::new(members.into_iter().map(|(key, value)| (key.into(), value)).collect()))
    }
    /// As JSON; copies the members.
    pub fn to_value(&self) -> Value {
        match self {
            ScopeValue::Value(value) => (**value).clone(),
            ScopeValue::Map(members) => {
                Value::Object(members.iter().map(|(key, value)| (key.to_string(), value.to_value())).collect())
            }
        }
    }
}

impl From<Arc<Value>> for ScopeValue {
    fn from(value: Arc<Value>) -> Self {
        ScopeValue::Value(value)
    }
}

impl From<Value> for ScopeValue {
    fn from(value: Value) -> Self {
        ScopeValue::Value(Arc::new(value))
    }
}

/// The names that an evaluation can read, and their values. Values are shared: a clone costs a few reference counts, so
/// that each item of a fan-out can have its own `item` and `index`.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// A list, because they are few: a search is faster than a map.
    names: Vec<(Arc<str>, ScopeValue)>,
    /// The key of `uuid()` and `random()`; without it they are errors.
    random_key: Option<[u8; 32]>,
}

impl Scope {
    /// No names.
    pub fn new() -> Self {
        Self::default()
    }
    /// Sets the value of a root name, replacing an earlier one.
    pub fn set(&mut self, name: &str, value: impl Into<ScopeValue>) -> &mut Self {
        let value = value.into();
        match self.names.iter_mut().find(|(known, _)| &**known == name) {
            Some((_, given)) => *given = value,
            None => self.names.push((name.into(), value)),
        }
        self
    }
    /// Sets `root.member` and keeps the other members. A root that is JSON is replaced.
    pub fn set_member(&mut self, root: &str, member: &str, value: impl Into<ScopeValue>) -> &mut Self {
        let value = value.into();
        if let Some((_, ScopeValue::Map(members))) = self.names.iter_mut().find(|(known, _)| &**known == root) {
            Arc::make_mut(members).insert(member.into(), value);
            return self;
        }
        self.set(root, ScopeValue::map([(member, value)]))
    }
    /// A copy with one name more, such as `item`, `index` or `output`.
    pub fn with(&self, name: &str, value: impl Into<ScopeValue>) -> Self {
        let mut scope = self.clone();
        scope.set(name, value);
        scope
    }
    /// Sets the key of `uuid()` and `random()`. Each run needs a key of its own.
    pub fn set_random_key(&mut self, key: [u8; 32]) -> &mut Self {
        self.random_key = Some(key);
        self
    }
    pub(super) fn random_key(&self) -> Option<&[u8; 32]> {
        self.random_key.as_ref()
    }
    /// The value of a root name.
    pub fn get(&self, name: &str) -> Option<&ScopeValue> {
        self.names.iter().find(|(known, _)| &**known == name).map(|(_, given)| given)
    }
    /// All root names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(name, _)| &**name)
    }
}
