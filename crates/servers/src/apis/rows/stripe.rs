//! Customers of Stripe.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Content;
use crate::apis::sample;

pub(crate) const FIELDS: [&str; 9] =
    ["address", "balance", "description", "email", "metadata", "name", "phone", "preferred_locales", "tax_exempt"];

pub(crate) const CONTENT: Content = Content { id, create, update };

fn id(row: &Value) -> String {
    row["id"].as_str().unwrap_or_default().to_owned()
}

/// Sample row with this number.
pub(crate) fn row(number: u64) -> Value {
    let mut content = json!({
        "name": sample::name(number), "email": format!("customer+{number}@example.com"), "description": sample::text(number),
        "metadata": {"order_id": (sample::BIG + number).to_string()},
    });
    if sample::one_in(number, 3) {
        content["address"] = json!({
            "city": "Zürich", "country": "CH", "line1": "Bahnhofstraße 1", "line2": null, "postal_code": "8001", "state": null,
        });
    }
    create(number, &content, sample::time(number))
}

pub(crate) fn create(number: u64, content: &Value, now: Timestamp) -> Value {
    let mut row = json!({
        "id": format!("cus_{}", sample::key(number, 14)), "object": "customer", "address": null, "balance": 0, "created": now.as_second(),
        "currency": null, "default_source": null, "delinquent": false, "description": null, "email": null,
        "invoice_prefix": sample::key(number, 8).to_uppercase(), "invoice_settings": {"custom_fields": null, "footer": null},
        "livemode": false, "metadata": {}, "name": null, "next_invoice_sequence": 1, "phone": null, "preferred_locales": [],
        "shipping": null, "tax_exempt": "none", "test_clock": null,
    });
    update(&mut row, content, now);
    row
}

/// Sets what is there; an empty text unsets a field, or a member of `metadata`.
pub(crate) fn update(row: &mut Value, content: &Value, _: Timestamp) {
    for (name, value) in sample::object(content) {
        match (name.as_str(), value) {
            ("metadata", Value::Object(members)) => {
                for (member, value) in members {
                    row["metadata"][&member] = value;
                }
                let keep = |_: &String, value: &mut Value| value != "" && !value.is_null();
                row["metadata"].as_object_mut().into_iter().for_each(|members| members.retain(keep));
            }
            ("metadata", _) => row["metadata"] = json!({}),
            ("balance", Value::String(text)) => row["balance"] = text.parse::<i64>().unwrap_or(0).into(),
            (_, Value::String(text)) if text.is_empty() => row[&name] = Value::Null,
            (_, value) => row[&name] = value,
        }
    }
}
