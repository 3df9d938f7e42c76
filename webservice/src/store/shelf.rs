//! What the database holds of some products while it keeps them from others, and what can be sold of it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::order::{MAX_TOTAL_MINOR, NewOrder, Order, OrderItem, Status};
use crate::product::CURRENCY;

use super::PlaceError;

/// Pieces by product.
pub(super) type Wish = BTreeMap<i64, i64>;

#[derive(Debug, Clone)]
struct Stocked {
    name: String,
    price_minor: i64,
    stock: i64,
}

/// Products by identifier. What is not on it is not sold.
#[derive(Debug, Clone, Default)]
pub(super) struct Shelf(BTreeMap<i64, Stocked>);

/// The lines of an order and their sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bill {
    pub(super) items: Vec<OrderItem>,
    pub(super) total_minor: i64,
}

impl Shelf {
    pub(super) fn put(&mut self, product: i64, name: String, price_minor: i64, stock: i64) {
        self.0.insert(product, Stocked { name, price_minor, stock });
    }

    /// Whether there is enough for all of `wishes` together.
    pub(super) fn covers<'a>(&self, wishes: impl IntoIterator<Item = &'a Wish>) -> bool {
        let mut wanted = Wish::new();
        for (product, quantity) in wishes.into_iter().flatten() {
            *wanted.entry(*product).or_default() += quantity;
        }
        wanted
            .iter()
            .all(|(product, quantity)| self.0.get(product).is_some_and(|stocked| stocked.stock >= *quantity))
    }

    /// What `wish` costs, or why it cannot be fulfilled.
    ///
    /// # Errors
    /// A product is not sold, has too few pieces, or all together costs too much.
    pub(super) fn bill(&self, wish: &Wish) -> Result<Bill, PlaceError> {
        let mut bill = Bill { items: Vec::with_capacity(wish.len()), total_minor: 0 };
        for (&product_id, &quantity) in wish {
            let stocked = self.0.get(&product_id).ok_or(PlaceError::UnknownProduct(product_id))?;
            let (name, unit_price_minor) = (stocked.name.clone(), stocked.price_minor);
            if stocked.stock < quantity {
                return Err(PlaceError::OutOfStock { name, available: stocked.stock, wanted: quantity });
            }
            // At most 50 times 100 times the largest price: far below the limit of i64.
            bill.total_minor += unit_price_minor * quantity;
            bill.items.push(OrderItem { product_id, name, quantity, unit_price_minor });
        }
        if bill.total_minor > MAX_TOTAL_MINOR {
            return Err(PlaceError::TooExpensive);
        }
        Ok(bill)
    }

    /// The same, and takes the pieces.
    ///
    /// # Errors
    /// As [`Shelf::bill`]; then nothing is taken.
    pub(super) fn take(&mut self, wish: &Wish) -> Result<Bill, PlaceError> {
        let bill = self.bill(wish)?;
        for (product, quantity) in wish {
            if let Some(stocked) = self.0.get_mut(product) {
                stocked.stock -= quantity;
            }
        }
        Ok(bill)
    }
}

impl Bill {
    /// The order that was placed with it.
    pub(super) fn into_order(self, order: &NewOrder, id: i64) -> Order {
        Order {
            number: order.number.clone(),
            customer_id: order.customer_id,
            status: Status::Placed,
            items: self.items,
            total_minor: self.total_minor,
            currency: CURRENCY,
            // As exact as the database keeps it.
            created_at: Timestamp::from_millisecond(order.now.as_millisecond()).unwrap_or(order.now),
            id,
            session: order.session.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf() -> Shelf {
        let mut shelf = Shelf::default();
        shelf.put(1, "saree".to_owned(), 100, 3);
        shelf.put(2, "lamp".to_owned(), 50, 1);
        shelf.put(3, "palace".to_owned(), MAX_TOTAL_MINOR, 9);
        shelf
    }

    #[test]
    fn an_order_takes_all_its_pieces_or_none() {
        let mut shelf = shelf();
        let refused = shelf.take(&Wish::from([(1, 2), (2, 2)])).unwrap_err();
        assert_eq!(refused.to_string(), "1 of \"lamp\" left, 2 asked for");
        let bill = shelf.take(&Wish::from([(1, 3), (2, 1)])).unwrap();
        assert_eq!((bill.total_minor, bill.items.len()), (350, 2));
        let refused = shelf.take(&Wish::from([(1, 1)])).unwrap_err();
        assert!(matches!(refused, PlaceError::OutOfStock { available: 0, wanted: 1, .. }), "{refused}");
    }

    #[test]
    fn what_is_not_there_or_too_dear_is_not_sold() {
        let mut shelf = shelf();
        assert!(matches!(shelf.take(&Wish::from([(1, 1), (9, 1)])), Err(PlaceError::UnknownProduct(9))));
        assert!(matches!(shelf.take(&Wish::from([(3, 2)])), Err(PlaceError::TooExpensive)));
        assert!(shelf.take(&Wish::from([(3, 1)])).is_ok());
    }

    #[test]
    fn wishes_are_covered_together() {
        let (shelf, one) = (shelf(), Wish::from([(1, 1), (2, 1)]));
        assert!(shelf.covers([&one, &Wish::from([(1, 2)])]));
        assert!(!shelf.covers([&one, &Wish::from([(1, 3)])]));
        assert!(!shelf.covers([&Wish::from([(9, 1)])]));
        assert!(shelf.covers([]));
    }
}
