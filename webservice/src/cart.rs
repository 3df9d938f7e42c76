//! Carts: what an anonymous session means to buy.

use serde::{Deserialize, Serialize};

use crate::order::MAX_QUANTITY;
use crate::problem::{Checks, Problem};
use crate::product::CURRENCY;

/// One line of a cart, with what the product costs and has now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CartItem {
    /// The product.
    pub product_id: i64,
    /// Its name.
    pub name: String,
    /// Pieces, 1 to [`MAX_QUANTITY`].
    pub quantity: i64,
    /// Price of one in paisa.
    pub unit_price_minor: i64,
    /// Pieces in stock; fewer than `quantity` cannot be bought.
    pub stock: i64,
}

/// A cart. Its prices are today's: an order fixes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cart {
    /// Lines in the order of product identifiers.
    pub items: Vec<CartItem>,
    /// Sum in paisa.
    pub total_minor: i64,
    /// Always [`CURRENCY`].
    pub currency: &'static str,
}

impl Cart {
    /// Adds the lines up.
    pub fn new(items: Vec<CartItem>) -> Self {
        let total_minor = items.iter().map(|item| item.quantity * item.unit_price_minor).sum();
        Self { items, total_minor, currency: CURRENCY }
    }
}

/// Why a line was not put into a cart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CartRefusal {
    /// There is no such product.
    UnknownProduct,
    /// The cart has [`crate::order::MAX_ITEMS`] products already.
    Full,
}

/// The body of a request that sets a line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantityBody {
    #[serde(deserialize_with = "crate::whole::plain")]
    quantity: i64,
}

impl QuantityBody {
    /// The number of pieces.
    ///
    /// # Errors
    /// It is out of range.
    pub fn check(&self) -> Result<i64, Problem> {
        let mut checks = Checks::default();
        checks.check(
            (1..=MAX_QUANTITY).contains(&self.quantity),
            "quantity",
            format!("it must be 1 to {MAX_QUANTITY}"),
        );
        checks.finish()?;
        Ok(self.quantity)
    }
}
