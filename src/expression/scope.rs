//! What names mean while something is evaluated.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

/// A value that is handed to expressions: JSON that is shared, or a map whose members are shared one by one. With
/// the second, `steps` can grow by an output without copying the others.
#[derive(Clone, Debug)]
pub enum Given {
    /// JSON.
    Value(Arc<Value>),
    /// A map of such values.
    Map(Arc<BTreeMap<Arc<str>, Given>>),
}

impl Given {
    /// A map of members.
    pub fn map<K: Into<Arc<str>>>(members: impl IntoIterator<Item = (K, Given)>) -> Self {
        Given::Map(Arc::new(members.into_iter().map(|(key, value)| (key.into(), value)).collect()))
    }
    /// As JSON; members are copied.
    pub fn to_value(&self) -> Value {
        match self {
            Given::Value(value) => (**value).clone(),
            Given::Map(members) => {
                Value::Object(members.iter().map(|(key, value)| (key.to_string(), value.to_value())).collect())
            }
        }
    }
}

impl From<Arc<Value>> for Given {
    fn from(value: Arc<Value>) -> Self {
        Given::Value(value)
    }
}

impl From<Value> for Given {
    fn from(value: Value) -> Self {
        Given::Value(Arc::new(value))
    }
}

/// What names mean while something is evaluated. Values are shared, not copied; a clone costs a few reference counts,
/// so that each item of a fan-out can have its own `item` and `index`.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Few: a search from the end is faster than a map, and the last one given to a name wins.
    names: Vec<(Arc<str>, Given)>,
    /// Under which `uuid()` and `random()` draw.
    draws: Option<[u8; 32]>,
}

impl Scope {
    /// No names.
    pub fn new() -> Self {
        Self::default()
    }
    /// Gives a root name a value; one given before is replaced.
    pub fn set(&mut self, name: &str, value: impl Into<Given>) -> &mut Self {
        let value = value.into();
        match self.names.iter_mut().find(|(known, _)| &**known == name) {
            Some((_, given)) => *given = value,
            None => self.names.push((name.into(), value)),
        }
        self
    }
    /// Puts a shared value under `root.member`, beside the other members. A root that is JSON is replaced.
    pub fn set_member(&mut self, root: &str, member: &str, value: impl Into<Given>) -> &mut Self {
        let value = value.into();
        if let Some((_, Given::Map(members))) = self.names.iter_mut().find(|(known, _)| &**known == root) {
            Arc::make_mut(members).insert(member.into(), value);
            return self;
        }
        self.set(root, Given::map([(member, value)]))
    }
    /// This scope with one name more: `item`, `index`, `output`.
    pub fn with(&self, name: &str, value: impl Into<Given>) -> Self {
        let mut scope = self.clone();
        scope.set(name, value);
        scope
    }
    /// Lets `uuid()` and `random()` draw under a key: of one run, and of nothing else.
    pub fn set_draws(&mut self, key: [u8; 32]) -> &mut Self {
        self.draws = Some(key);
        self
    }
    pub(super) fn draws(&self) -> Option<&[u8; 32]> {
        self.draws.as_ref()
    }
    /// What a root name means.
    pub fn get(&self, name: &str) -> Option<&Given> {
        self.names.iter().rev().find(|(known, _)| &**known == name).map(|(_, given)| given)
    }
    /// The root names there are.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(name, _)| &**name)
    }
}
