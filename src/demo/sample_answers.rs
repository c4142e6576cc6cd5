//! Computes prices and the texts of campaigns, for the sample services.
//!
//! PURE. The same input gives the same output, so that both arms get the same answers.

use serde_json::{Value, json};

/// The price of one piece in cents; `None` for an article that nobody sells.
pub fn price_in_cents(sku: &str) -> Option<u64> {
    // There is no list of articles: the price is computed from the name.
    (!sku.is_empty() && sku.len() <= 32).then(|| 199 + u64::from(checksum(sku) % 4_801))
}

/// A quote: the lines sorted by article, the subtotal, and the discount for larger orders.
///
/// # Errors
/// An article is not sold, or the items are malformed; the text says which.
pub fn quote(items: &Value) -> Result<Value, String> {
    let items = items.as_array().filter(|items| !items.is_empty()).ok_or("`items` must be a list of articles")?;
    let mut lines = Vec::with_capacity(items.len());
    let (mut pieces, mut cents) = (0, 0);
    for item in items {
        let sku = item["sku"].as_str().ok_or("an item has no `sku`")?;
        let qty =
            item["qty"].as_u64().filter(|qty| (1..=1_000).contains(qty)).ok_or("an item's `qty` must be 1 to 1,000")?;
        let price = price_in_cents(sku).ok_or_else(|| format!("nobody sells `{sku}`"))?;
        pieces += qty;
        cents += price * qty;
        lines.push((sku, json!({ "sku": sku, "qty": qty, "price": price as f64 / 100.0 })));
    }
    lines.sort_by(|a, b| a.0.cmp(b.0));
    let lines: Vec<Value> = lines.into_iter().map(|(_, line)| line).collect();
    let discount = if pieces >= 3 { 0.075 } else { 0.0 };
    Ok(json!({ "currency": "EUR", "subtotal": cents as f64 / 100.0, "discount": discount, "lines": lines }))
}

/// What an order costs: rounded half up to the cent.
pub fn total(quote: &Value) -> f64 {
    let subtotal = quote["subtotal"].as_f64().unwrap_or(0.0);
    let discount = quote["discount"].as_f64().unwrap_or(0.0);
    (subtotal * (1.0 - discount) * 100.0 + 0.5).floor() / 100.0
}

/// One generated asset of a campaign.
pub fn asset(kind: &str, brief: &Value) -> Value {
    let product = brief["product"].as_str().unwrap_or("something new");
    let audience = brief["audience"].as_str().unwrap_or("everybody");
    let number = checksum(&format!("{kind}|{product}|{audience}"));
    match kind {
        "headline" => json!({ "kind": kind, "text": format!("{product}, made for {audience}") }),
        "body" => json!({ "kind": kind, "text": format!("{audience} asked, we listened. {product} is here.") }),
        "image" => json!({ "kind": kind, "url": format!("https://images.example/{number:08x}.png") }),
        _ => json!({ "kind": kind, "people": 1_000 + number % 90_000 }),
    }
}

fn checksum(text: &str) -> u32 {
    text.bytes().fold(2_166_136_261, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619)) >> 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_sorts_its_lines_and_gives_a_discount_for_three_pieces() {
        let items = json!([{ "sku": "tea", "qty": 2 }, { "sku": "cup", "qty": 1 }]);
        let quote = quote(&items).expect("sold");
        assert_eq!(quote["lines"][0]["sku"], "cup");
        assert_eq!(quote["discount"].as_f64(), Some(0.075));
    }

    #[test]
    fn a_total_is_rounded_half_up() {
        assert_eq!(total(&json!({ "subtotal": 10.1, "discount": 0.075 })), 9.34);
        assert_eq!(total(&json!({ "subtotal": 0.125, "discount": 0.0 })), 0.13);
    }

    #[test]
    fn an_empty_order_or_a_quantity_of_zero_is_refused() {
        assert!(quote(&json!([])).is_err());
        assert!(quote(&json!([{ "sku": "tea", "qty": 0 }])).is_err());
    }
}
