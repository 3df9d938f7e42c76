//! Products and how a list of them is asked for.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::order::MAX_TOTAL_MINOR;
use crate::problem::{Checks, Problem};

/// The only currency the shop trades in: Bangladeshi taka, counted in paisa.
pub const CURRENCY: &str = "BDT";

/// Something for sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Product {
    /// Identifier, 1 or more.
    pub id: i64,
    /// Name, 1 to 255 characters.
    pub name: String,
    /// Text, may be empty.
    pub description: String,
    /// Price in paisa, 0 to 9,999,999,999 (DECIMAL(10,2)).
    pub price_minor: i64,
    /// Always [`CURRENCY`].
    pub currency: &'static str,
    /// Items left, 0 or more.
    pub stock: i64,
    /// Category, lower case.
    pub category: String,
}

impl Product {
    /// Names this state of the product, for `If-Match`: the entity tag of its JSON.
    pub fn tag(&self) -> String {
        // A struct of strings and numbers always serialises.
        crate::encode::tag(&serde_json::to_vec(self).unwrap_or_default())
    }
}

/// A category and how many products it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Category {
    /// Name, as in [`Product::category`].
    pub name: String,
    /// Products in it.
    pub products: i64,
}

/// A product as an administrator describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProductBody {
    /// See [`Product::name`].
    pub name: String,
    /// See [`Product::description`].
    #[serde(default)]
    pub description: String,
    /// See [`Product::price_minor`].
    #[serde(deserialize_with = "crate::whole::plain")]
    pub price_minor: i64,
    /// See [`Product::stock`].
    #[serde(deserialize_with = "crate::whole::plain")]
    pub stock: i64,
    /// See [`Product::category`].
    pub category: String,
}

impl ProductBody {
    /// Checks every field.
    ///
    /// # Errors
    /// A problem that names all that cannot be used.
    pub fn check(&self) -> Result<(), Problem> {
        let mut checks = Checks::default();
        let fits = |text: &str, least: usize, most: usize| {
            (least..=most).contains(&text.chars().count())
                && !text.chars().any(|c| c.is_control() && c != '\n')
                && (least == 0 || text.trim() == text)
        };
        let text = "without control characters and without space around it";
        checks.check(fits(&self.name, 1, 255), "name", format!("it must be 1 to 255 characters {text}"));
        let detail = "it must be at most 4000 characters without control characters";
        checks.check(fits(&self.description, 0, 4000), "description", detail);
        let detail = format!("it must be a whole number from 0 to {MAX_TOTAL_MINOR}");
        checks.check((0..=MAX_TOTAL_MINOR).contains(&self.price_minor), "priceMinor", detail);
        let stock = 0..=i64::from(i32::MAX);
        checks.check(stock.contains(&self.stock), "stock", "it must be a whole number from 0 to 2147483647");
        let name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let category = (1..=100).contains(&self.category.len()) && self.category.bytes().all(name);
        checks.check(category, "category", "it must be 1 to 100 of a-z, 0-9 and -");
        checks.finish()
    }
}

/// In which order products are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// By identifier, oldest first.
    Id,
    /// Newest first.
    Newest,
    /// Cheapest first.
    Price,
    /// Dearest first.
    PriceDown,
    /// By name, in the order of its characters' code points.
    Name,
}

impl Sort {
    const ALL: [(&'static str, Self); 5] = [
        ("id", Self::Id),
        ("newest", Self::Newest),
        ("price", Self::Price),
        ("-price", Self::PriceDown),
        ("name", Self::Name),
    ];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, sort)| *sort == self).map_or("id", |(word, _)| word)
    }
}

/// The last product of a page: the next page begins behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Its identifier.
    pub id: i64,
    /// Its price in paisa; 0 where the order does not depend on it.
    pub price_minor: i64,
    /// Its name; empty where the order does not depend on it.
    pub name: String,
}

/// Which products to list, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductQuery {
    /// Only this category.
    pub category: Option<String>,
    /// Only products whose name or description holds this text, ignoring case.
    pub search: Option<String>,
    /// Only products that cost at least this, in paisa.
    pub min_price: Option<i64>,
    /// Only products that cost at most this, in paisa.
    pub max_price: Option<i64>,
    /// In this order.
    pub sort: Sort,
    /// At most this many, 1 to 100.
    pub limit: i64,
    /// Only products behind this one.
    pub after: Option<Position>,
}

impl ProductQuery {
    /// Reads a query string's pairs: `category`, `search`, `minPrice`, `maxPrice`, `sort`, `limit` (1 to 100,
    /// default 24), `cursor`.
    ///
    /// # Errors
    /// A problem that names every parameter that cannot be used.
    pub fn from_pairs(pairs: &[(String, String)]) -> Result<Self, Problem> {
        let (category, search, min_price, max_price) = (None, None, None, None);
        let mut query =
            Self { category, search, min_price, max_price, sort: Sort::Id, limit: 24, after: None };
        let mut checks = Checks::default();
        let mut cursor = None;
        let mut seen = Vec::new();
        for (name, value) in pairs {
            checks.check(!seen.contains(&name), shorten(name), "give it once");
            seen.push(name);
            let outcome = match name.as_str() {
                "category" => text(value, 100).map(|value| query.category = value),
                "search" => text(value, 100).map(|value| query.search = value),
                "minPrice" => price(value).map(|value| query.min_price = Some(value)),
                "maxPrice" => price(value).map(|value| query.max_price = Some(value)),
                "sort" => sort(value).map(|value| query.sort = value),
                "limit" => page_size(value).map(|value| query.limit = value),
                "cursor" => {
                    cursor = Some(value);
                    Ok(())
                }
                _ => Err("known are category, search, minPrice, maxPrice, sort, limit and cursor"),
            };
            checks.check(outcome.is_ok(), shorten(name), outcome.err().unwrap_or_default());
        }
        // Its meaning depends on the order, which may be given after it.
        if let Some(cursor) = cursor {
            query.after = query.position(cursor);
            checks.check(query.after.is_some(), "cursor", FOREIGN_CURSOR);
        }
        checks.finish()?;
        Ok(query)
    }

    /// Makes the cursor that continues behind `last`.
    pub fn cursor(&self, last: &Product) -> String {
        let value = match self.sort {
            Sort::Id | Sort::Newest => return cursor_after(last.id),
            Sort::Price | Sort::PriceDown => json!(last.price_minor),
            Sort::Name => json!(last.name),
        };
        URL_SAFE_NO_PAD.encode(json!([self.sort.word(), value, last.id]).to_string())
    }

    /// Reads what [`ProductQuery::cursor`] made for the same order.
    fn position(&self, cursor: &str) -> Option<Position> {
        if matches!(self.sort, Sort::Id | Sort::Newest) {
            let id = read_cursor(cursor)?;
            return Some(Position { id, price_minor: 0, name: String::new() });
        }
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok().filter(|bytes| bytes.len() <= 2048)?;
        let (sort, value, id): (String, serde_json::Value, i64) = serde_json::from_slice(&bytes).ok()?;
        let known = sort == self.sort.word() && (0..=i64::from(i32::MAX)).contains(&id);
        let position = match self.sort {
            Sort::Name => Position { id, price_minor: 0, name: value.as_str()?.to_owned() },
            _ => Position { id, price_minor: value.as_i64()?, name: String::new() },
        };
        let sane = (0..=MAX_TOTAL_MINOR).contains(&position.price_minor) && !position.name.contains('\0');
        (known && sane).then_some(position)
    }

    /// The same text for the same question: the key under which its answer is kept.
    pub fn key(&self) -> String {
        format!("{self:?}")
    }

    /// The search text as a LIKE pattern with `\` as its escape character.
    pub fn like_pattern(&self) -> Option<String> {
        let text = self.search.as_ref()?.to_lowercase();
        let mut pattern = String::with_capacity(text.len() + 2);
        pattern.push('%');
        for c in text.chars() {
            if matches!(c, '%' | '_' | '\\') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        pattern.push('%');
        Some(pattern)
    }
}

const FOREIGN_CURSOR: &str = "use the nextCursor of an earlier answer to the same question";

/// Makes the cursor that continues after the item with identifier `id`.
pub fn cursor_after(id: i64) -> String {
    format!("after-{id}")
}

/// Reads what [`cursor_after`] made.
fn read_cursor(value: &str) -> Option<i64> {
    let digits = value.strip_prefix("after-")?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|id| plain && (0..=i64::from(i32::MAX)).contains(id))
}

/// Which part of a list in order of falling identifiers: how many, and before which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// At most this many, 1 to 100.
    pub limit: i64,
    /// Only items with smaller identifiers.
    pub before: i64,
}

impl Page {
    /// Reads `limit` and `cursor`; other parameters are handed to `other`, which knows them or not.
    ///
    /// # Errors
    /// A problem that names every parameter that cannot be used.
    pub fn from_pairs(
        pairs: &[(String, String)],
        mut other: impl FnMut(&str, &str) -> Result<(), &'static str>,
    ) -> Result<Self, Problem> {
        let mut page = Self { limit: 24, before: i64::from(i32::MAX) };
        let mut checks = Checks::default();
        let mut seen = Vec::new();
        for (name, value) in pairs {
            checks.check(!seen.contains(&name), shorten(name), "give it once");
            seen.push(name);
            let outcome = match name.as_str() {
                "limit" => page_size(value).map(|value| page.limit = value),
                "cursor" => read_cursor(value).map(|id| page.before = id).ok_or(FOREIGN_CURSOR),
                _ => other(name, value),
            };
            checks.check(outcome.is_ok(), shorten(name), outcome.err().unwrap_or_default());
        }
        checks.finish()?;
        Ok(page)
    }

    /// Cuts a list of one item more than asked for, and says where the next page begins if there is one.
    pub fn cut<T>(&self, items: &mut Vec<T>, id: impl Fn(&T) -> i64) -> Option<String> {
        let more = items.len() as i64 > self.limit;
        items.truncate(self.limit as usize);
        if more { items.last().map(|last| cursor_after(id(last))) } else { None }
    }
}

fn page_size(value: &str) -> Result<i64, &'static str> {
    match value.parse() {
        Ok(limit) if (1..=100).contains(&limit) && !value.starts_with('+') => Ok(limit),
        _ => Err("it must be a whole number from 1 to 100"),
    }
}

fn price(value: &str) -> Result<i64, &'static str> {
    match value.parse() {
        Ok(price) if (0..=MAX_TOTAL_MINOR).contains(&price) && !value.starts_with(['+', '-']) => Ok(price),
        _ => Err("it must be a whole number of paisa from 0 to 9999999999"),
    }
}

fn sort(value: &str) -> Result<Sort, &'static str> {
    let known = Sort::ALL.iter().find(|(word, _)| *word == value);
    known.map(|(_, sort)| *sort).ok_or("it must be id, newest, price, -price or name")
}

fn text(value: &str, most: usize) -> Result<Option<String>, &'static str> {
    // PostgreSQL cannot hold a NUL in text.
    if value.chars().count() > most || value.contains('\0') {
        return Err("it must be text of at most 100 characters without NUL");
    }
    let value = value.trim();
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

/// Keeps what is echoed to a client short.
pub fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(pairs: &[(&str, &str)]) -> Result<ProductQuery, Problem> {
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        ProductQuery::from_pairs(&pairs)
    }

    #[test]
    fn a_query_is_read_with_its_defaults() {
        assert_eq!(query(&[]).unwrap().limit, 24);
        let full =
            query(&[("category", "books"), ("search", " Saree "), ("limit", "3"), ("cursor", "after-9")]);
        let full = full.unwrap();
        assert_eq!(full.category.as_deref(), Some("books"));
        assert_eq!(full.search.as_deref(), Some("Saree"));
        assert_eq!((full.limit, full.after.unwrap().id), (3, 9));
        assert_eq!(query(&[("search", "  ")]).unwrap().search, None);
    }

    #[test]
    fn unusable_parameters_are_refused() {
        let long = "x".repeat(101);
        for pair in [
            ("limit", "0"),
            ("limit", "101"),
            ("limit", "ten"),
            ("cursor", "9"),
            ("cursor", "after--1"),
            ("cursor", "after-99999999999"),
            ("search", long.as_str()),
            ("category", "a\0b"),
            ("page", "2"),
            ("sort", "stock"),
            ("minPrice", "-1"),
            ("maxPrice", "1e3"),
        ] {
            assert!(query(&[pair]).is_err(), "{pair:?}");
        }
        assert!(query(&[("limit", "1"), ("limit", "2")]).is_err());
    }

    #[test]
    fn wildcards_in_a_search_are_literal() {
        assert_eq!(query(&[("search", "100%_\\A")]).unwrap().like_pattern().unwrap(), "%100\\%\\_\\\\a%");
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let problem = query(&[("limit", "0"), ("sort", "x")]).unwrap_err();
        let text = serde_json::to_string(&problem).unwrap();
        assert!(text.contains(r#""field":"limit""#) && text.contains(r#""field":"sort""#), "{text}");
        let body = ProductBody {
            name: " x".to_owned(),
            description: "a\0".to_owned(),
            price_minor: -1,
            stock: i64::MAX,
            category: "Big Things".to_owned(),
        };
        let text = serde_json::to_string(&body.check().unwrap_err()).unwrap();
        for field in ["name", "description", "priceMinor", "stock", "category"] {
            assert!(text.contains(&format!(r#""field":"{field}""#)), "{field} in {text}");
        }
    }

    #[test]
    fn a_cursor_continues_its_own_order_only() {
        let product = Product {
            id: 7,
            name: "Tea \"Sylhet\"".to_owned(),
            description: String::new(),
            price_minor: 24_500,
            currency: CURRENCY,
            stock: 1,
            category: "grocery".to_owned(),
        };
        for (word, sort) in Sort::ALL {
            let cursor = query(&[("sort", word)]).unwrap().cursor(&product);
            let next = query(&[("cursor", &cursor), ("sort", word)]).unwrap();
            let position = next.after.unwrap();
            assert_eq!((next.sort, position.id), (sort, 7));
            assert_eq!(position.name.is_empty(), sort != Sort::Name);
            if sort == Sort::Price {
                assert_eq!(position.price_minor, 24_500);
                assert!(query(&[("cursor", &cursor), ("sort", "-price")]).is_err());
            }
        }
    }
}
