//! Label selectors in the form of `scale.status.selector`.

use std::collections::BTreeSet;

use kube::core::{Expression, Selector};

/// Reads `a=b,c in (d,e),f notin (g),h,!i`; `None` if it is something else.
pub(crate) fn parse(text: &str) -> Option<Selector> {
    let expressions: Option<Vec<Expression>> =
        split(text).into_iter().map(|part| expression(part.trim())).collect();
    expressions.map(Selector::from_iter)
}

/// Splits at commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut inside = false;
    text.split(|character| {
        match character {
            '(' => inside = true,
            ')' => inside = false,
            _ => {}
        }
        character == ',' && !inside
    })
    .collect()
}

fn expression(text: &str) -> Option<Expression> {
    let label = |text: &str| {
        let text = text.trim();
        let odd = |character: char| character.is_whitespace() || "(),=!".contains(character);
        (!text.contains(odd)).then(|| text.to_owned())
    };
    let key = |text: &str| label(text).filter(|key| !key.is_empty());
    let set = |text: &str| -> Option<BTreeSet<String>> {
        text.trim().strip_prefix('(')?.strip_suffix(')')?.split(',').map(label).collect()
    };
    if let Some((name, values)) = text.split_once(" notin ") {
        return Some(Expression::NotIn(key(name)?, set(values)?));
    }
    if let Some((name, values)) = text.split_once(" in ") {
        return Some(Expression::In(key(name)?, set(values)?));
    }
    if let Some((name, value)) = text.split_once("!=") {
        return Some(Expression::NotEqual(key(name)?, label(value)?));
    }
    if let Some((name, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Some(Expression::Equal(key(name)?, label(value)?));
    }
    match text.strip_prefix('!') {
        Some(name) => Some(Expression::DoesNotExist(key(name)?)),
        None => Some(Expression::Exists(key(text)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::SelectorExt;
    use std::collections::BTreeMap;

    #[test]
    fn selectors_are_read() {
        let labels = |text: &str| -> BTreeMap<String, String> {
            let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
            pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
        };
        for (selector, object, matches) in [
            ("app=shop", "app=shop,x=y", Some(true)),
            ("app=shop,tier in (a,b)", "app=shop,tier=b", Some(true)),
            ("app=shop,tier in (a,b)", "app=shop,tier=c", Some(false)),
            ("tier notin (a,b),app", "app=shop", Some(true)),
            ("!tier,app!=web", "app=web", Some(false)),
            ("!tier", "tier=", Some(false)),
            ("app=", "app=", Some(true)),
            ("", "app=shop", None),
            ("app in a", "app=a", None),
            ("a=b=c", "a=b", None),
        ] {
            let parsed = parse(selector).map(|parsed| parsed.matches(&labels(object)));
            assert_eq!(parsed, matches, "{selector} on {object}");
        }
    }
}
