//! Orders: what a client may ask for and what it gets.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::problem::{Checks, Problem};
use crate::whole::{self, Whole};

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

/// How far an order has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its pieces are taken from stock.
    Placed,
    /// Paid for.
    Paid,
    /// On its way.
    Shipped,
    /// Arrived.
    Delivered,
    /// Given up; its pieces are back in stock.
    Cancelled,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Placed, Self::Paid, Self::Shipped, Self::Delivered, Self::Cancelled];

    /// The word for it in the database and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Paid => "paid",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads [`Status::word`].
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.word() == word)
    }

    /// Whether an order may go from here to `next`. Parcels on their way cannot be cancelled.
    pub fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Placed, Self::Paid | Self::Cancelled)
                | (Self::Paid, Self::Shipped | Self::Cancelled)
                | (Self::Shipped, Self::Delivered)
        )
    }
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
    /// How far it has come.
    pub status: Status,
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
    /// Session that placed it; not shown.
    #[serde(skip)]
    pub session: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OrderBody {
    items: Vec<ItemBody>,
    customer_id: Option<Whole>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CheckoutBody {
    customer_id: Option<Whole>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ItemBody {
    #[serde(deserialize_with = "whole::plain")]
    product_id: i64,
    #[serde(deserialize_with = "whole::plain")]
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
    /// Pieces by product; for a checkout they are read from the cart when it is placed.
    pub items: BTreeMap<i64, i64>,
    /// Whether it is the session's cart that is ordered.
    pub from_cart: bool,
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
        let mut checks = Checks::default();
        let count = (1..=MAX_ITEMS).contains(&body.items.len());
        checks.check(count, "items", format!("there must be 1 to {MAX_ITEMS}"));
        let (mut items, mut twice) = (BTreeMap::new(), None);
        for (index, item) in body.items.iter().enumerate().take(MAX_ITEMS) {
            let product = (1..=i64::from(i32::MAX)).contains(&item.product_id);
            if items.insert(item.product_id, item.quantity).is_some() {
                twice = twice.or(Some(format!("items[{index}].productId")));
            }
            checks.check(product, format!("items[{index}].productId"), "it must be the id of a product");
            let quantity = (1..=MAX_QUANTITY).contains(&item.quantity);
            let detail = format!("it must be 1 to {MAX_QUANTITY}");
            checks.check(quantity, format!("items[{index}].quantity"), detail);
        }
        let customer_id = check_customer(&mut checks, body.customer_id);
        let idempotency_key = check_key(&mut checks, idempotency_key);
        checks.finish()?;
        if let Some(field) = twice {
            return Err(Problem::unprocessable(field, "name each product once"));
        }
        let number = new_number(now);
        Ok(Self { number, session, customer_id, items, from_cart: false, idempotency_key, now })
    }

    /// Reads and checks a request to order the session's cart. No body is an empty object.
    ///
    /// # Errors
    /// A problem that names the field.
    pub fn read_checkout(
        body: &[u8],
        idempotency_key: Option<&str>,
        session: String,
        now: Timestamp,
    ) -> Result<Self, Problem> {
        let body = if body.is_empty() { b"{}" } else { body };
        let body: CheckoutBody =
            serde_json::from_slice(body).map_err(|error| Problem::bad_request(error.to_string()))?;
        let mut checks = Checks::default();
        let customer_id = check_customer(&mut checks, body.customer_id);
        let idempotency_key = check_key(&mut checks, idempotency_key);
        checks.finish()?;
        let (number, items) = (new_number(now), BTreeMap::new());
        Ok(Self { number, session, customer_id, items, from_cart: true, idempotency_key, now })
    }

    /// What the request asks for, the same text for the same wish: told apart under one idempotency key.
    pub fn fingerprint(&self) -> String {
        if self.from_cart {
            // The first attempt emptied the cart, so what was in it cannot be compared.
            return format!("customer={};cart={}", self.customer_id.unwrap_or(0), self.session);
        }
        let items: Vec<String> = self.items.iter().map(|(id, quantity)| format!("{id}x{quantity}")).collect();
        format!("customer={};items={}", self.customer_id.unwrap_or(0), items.join(","))
    }
}

fn check_customer(checks: &mut Checks, customer: Option<Whole>) -> Option<i64> {
    let customer = customer.map(|Whole(id)| id);
    let good = customer.is_none_or(|id| (1..=i64::from(i32::MAX)).contains(&id));
    checks.check(good, "customerId", "it must be a positive whole number up to 2147483647");
    customer
}

fn check_key(checks: &mut Checks, key: Option<&str>) -> Option<String> {
    let key = key?;
    let good = (8..=128).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    let detail = "it must be 8 to 128 printable characters without spaces, for example a UUID";
    checks.check(good, "Idempotency-Key", detail);
    Some(key.to_owned())
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

    #[test]
    fn orders_only_go_forward() {
        use Status::{Cancelled, Delivered, Paid, Placed, Shipped};
        let legal =
            [(Placed, Paid), (Placed, Cancelled), (Paid, Shipped), (Paid, Cancelled), (Shipped, Delivered)];
        for from in Status::ALL {
            assert_eq!(Status::parse(from.word()), Some(from));
            for to in Status::ALL {
                assert_eq!(from.may_become(to), legal.contains(&(from, to)), "{from:?} to {to:?}");
            }
        }
    }

    #[test]
    fn a_checkout_needs_no_body_and_is_told_apart_by_its_session() {
        let read = |body: &str, session: &str| {
            NewOrder::read_checkout(body.as_bytes(), None, session.to_owned(), Timestamp::UNIX_EPOCH)
        };
        assert_eq!(read("", "a").unwrap().fingerprint(), read("{}", "a").unwrap().fingerprint());
        assert_ne!(read("", "a").unwrap().fingerprint(), read("", "b").unwrap().fingerprint());
        assert!(read(r#"{"items":[]}"#, "a").is_err() && read(r#"{"customerId":0}"#, "a").is_err());
    }
}
