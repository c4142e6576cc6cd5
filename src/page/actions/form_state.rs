//! The state of a form: as it is offered first, or as a person sent it, with what is wrong with it.

use std::collections::HashMap;

use maud::{Markup, html};

use crate::admin::types::{ApiProblem, ValueError};
use crate::page::failure::problem_box;
use crate::page::html::Frame;
use crate::page::request::{Fields, Visit};

/// Who looks at a form, and what this person may do.
pub(in crate::page) struct Person<'a> {
    /// The frame of the page that the form is on.
    pub frame: &'a Frame,
    /// The name that would be recorded; `None` if the person gave none.
    pub name: Option<&'a str>,
    /// Whether the person may answer, decide and give commands.
    pub may_decide: bool,
    /// Whether the person may start runs and send signals.
    pub may_run: bool,
}

impl<'a> Person<'a> {
    /// The person of a visit.
    pub(in crate::page) fn of(visit: &'a Visit) -> Self {
        let name = visit.frame.viewer.as_ref().and_then(|viewer| viewer.name());
        Self { frame: &visit.frame, name, may_decide: visit.may("decide"), may_run: visit.may("run") }
    }
}

/// A form as it is shown. The name of each of its fields is the JSON pointer of the value in the request to the API, so
/// that what the API says about a value stands at its field.
#[derive(Default)]
pub(in crate::page) struct FormState<'a> {
    /// What was typed, by the name of the field; `None` if the form is offered for the first time.
    sent: Option<HashMap<&'a str, Vec<&'a str>>>,
    problem: Option<ApiProblem>,
    errors: Vec<ValueError>,
}

impl<'a> FormState<'a> {
    /// A form that was sent, and that the API refused.
    pub(in crate::page) fn refused(fields: &'a Fields, problem: ApiProblem) -> Self {
        let errors = problem.errors.clone();
        Self { sent: Some(by_name(fields)), problem: Some(problem), errors }
    }

    /// A form that was sent and has errors, for which reason it did not reach the API.
    pub(in crate::page) fn wrong(fields: &'a Fields, errors: Vec<ValueError>) -> Self {
        Self { sent: Some(by_name(fields)), problem: None, errors }
    }

    /// A form with these values that nobody has sent yet: those of a link.
    pub(in crate::page) fn filled(fields: &'a Fields) -> Self {
        Self { sent: (!fields.0.is_empty()).then(|| by_name(fields)), problem: None, errors: Vec::new() }
    }

    /// Whether the form was sent, and not accepted.
    pub(in crate::page) fn is_refused(&self) -> bool {
        self.problem.is_some() || !self.errors.is_empty()
    }

    /// The text of a field: as it was typed, or else this one.
    pub(in crate::page) fn text_or<'b>(&'b self, name: &str, otherwise: &'b str) -> &'b str {
        self.all(name).and_then(|values| values.first()).copied().unwrap_or(otherwise)
    }

    /// Whether a radio button is chosen.
    pub(in crate::page) fn is_chosen(&self, name: &str, value: &str, otherwise: bool) -> bool {
        self.all(name).map_or(otherwise, |values| values.contains(&value))
    }

    fn all(&self, name: &str) -> Option<&Vec<&'a str>> {
        self.sent.as_ref()?.get(name)
    }

    /// What is wrong with the value at this pointer itself.
    pub(in crate::page) fn errors_at(&self, pointer: &str) -> Vec<&str> {
        self.errors.iter().filter(|error| error.pointer == pointer).map(|error| error.detail.as_str()).collect()
    }

    /// What is wrong with the value at this pointer or with a part of it.
    pub(in crate::page) fn errors_below(&self, pointer: &str) -> Vec<&str> {
        let is_below = |error: &&ValueError| {
            error.pointer.strip_prefix(pointer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.errors.iter().filter(is_below).map(|error| error.detail.as_str()).collect()
    }

    /// Why the form was refused; empty if it was not.
    pub(in crate::page) fn problem(&self) -> Markup {
        match &self.problem {
            Some(problem) if !problem.errors.is_empty() => {
                // `detail` and `reasons` repeat the errors.
                problem_box(&ApiProblem { detail: String::new(), reasons: Vec::new(), ..problem.clone() })
            }
            Some(problem) => problem_box(&ApiProblem { first: None, ..problem.clone() }),
            None if self.errors.is_empty() => html! {},
            None => html! {
                div.problem role="alert" {
                    p.problem-title { strong { "Nothing was sent yet" } }
                    p { "Correct what is marked below, then send the form again:" }
                    ul { @for error in &self.errors { li { (error.detail) } } }
                }
            },
        }
    }
}

fn by_name(fields: &Fields) -> HashMap<&str, Vec<&str>> {
    let mut sent: HashMap<&str, Vec<&str>> = HashMap::new();
    for (name, value) in &fields.0 {
        sent.entry(name).or_default().push(value);
    }
    sent
}

/// An error of a field, found by the page.
pub(in crate::page) fn wrong(pointer: impl Into<String>, detail: impl Into<String>) -> ValueError {
    ValueError { pointer: pointer.into(), detail: detail.into() }
}

/// A text that a person typed on several lines. Browsers send line ends as CR LF.
pub(in crate::page) fn typed_lines(text: &str) -> String {
    text.replace("\r\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_is_shown_again_and_errors_stand_at_their_fields() {
        let fields = Fields(vec![("/values/a".into(), " x".into()), ("pick".into(), "2".into())]);
        let state = FormState::wrong(&fields, vec![wrong("/values/a/0", "too <long>")]);
        assert_eq!(state.text_or("/values/a", "first"), " x");
        assert_eq!(state.text_or("/values/b", "first"), "first");
        assert!(state.is_chosen("pick", "2", false) && !state.is_chosen("pick", "1", true));
        assert_eq!(state.errors_below("/values/a"), ["too <long>"]);
        assert!(state.errors_at("/values/a").is_empty() && state.errors_below("/values/ab").is_empty());
        assert!(state.problem().into_string().contains("too &lt;long&gt;"));
        assert_eq!(FormState::default().text_or("/values/a", "first"), "first");
    }
}
