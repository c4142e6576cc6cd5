//! Fields of forms, each with its label, its hint, and what is wrong with it.

use maud::{Markup, html};

use crate::page::actions::form_state::FormState;

/// A field: what is the same for every kind of input.
pub(in crate::page) struct FormField<'a> {
    /// The id of the input in the page; unique, without spaces.
    pub id: &'a str,
    /// The name of the input.
    pub name: &'a str,
    pub label: &'a str,
    pub hint: &'a str,
    /// Whether a browser refuses to send the form without it.
    pub is_required: bool,
}

impl FormField<'_> {
    fn hint_id(&self) -> String {
        format!("{}-hint", self.id)
    }

    fn error_id(&self) -> String {
        format!("{}-error", self.id)
    }

    /// The ids of what describes the input, for `aria-describedby`.
    fn described_by(&self, errors: &[&str]) -> Option<String> {
        match (self.hint.is_empty(), errors.is_empty()) {
            (true, true) => None,
            (false, true) => Some(self.hint_id()),
            (true, false) => Some(self.error_id()),
            (false, false) => Some(format!("{} {}", self.error_id(), self.hint_id())),
        }
    }

    /// The label and the hint before an input, and the errors behind it.
    fn around(&self, errors: &[&str], input: &Markup) -> Markup {
        html! {
            div.field {
                label for=(self.id) { (self.label) @if self.is_required { " " span.hint { "(required)" } } }
                @if !self.hint.is_empty() { p.hint #(self.hint_id()) { (self.hint) } }
                (input)
                @if !errors.is_empty() {
                    p.field-error #(self.error_id()) { @for error in errors { span { "▲ " (error) " " } } }
                }
            }
        }
    }

    /// A field of one line. `kind` is the input's type, `mode` which keyboard a touch screen offers.
    pub(in crate::page) fn line(&self, state: &FormState<'_>, kind: &str, mode: Option<&str>, first: &str) -> Markup {
        let errors = state.errors_below(self.name);
        let input = html! {
            input id=(self.id) name=(self.name) type=(kind) inputmode=[mode] value=(state.text_or(self.name, first))
                required[self.is_required] aria-invalid=[invalid(&errors)]
                aria-describedby=[self.described_by(&errors)] autocomplete="off";
        };
        self.around(&errors, &input)
    }

    /// A field of several lines.
    pub(in crate::page) fn lines(&self, state: &FormState<'_>, rows: usize, class: &str, first: &str) -> Markup {
        let errors = state.errors_below(self.name);
        let input = html! {
            textarea class=(class) id=(self.id) name=(self.name) rows=(rows) required[self.is_required]
                aria-invalid=[invalid(&errors)] aria-describedby=[self.described_by(&errors)]
                spellcheck=[(class == "json").then_some("false")] {
                // A browser drops a line end at the beginning of a text area.
                "\n" (state.text_or(self.name, first))
            }
        };
        self.around(&errors, &input)
    }

    /// A field for JSON, as high as its content.
    pub(in crate::page) fn json(&self, state: &FormState<'_>, first: &str) -> Markup {
        let rows = state.text_or(self.name, first).lines().count().clamp(3, 20);
        self.lines(state, rows, "json", first)
    }

    /// A choice from a list: value and text of each option. `first` is the value that is chosen first; empty for none.
    pub(in crate::page) fn choice(&self, state: &FormState<'_>, options: &[(String, String)], first: &str) -> Markup {
        let errors = state.errors_below(self.name);
        let chosen = state.text_or(self.name, first);
        let input = html! {
            select id=(self.id) name=(self.name) required[self.is_required] aria-invalid=[invalid(&errors)]
                aria-describedby=[self.described_by(&errors)] {
                @if !self.is_required || first.is_empty() {
                    option value="" selected[chosen.is_empty()] {
                        @if self.is_required { "Choose …" } @else { "No choice" }
                    }
                }
                @for (value, text) in options {
                    option value=(value) selected[value == chosen] { (text) }
                }
            }
        };
        self.around(&errors, &input)
    }
}

fn invalid(errors: &[&str]) -> Option<&'static str> {
    (!errors.is_empty()).then_some("true")
}

/// The field for a note or reason; `with_what` it is recorded.
pub(in crate::page) fn free_text(state: &FormState<'_>, id: &str, name: &str, label: &str, with_what: &str) -> Markup {
    let hint = format!("Recorded with {with_what}, for everybody to read.");
    FormField { id, name, label, hint: &hint, is_required: false }.lines(state, 2, "", "")
}

/// Under which name an action is recorded.
pub(in crate::page) fn recorded_as(name: Option<&str>) -> Markup {
    html! {
        "Recorded with the time and "
        @match name {
            Some(name) => { "your name, " (name) "." }
            None => "without a name: you have given none.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::actions::form_state::wrong;
    use crate::page::request::Fields;

    #[test]
    fn a_field_names_its_hint_and_its_error() {
        let fields = Fields(vec![("/a".into(), "</textarea><script>\"".into())]);
        let state = FormState::wrong(&fields, vec![wrong("/a", "is <b>")]);
        let field = FormField { id: "f-1", name: "/a", label: "A & B", hint: "why", is_required: true };
        let shown = field.lines(&state, 2, "json", "").into_string();
        assert!(shown.contains(r#"<label for="f-1">A &amp; B"#), "{shown}");
        assert!(shown.contains(r#"aria-describedby="f-1-error f-1-hint""#), "{shown}");
        assert!(shown.contains(r#"aria-invalid="true""#) && shown.contains("is &lt;b&gt;"), "{shown}");
        assert!(shown.contains("&lt;/textarea&gt;&lt;script&gt;") && !shown.contains("<script"), "{shown}");
    }

    #[test]
    fn a_choice_that_was_sent_stays_chosen() {
        let fields = Fields(vec![("/a".into(), "1".into())]);
        let options = [("0".to_owned(), "red".to_owned()), ("1".to_owned(), "green".to_owned())];
        let field = FormField { id: "f", name: "/a", label: "Colour", hint: "", is_required: true };
        let shown = field.choice(&FormState::filled(&fields), &options, "").into_string();
        assert!(shown.contains(r#"<option value="1" selected>green"#), "{shown}");
        assert!(!shown.contains("aria-invalid") && !shown.contains("aria-describedby"), "{shown}");
    }
}
