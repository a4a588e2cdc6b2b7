//! Products of Shopify.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Content;
use crate::apis::sample;

pub(crate) const CONTENT: Content = Content {
    id,
    create: |number, content, now| create(number, inner(content), now),
    update: |row, content, now| update(row, inner(content), now),
};

fn id(row: &Value) -> String {
    row["id"].to_string()
}

/// Fields of a product, which may stand in `product`.
fn inner(content: &Value) -> &Value {
    content.get("product").unwrap_or(content)
}

/// Sample row with this number.
pub(crate) fn row(number: u64) -> Value {
    let variant = |position: u64| {
        let title = if position == 1 { "Größe L" } else { "Small" };
        json!({
            "id": sample::BIG + 4 * number + position, "title": title, "position": position,
            "price": format!("{}.{:02}", number % 90, number % 100), "sku": format!("SKU-{number}-{position}"), "barcode": null,
        })
    };
    let content = json!({
        "title": sample::title(number), "body_html": sample::text(number), "vendor": sample::name(number), "product_type": "Bread",
        "tags": "rye, größer", "status": if sample::one_in(number, 5) { "draft" } else { "active" },
        "variants": (1..=1 + number % 2).map(variant).collect::<Value>(),
    });
    create(number, &content, sample::time(number))
}

pub(crate) fn create(number: u64, content: &Value, now: Timestamp) -> Value {
    let (id, time) = (sample::BIG + 2 * number, zoned(now));
    let mut row = json!({
        "id": id, "admin_graphql_api_id": format!("gid://shopify/Product/{id}"), "title": "", "body_html": null, "vendor": "Test",
        "product_type": "", "handle": format!("product-{number}"), "status": "active", "tags": "", "template_suffix": null,
        "published_scope": "web", "published_at": null, "options": [{"id": id, "product_id": id, "name": "Title", "position": 1}],
        "variants": [], "images": [], "image": null, "created_at": time, "updated_at": time,
    });
    update(&mut row, content, now);
    row
}

pub(crate) fn update(row: &mut Value, content: &Value, now: Timestamp) {
    let fields = [
        "title",
        "body_html",
        "vendor",
        "product_type",
        "handle",
        "status",
        "tags",
        "template_suffix",
        "variants",
        "published_at",
    ];
    sample::copy(content, row, &fields);
    row["updated_at"] = zoned(now).into();
}

/// Time in the zone of the shop.
fn zoned(now: Timestamp) -> String {
    let local = now - Duration::from_secs(5 * 3600);
    format!("{local:.0}").replace('Z', "-05:00")
}
