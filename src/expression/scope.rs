//! The names that an evaluation can read, and their values.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::pseudo_random::PseudoRandom;
use super::step_results::StepResults;

/// The value of a name: shared JSON, a map whose members are shared one by one, or the results of steps.
#[derive(Clone, Debug)]
pub enum ScopeValue {
    /// JSON.
    Value(Arc<Value>),
    /// A map whose members are shared one by one.
    Map(Arc<BTreeMap<Arc<str>, ScopeValue>>),
    /// The results of steps: an object of which only the outputs that an expression reads are parsed.
    Steps(Arc<StepResults>),
}

impl ScopeValue {
    /// A map of members.
    pub fn map<K: Into<Arc<str>>>(members: impl IntoIterator<Item = (K, ScopeValue)>) -> Self {
        ScopeValue::Map(Arc::new(members.into_iter().map(|(key, value)| (key.into(), value)).collect()))
    }
    /// The value as JSON; copies the members.
    pub fn to_value(&self) -> Value {
        match self {
            ScopeValue::Value(value) => (**value).clone(),
            ScopeValue::Map(members) => {
                Value::Object(members.iter().map(|(key, value)| (key.to_string(), value.to_value())).collect())
            }
            ScopeValue::Steps(results) => results.whole().clone(),
        }
    }
}

impl From<Arc<StepResults>> for ScopeValue {
    fn from(results: Arc<StepResults>) -> Self {
        ScopeValue::Steps(results)
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

/// Values in place of those of `uuid("NAME")` and `random("NAME")`, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InjectedDraws {
    /// Of `uuid()`: texts.
    pub uuids: BTreeMap<String, Value>,
    /// Of `random()`: numbers.
    pub randoms: BTreeMap<String, Value>,
}

/// A value that is computed when it is first read: a scope is made for every decision, and few read all of it.
struct Lazy<T, F: ?Sized = dyn Fn() -> T + Send + Sync> {
    value: OnceLock<T>,
    compute: F,
}

impl<T> Lazy<T> {
    fn new(compute: impl Fn() -> T + Send + Sync + 'static) -> Arc<Self>
    where
        T: 'static,
    {
        Arc::new(Lazy { value: OnceLock::new(), compute })
    }
    fn get(&self) -> &T {
        self.value.get_or_init(|| (self.compute)())
    }
}

impl<T> fmt::Debug for Lazy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lazy")
    }
}

/// The value of a root name: set, or computed when it is first read.
#[derive(Clone, Debug)]
enum NameValue {
    Known(ScopeValue),
    Lazy(Arc<Lazy<ScopeValue>>),
}

/// Recognises the values that expressions can pass on but not read.
#[derive(Clone)]
struct Opaque(Arc<dyn Fn(&Value) -> bool + Send + Sync>);

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opaque")
    }
}

/// The names that an evaluation can read, and their values. Values are shared: a clone costs a few reference counts, so
/// that each item of a fan-out can have its own `item` and `index`.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// A list, because a scope has few names: a linear search is faster than a map.
    names: Vec<(Cow<'static, str>, NameValue)>,
    /// The key of `uuid()` and `random()`; where it is absent, both fail.
    random_key: Option<Arc<Lazy<[u8; 32]>>>,
    /// Recognises opaque values; where it is absent, every value can be read.
    opaque: Option<Opaque>,
    /// Values in place of those of `uuid()` and `random()`.
    injected: Option<Arc<InjectedDraws>>,
    /// The steps whose results are not known.
    unknown_steps: Option<Arc<BTreeSet<Arc<str>>>>,
}

impl Scope {
    /// A scope without names.
    pub fn new() -> Self {
        Self::default()
    }
    /// Sets the steps that have ended with results which are not known: what these lack is not absent.
    pub fn set_unknown_steps(&mut self, steps: BTreeSet<Arc<str>>) -> &mut Self {
        self.unknown_steps = (!steps.is_empty()).then(|| Arc::new(steps));
        self
    }
    pub(super) fn is_unknown_step(&self, step: &str) -> bool {
        self.unknown_steps.as_ref().is_some_and(|steps| steps.contains(step))
    }
    fn put(&mut self, name: Cow<'static, str>, value: NameValue) -> &mut Self {
        match self.names.iter_mut().find(|(known, _)| *known == name) {
            Some((_, entry)) => *entry = value,
            None => self.names.push((name, value)),
        }
        self
    }
    /// Sets the value of a root name, replacing an earlier one.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<ScopeValue>) -> &mut Self {
        self.put(name.into(), NameValue::Known(value.into()))
    }
    /// Like [`Scope::set`], but the value is computed when something first reads it, and only once.
    pub fn set_lazy(&mut self, name: &'static str, value: impl Fn() -> Value + Send + Sync + 'static) -> &mut Self {
        self.put(name.into(), NameValue::Lazy(Lazy::new(move || value().into())))
    }
    /// Sets `root.member` and keeps the other members. A root that is JSON is replaced.
    pub fn set_member(&mut self, root: &'static str, member: &str, value: impl Into<ScopeValue>) -> &mut Self {
        let value = value.into();
        if let Some((_, NameValue::Known(ScopeValue::Map(members)))) =
            self.names.iter_mut().find(|(known, _)| &**known == root)
        {
            Arc::make_mut(members).insert(member.into(), value);
            return self;
        }
        self.set(root, ScopeValue::map([(member, value)]))
    }
    /// A copy with one name more, such as `item`, `index` or `output`.
    pub fn with(&self, name: impl Into<Cow<'static, str>>, value: impl Into<ScopeValue>) -> Self {
        let mut scope = self.clone();
        scope.set(name, value);
        scope
    }
    /// Sets the function that derives the key of `uuid()` and `random()`. Each run needs a key of its own.
    pub fn set_random_key(&mut self, key: impl Fn() -> [u8; 32] + Send + Sync + 'static) -> &mut Self {
        self.random_key = Some(Lazy::new(key));
        self
    }
    pub(super) fn random_key(&self) -> Option<&[u8; 32]> {
        self.random_key.as_ref().map(|key| key.get())
    }
    /// Sets values that take the place of those of `uuid()` and `random()`.
    pub fn set_injected(&mut self, injected: Arc<InjectedDraws>) -> &mut Self {
        self.injected = Some(injected);
        self
    }
    pub(super) fn injected(&self, kind: PseudoRandom, name: &str) -> Option<&Value> {
        let injected = self.injected.as_ref()?;
        match kind {
            PseudoRandom::Uuid => injected.uuids.get(name),
            PseudoRandom::Random => injected.randoms.get(name),
        }
    }
    /// Sets which values are opaque: an expression can pass them on, but has no access to their parts.
    pub fn set_opaque(&mut self, is_opaque: impl Fn(&Value) -> bool + Send + Sync + 'static) -> &mut Self {
        self.opaque = Some(Opaque(Arc::new(is_opaque)));
        self
    }
    /// Whether a value is opaque.
    pub fn is_opaque(&self, value: &Value) -> bool {
        value.is_object() && self.opaque.as_ref().is_some_and(|opaque| (opaque.0)(value))
    }
    /// Whether a list or map contains an opaque value, at any depth.
    pub fn contains_opaque(&self, value: &Value) -> bool {
        let is_or_contains = |member: &Value| self.is_opaque(member) || self.contains_opaque(member);
        match value {
            Value::Array(items) => items.iter().any(is_or_contains),
            Value::Object(members) => members.values().any(is_or_contains),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }
    /// The value of a root name.
    pub fn get(&self, name: &str) -> Option<&ScopeValue> {
        let (_, entry) = self.names.iter().find(|(known, _)| &**known == name)?;
        Some(match entry {
            NameValue::Known(value) => value,
            NameValue::Lazy(value) => value.get(),
        })
    }
    /// All root names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(name, _)| &**name)
    }
}
