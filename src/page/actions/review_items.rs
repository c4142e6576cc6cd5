//! The items of a review: what the step would do with each, and the choice for it.

use maud::{Markup, html};
use serde_json::Value;

use crate::admin::types::ReviewRow;
use crate::page::actions::amounts::sums;
use crate::page::actions::form_state::FormState;
use crate::page::actions::json_text;
use crate::page::html::count;

/// Items that all have the same members, at most so many, are shown with a column for each.
const COLUMNS_MAX: usize = 6;
/// The choice for the items for which none was made.
pub(in crate::page) const REST: &str = "rest";

/// The name of the choice for an item.
pub(in crate::page) fn choice_name(index: u32) -> String {
    format!("item-{index}")
}

/// The table of the items.
pub(in crate::page) fn table(items: &[ReviewRow], state: &FormState<'_>, id: &str) -> Markup {
    let columns = columns(items);
    html! {
        (totals(items))
        @for error in state.errors_at("/items") { p.field-error { "▲ " (error) } }
        div.scroll tabindex="0" role="region" aria-label="Items to decide about" {
            table.review {
                thead {
                    tr {
                        th scope="col" { "Item" }
                        th scope="col" { "Decision" }
                        th scope="col" { "What would be done" }
                        @match &columns {
                            Some(columns) => @for column in columns { th scope="col" { (column) } },
                            None => th scope="col" { "With" },
                        }
                    }
                }
                tbody { @for item in items { (row(item, columns.as_deref(), state, id)) } }
            }
        }
        (rest(state, id))
    }
}

fn row(item: &ReviewRow, columns: Option<&[&str]>, state: &FormState<'_>, id: &str) -> Markup {
    let name = choice_name(item.index);
    let errors = state.errors_at(&format!("/items/{}", item.index));
    html! {
        tr.wrong[!errors.is_empty()] {
            th scope="row" { (item.index) }
            td {
                fieldset.pick {
                    legend.unseen { "Item " (item.index) }
                    (radio(state, &name, "approve", &format!("{id}-{}-a", item.index), "Approve"))
                    (radio(state, &name, "strike", &format!("{id}-{}-s", item.index), "Strike out"))
                }
                @for error in errors { p.field-error { "▲ " (error) } }
            }
            td { (item.what) }
            @match columns {
                Some(columns) => @for column in columns {
                    td.number[item.value[*column].is_number()] { (json_text::readable(&item.value[*column])) }
                },
                None => td { pre.small { (json_text::readable(&item.value)) } },
            }
        }
    }
}

fn radio(state: &FormState<'_>, name: &str, value: &str, id: &str, label: &str) -> Markup {
    html! {
        span.radio {
            input type="radio" id=(id) name=(name) value=(value) checked[state.is_chosen(name, value, false)];
            label for=(id) { (label) }
        }
    }
}

/// What happens with the items for which nothing was chosen.
fn rest(state: &FormState<'_>, id: &str) -> Markup {
    let radio = |value: &str, text: &str, is_first: bool| {
        let id = format!("{id}-rest-{value}");
        html! {
            div.radio {
                input type="radio" id=(id) name=(REST) value=(value) checked[state.is_chosen(REST, value, is_first)];
                label for=(id) { (text) }
            }
        }
    };
    html! {
        fieldset.group {
            legend { "Items for which nothing is chosen above" }
            (radio("ask", "Do not send the decision: I choose for each item", true))
            (radio("approve", "Approve all of them", false))
            (radio("strike", "Strike out all of them", false))
        }
    }
}

/// How many items there are, and what they sum up to.
fn totals(items: &[ReviewRow]) -> Markup {
    let sums = sums(items);
    html! {
        p {
            strong { (count(items.len() as u64)) @if items.len() == 1 { " item" } @else { " items" } }
            @for sum in &sums { ", " (sum.name) " in all: " strong.number { (sum.text) } }
            "."
        }
    }
}

/// The members that all items have, if these are all and are simple values.
fn columns(items: &[ReviewRow]) -> Option<Vec<&str>> {
    let first = items.first()?.value.as_object()?;
    let names: Vec<&str> = first.keys().map(String::as_str).collect();
    let fits = |item: &ReviewRow| {
        item.value.as_object().is_some_and(|members| {
            let is_simple = |value: &Value| !value.is_object() && !value.is_array();
            members.len() == names.len() && names.iter().all(|name| members.get(*name).is_some_and(is_simple))
        })
    };
    ((1..=COLUMNS_MAX).contains(&names.len()) && items.iter().all(fits)).then_some(names)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::page::actions::form_state::wrong;
    use crate::page::request::Fields;

    fn items() -> Vec<ReviewRow> {
        let item = |index, amount: f64| ReviewRow {
            index,
            what: "POST https://bank/refunds <script>".into(),
            value: json!({ "customer": "\u{202e}evil\"", "amount": amount }),
        };
        vec![item(0, 12.5), item(3, 7.25)]
    }

    #[test]
    fn each_item_has_a_choice_and_amounts_are_summed() {
        let shown = table(&items(), &FormState::default(), "r").into_string();
        assert!(shown.contains(r#"<th scope="col">amount</th>"#), "{shown}");
        assert!(shown.contains("2 items") && shown.contains(r#"<strong class="number">19.75</strong>"#), "{shown}");
        assert_eq!(shown.matches(r#"name="item-3""#).count(), 2);
        assert!(shown.contains("&lt;script&gt;") && !shown.contains("<script"), "{shown}");
        assert_eq!(shown.matches(" checked").count(), 1, "only the choice for the rest: {shown}");
    }

    #[test]
    fn a_choice_that_was_sent_and_its_error_are_shown() {
        let fields = Fields(vec![("item-3".into(), "strike".into()), (REST.into(), "ask".into())]);
        let state = FormState::wrong(&fields, vec![wrong("/items/0", "choose")]);
        let shown = table(&items(), &state, "r").into_string();
        assert!(shown.contains(r#"name="item-3" value="strike" checked"#), "{shown}");
        assert!(shown.contains(r#"<tr class="wrong">"#) && shown.contains("▲ choose"), "{shown}");
    }

    #[test]
    fn items_of_other_shapes_are_shown_as_json() {
        let mut items = items();
        items[1].value = json!({ "customer": { "name": "x" }, "amount": 1 });
        let shown = table(&items, &FormState::default(), "r").into_string();
        assert!(shown.contains(r#"<th scope="col">With</th>"#) && shown.contains("<pre"), "{shown}");
    }
}
