//! Orders: what a client may ask for and what it gets.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// Most different products in one order.
pub const MAX_ITEMS: usize = 50;
/// Most pieces of one product in one order.
pub const MAX_QUANTITY: i64 = 100;
/// Most that an order may cost in paisa, the largest DECIMAL(10,2).
pub const MAX_TOTAL_MINOR: i64 = 9_999_999_999;

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderItem {
    /// The product.
    pub product_id: i64,
    /// Its name when it was ordered.
    pub name: String,
    /// Pieces, 1 or more.
    pub quantity: i64,
    /// Price of one in paisa when it was ordered.
    pub unit_price_minor: i64,
}

/// A placed order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Number for people; hard to guess, so whoever knows it may see the order.
    pub number: String,
    /// Customer, if one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_id: Option<i64>,
    /// `placed`, `paid`, `shipped`, `delivered` or `cancelled`.
    pub status: String,
    /// Lines in order of product identifiers.
    pub items: Vec<OrderItem>,
    /// Sum in paisa.
    pub total_minor: i64,
    /// Always [`crate::product::CURRENCY`].
    pub currency: &'static str,
    /// When it was placed.
    pub created_at: Timestamp,
    /// Position in lists; not shown.
    #[serde(skip)]
    pub id: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OrderBody {
    items: Vec<ItemBody>,
    customer_id: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ItemBody {
    product_id: i64,
    quantity: i64,
}

/// An order that can be tried: validated, each product once, in ascending order of product.
///
/// The fixed order of products is what keeps two orders from waiting for each other in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrder {
    /// Number the order will have.
    pub number: String,
    /// Anonymous session that orders.
    pub session: String,
    /// Customer, if given.
    pub customer_id: Option<i64>,
    /// Pieces by product.
    pub items: BTreeMap<i64, i64>,
    /// Key that makes a retry safe.
    pub idempotency_key: Option<String>,
    /// When it is placed.
    pub now: Timestamp,
}

impl NewOrder {
    /// Reads and checks a request.
    ///
    /// # Errors
    /// A problem that names the field.
    pub fn read(
        body: &[u8],
        idempotency_key: Option<&str>,
        session: String,
        now: Timestamp,
    ) -> Result<Self, Problem> {
        // serde_json's messages speak of the client's own input only.
        let body: OrderBody =
            serde_json::from_slice(body).map_err(|error| Problem::bad_request(error.to_string()))?;
        if body.items.is_empty() || body.items.len() > MAX_ITEMS {
            return Err(Problem::invalid("items", format!("there must be 1 to {MAX_ITEMS}")));
        }
        let mut items = BTreeMap::new();
        for (index, item) in body.items.iter().enumerate() {
            if !(1..=i64::from(i32::MAX)).contains(&item.product_id) {
                let detail = "it must be the id of a product";
                return Err(Problem::invalid(format!("items[{index}].productId"), detail));
            }
            if !(1..=MAX_QUANTITY).contains(&item.quantity) {
                let detail = format!("it must be 1 to {MAX_QUANTITY}");
                return Err(Problem::invalid(format!("items[{index}].quantity"), detail));
            }
            if items.insert(item.product_id, item.quantity).is_some() {
                let detail = "name each product once";
                return Err(Problem::invalid(format!("items[{index}].productId"), detail));
            }
        }
        if body.customer_id.is_some_and(|id| !(1..=i64::from(i32::MAX)).contains(&id)) {
            return Err(Problem::invalid("customerId", "it must be a positive whole number"));
        }
        let idempotency_key = idempotency_key.map(check_key).transpose()?;
        let number = new_number(now);
        Ok(Self { number, session, customer_id: body.customer_id, items, idempotency_key, now })
    }

    /// What the request asks for, the same text for the same wish: told apart under one idempotency key.
    pub fn fingerprint(&self) -> String {
        let items: Vec<String> = self.items.iter().map(|(id, quantity)| format!("{id}x{quantity}")).collect();
        format!("customer={};items={}", self.customer_id.unwrap_or(0), items.join(","))
    }
}

fn check_key(key: &str) -> Result<String, Problem> {
    if (8..=128).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(key.to_owned())
    } else {
        let detail = "it must be 8 to 128 printable characters without spaces, for example a UUID";
        Err(Problem::invalid("Idempotency-Key", detail))
    }
}

/// `DC-` with the day in Dhaka and ten random characters that cannot be misread (Crockford's base 32):
/// 50 bits, so that numbers neither collide nor can be guessed.
fn new_number(now: Timestamp) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    // Bangladesh has had UTC+6 without summer time since 2010.
    let day = now.to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(6)));
    // Bytes 6 and 8 of a version 4 UUID hold fixed bits.
    let random = uuid::Uuid::new_v4().into_bytes();
    let code: String = [0, 1, 2, 3, 4, 5, 7, 9, 10, 11]
        .iter()
        .map(|index| char::from(ALPHABET[usize::from(random[*index] & 31)]))
        .collect();
    format!("DC-{}-{code}", day.strftime("%y%m%d"))
}

/// Whether `number` has the form of an order number.
pub fn is_number(number: &str) -> bool {
    (4..=50).contains(&number.len())
        && number.starts_with("DC-")
        && number.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str, key: Option<&str>) -> Result<NewOrder, Problem> {
        NewOrder::read(body.as_bytes(), key, "s".to_owned(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn equal_wishes_have_equal_fingerprints() {
        let a =
            read(r#"{"items":[{"productId":2,"quantity":1},{"productId":1,"quantity":3}]}"#, None).unwrap();
        let b =
            read(r#"{"items":[{"productId":1,"quantity":3},{"quantity":1,"productId":2}]}"#, None).unwrap();
        assert_eq!(a.fingerprint(), "customer=0;items=1x3,2x1");
        assert_eq!(a.fingerprint(), b.fingerprint());
        assert_ne!(a.number, b.number);
    }

    #[test]
    fn numbers_carry_the_day_in_dhaka() {
        let late: Timestamp = "2025-12-10T19:00:00Z".parse().unwrap();
        let number = new_number(late);
        assert!(number.starts_with("DC-251211-"), "{number}");
        assert_eq!(number.len(), 20);
        assert!(is_number(&number));
        assert!(!is_number("DC-'; drop"));
    }

    #[test]
    fn unusable_orders_are_refused() {
        let many: Vec<String> = (1..=51).map(|id| format!(r#"{{"productId":{id},"quantity":1}}"#)).collect();
        let many = format!(r#"{{"items":[{}]}}"#, many.join(","));
        for body in [
            "",
            "[]",
            "{}",
            r#"{"items":[]}"#,
            r#"{"items":[{"productId":1,"quantity":0}]}"#,
            r#"{"items":[{"productId":1,"quantity":101}]}"#,
            r#"{"items":[{"productId":1,"quantity":1.5}]}"#,
            r#"{"items":[{"productId":0,"quantity":1}]}"#,
            r#"{"items":[{"productId":9999999999,"quantity":1}]}"#,
            r#"{"items":[{"productId":1,"quantity":1},{"productId":1,"quantity":1}]}"#,
            r#"{"items":[{"productId":1,"quantity":1}],"customerId":-1}"#,
            r#"{"items":[{"productId":1,"quantity":1}],"price":1}"#,
            many.as_str(),
        ] {
            assert!(read(body, None).is_err(), "{body}");
        }
        let good = r#"{"items":[{"productId":1,"quantity":1}]}"#;
        assert!(read(good, Some("short")).is_err());
        assert!(read(good, Some("has a space")).is_err());
        assert!(read(good, Some("8d1f0c1e-1")).is_ok());
    }
}
