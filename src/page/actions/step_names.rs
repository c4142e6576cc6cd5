//! Names of steps in sentences.

use maud::{Markup, html};

/// A step, with the item of a `for_each`.
pub(in crate::page) fn place(step: &str, item: Option<u32>) -> Markup {
    html! { code { (step) } @if let Some(item) = item { ", item " (item) } }
}

/// Steps, one after the other.
pub(in crate::page) fn step_list(steps: &[&str]) -> Markup {
    html! { @for (at, step) in steps.iter().enumerate() { @if at > 0 { ", " } code { (step) } } }
}
