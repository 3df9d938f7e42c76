//! Products and how a list of them is asked for.

use serde::Serialize;

use crate::problem::Problem;

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

/// A category and how many products it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Category {
    /// Name, as in [`Product::category`].
    pub name: String,
    /// Products in it.
    pub products: i64,
}

/// Which products to list, in order of their identifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductQuery {
    /// Only this category.
    pub category: Option<String>,
    /// Only products whose name or description holds this text, ignoring case.
    pub search: Option<String>,
    /// At most this many, 1 to 100.
    pub limit: i64,
    /// Only products after this identifier, 0 for the first page.
    pub after: i64,
}

impl ProductQuery {
    /// Reads a query string's pairs: `category`, `search`, `limit` (1 to 100, default 24), `cursor`.
    ///
    /// # Errors
    /// A problem that names the parameter.
    pub fn from_pairs(pairs: &[(String, String)]) -> Result<Self, Problem> {
        let mut query = Self { category: None, search: None, limit: 24, after: 0 };
        let mut seen = Vec::new();
        for (name, value) in pairs {
            if seen.contains(&name) {
                return Err(Problem::invalid(name.clone(), "give it once"));
            }
            seen.push(name);
            match name.as_str() {
                "category" => query.category = text(name, value, 100)?,
                "search" => query.search = text(name, value, 100)?,
                "limit" => query.limit = limit(value)?,
                "cursor" => query.after = cursor(value)?,
                _ => {
                    let allowed = "known are category, search, limit and cursor";
                    return Err(Problem::invalid(shorten(name), allowed));
                }
            }
        }
        Ok(query)
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

/// Makes the cursor that continues after the item with identifier `id`.
pub fn cursor_after(id: i64) -> String {
    format!("after-{id}")
}

/// Reads a page size, 1 to 100.
///
/// # Errors
/// A problem that says the range.
pub fn limit(value: &str) -> Result<i64, Problem> {
    match value.parse() {
        Ok(limit) if (1..=100).contains(&limit) => Ok(limit),
        _ => Err(Problem::invalid("limit", "it must be a whole number from 1 to 100")),
    }
}

/// Reads what [`cursor_after`] made.
///
/// # Errors
/// A problem if it was not made by that function.
pub fn cursor(value: &str) -> Result<i64, Problem> {
    match value.strip_prefix("after-").map(str::parse) {
        Some(Ok(id)) if (0..=i64::from(i32::MAX)).contains(&id) => Ok(id),
        _ => Err(Problem::invalid("cursor", "use the nextCursor of an earlier answer")),
    }
}

fn text(name: &str, value: &str, most: usize) -> Result<Option<String>, Problem> {
    let value = value.trim();
    // PostgreSQL cannot hold a NUL in text.
    if value.chars().count() > most || value.contains('\0') {
        return Err(Problem::invalid(name, format!("it must be text of at most {most} characters")));
    }
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
        assert_eq!((full.limit, full.after), (3, 9));
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
        ] {
            assert!(query(&[pair]).is_err(), "{pair:?}");
        }
        assert!(query(&[("limit", "1"), ("limit", "2")]).is_err());
    }

    #[test]
    fn wildcards_in_a_search_are_literal() {
        assert_eq!(query(&[("search", "100%_\\A")]).unwrap().like_pattern().unwrap(), "%100\\%\\_\\\\a%");
    }
}
