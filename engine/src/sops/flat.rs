//! Metadata in files without a tree: `sops_age__list_0__map_recipient=age1…`.

use serde_json::{Map, Value};

/// How many entries a list may be said to have: an index is only a number in a name.
const MAX_ITEMS: usize = 1_000;

enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

/// The steps of a name.
fn steps(name: &str) -> Option<Vec<Step<'_>>> {
    const SEPARATOR: &str = "__";
    let mut steps = Vec::new();
    let mut parts = name.split(SEPARATOR);
    steps.push(Step::Field(parts.next()?));
    for part in parts {
        if let Some(field) = part.strip_prefix("map_") {
            steps.push(Step::Field(field));
        } else {
            let item: usize = part.strip_prefix("list_")?.parse().ok()?;
            steps.push(Step::Item(Some(item).filter(|item| *item < MAX_ITEMS)?));
        }
    }
    Some(steps)
}

/// Makes the tree of flattened metadata. Line ends in it are written as `\n`. Names that make no sense
/// are passed over.
pub(super) fn unflatten<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    let mut tree = Value::Object(Map::new());
    for (name, text) in pairs {
        let Some(steps) = steps(name) else { continue };
        let mut at = &mut tree;
        let mut fits = true;
        for step in steps {
            at = match step {
                Step::Field(field) => {
                    if at.is_null() {
                        *at = Value::Object(Map::new());
                    }
                    match at {
                        Value::Object(map) => map.entry(field.to_owned()).or_insert(Value::Null),
                        other => {
                            fits = false;
                            other
                        }
                    }
                }
                Step::Item(item) => {
                    if at.is_null() {
                        *at = Value::Array(Vec::new());
                    }
                    match at {
                        Value::Array(items) => {
                            if items.len() <= item {
                                items.resize(item + 1, Value::Null);
                            }
                            &mut items[item]
                        }
                        other => {
                            fits = false;
                            other
                        }
                    }
                }
            };
        }
        if fits {
            *at = Value::String(text.replace("\\n", "\n"));
        }
    }
    tree
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_become_a_tree() {
        let pairs = [
            ("age__list_1__map_enc", "a\\nb"),
            ("age__list_0__map_recipient", "age1x"),
            ("mac", "m"),
            ("mac__map_wrong", "passed over"),
            ("age__list_99999999__map_enc", "passed over"),
            ("age__other", "passed over"),
        ];
        assert_eq!(
            unflatten(pairs.into_iter()),
            json!({"age": [{"recipient": "age1x"}, {"enc": "a\nb"}], "mac": "m"})
        );
    }
}
