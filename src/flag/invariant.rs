//! Conditions that the engine's answers to callers have to meet (`invariants:`).

use std::borrow::Cow;

use crate::expression::{EFFECTS, Expression, shown_condition};
use crate::secret::{RedactRules, Secret};

/// The most invariants of a route.
pub const INVARIANTS_MAX: usize = 32;
/// The most bytes of the name of an invariant.
pub const INVARIANT_NAME_BYTES_MAX: usize = 80;

/// A condition that each answer of the engine to a caller has to meet.
#[derive(Clone, Debug)]
pub struct Invariant {
    /// Its name: unique in its route, a metric label.
    pub name: String,
    /// Both conditions as they are in the file, but for literals that may be secrets; stored and shown. An invariant
    /// whose text is changed counts as another one: what was counted before is dropped.
    pub text: String,
    /// The condition.
    pub that: Expression,
    /// For which answers it is judged; `None`: for those below 400.
    pub when: Option<Expression>,
    /// What its name and its text are made of.
    pub written: WrittenInvariant,
}

/// An invariant as it is in the file. Its conditions are not shown, because they may compare with secrets.
#[derive(Clone, Debug)]
pub struct WrittenInvariant {
    name: Option<String>,
    that: Secret,
    when: Option<Secret>,
}

impl WrittenInvariant {
    /// An invariant with these texts; without a name, it is named by its condition.
    pub fn new(name: Option<&str>, that: &str, when: Option<&str>) -> Self {
        Self { name: name.map(str::to_owned), that: Secret::new(that), when: when.map(Secret::new) }
    }

    /// Its name. Without a name in the file (in a list), the beginning of its condition. If literals of the condition
    /// may be secrets, they are left out and a hash is added, because without these literals two conditions may be
    /// equal.
    pub fn name(&self, redact: &RedactRules) -> String {
        let that = self.that.reveal();
        match (&self.name, shown_condition(that, redact)) {
            (Some(name), _) => name.clone(),
            (None, Cow::Borrowed(text)) => cut(text, INVARIANT_NAME_BYTES_MAX).to_owned(),
            (None, Cow::Owned(shown)) => {
                let hash = redact.text_hash().suffix(that);
                format!("{}{hash}", cut(&shown, INVARIANT_NAME_BYTES_MAX - hash.len()))
            }
        }
    }

    /// What is kept and shown of its conditions.
    pub fn text(&self, redact: &RedactRules) -> String {
        let text_of = |that: &str, when: Option<&str>| match when {
            Some(when) => format!("{that} when {when}"),
            None => that.to_owned(),
        };
        let (that, when) = (self.that.reveal(), self.when.as_ref().map(Secret::reveal));
        let shown_when = when.map(|when| shown_condition(when, redact));
        let shown = text_of(&shown_condition(that, redact), shown_when.as_deref());
        redact.text_hash().append_if_masked(&text_of(that, when), shown)
    }
}

/// The beginning of a text.
fn cut(text: &str, bytes_max: usize) -> &str {
    let text = text.trim();
    &text[..text.floor_char_boundary(bytes_max)]
}

impl Invariant {
    /// The same invariant, with the name and the text that it has under these rules of what is secret.
    #[must_use]
    pub fn shown_with(&self, redact: &RedactRules) -> Self {
        Self { name: self.written.name(redact), text: self.written.text(redact), ..self.clone() }
    }
    /// Whether it reads what is known only when the run has ended: the run's calls or its status.
    pub fn reads_the_run(&self) -> bool {
        self.that.reads().iter().any(|read| ["run", "intents", EFFECTS].contains(&read.root()))
    }
}
