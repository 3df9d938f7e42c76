//! Values that must not be repeated in messages.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;

use super::Object;

/// What stands where a confidential value would.
const MASK: &str = "[secret]";
/// Shorter texts are no secrets that could be kept: hiding every `on` would make messages unreadable.
const SHORTEST: usize = 4;

/// Of a Secret that anybody may read in Git shorter texts are taken for names of users and databases.
const SHORTEST_PLAIN: usize = 8;

/// Texts that were decrypted, or came from a Secret: whoever writes a message about objects that hold them
/// passes it through [`Confidential::mask`].
///
/// `Debug` shows how many there are, and nothing else.
///
/// ```
/// use engine::object::Confidential;
/// let mut values = Confidential::default();
/// values.add("hunter22");
/// assert_eq!(values.mask("the port \"hunter22\" is no number"), "the port \"[secret]\" is no number");
/// assert_eq!(format!("{values:?}"), "Confidential(1)");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Confidential(BTreeSet<Box<str>>);

impl Confidential {
    /// Adds a value; its lines count each for itself.
    pub fn add(&mut self, value: &str) {
        for text in std::iter::once(value).chain(value.lines().filter(|line| line.len() < value.len())) {
            let text = text.trim();
            if text.len() >= SHORTEST && !matches!(text, "true" | "false" | "null") {
                self.0.insert(text.into());
            }
        }
    }

    /// What the Secrets among some objects hold: for objects of which nobody remembers what was decrypted.
    pub fn of_secrets(objects: &[Object]) -> Self {
        let mut values = Self::default();
        let is_secret = |object: &&Object| {
            let known = object.object_ref();
            known.kind == "Secret" && known.group.is_empty()
        };
        for secret in objects.iter().filter(is_secret).map(Object::value) {
            let texts = |field: &str| {
                let entries = secret[field].as_object().into_iter().flat_map(|map| map.values());
                entries.filter_map(|entry| entry.as_str().map(str::to_owned)).collect::<Vec<_>>()
            };
            let decoded = texts("data").into_iter().filter_map(|text| {
                let compact: String = text.split_ascii_whitespace().collect();
                let plain = base64::engine::general_purpose::STANDARD.decode(compact).ok()?;
                String::from_utf8(plain).ok()
            });
            for text in texts("stringData").into_iter().chain(decoded) {
                if text.trim().len() >= SHORTEST_PLAIN {
                    values.add(&text);
                }
            }
        }
        values.reveal_names(objects);
        values
    }

    /// Whether a value is one of these.
    pub fn holds(&self, value: &str) -> bool {
        self.0.contains(value.trim())
    }

    /// Adds the values of another set.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    /// Takes out what objects are called: that is told anyway, and messages without it would help nobody.
    pub fn reveal_names(&mut self, objects: &[Object]) {
        if self.is_empty() {
            return;
        }
        for object in objects {
            self.0.remove(object.name());
            if let Some(namespace) = object.namespace() {
                self.0.remove(namespace);
            }
        }
    }

    /// Whether there is nothing to hide.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text with every value in it hidden, as written, as JSON writes it, and in base64.
    pub fn mask(&self, text: &str) -> String {
        let mut masked = text.to_owned();
        let mut values: Vec<&str> = self.0.iter().map(|value| &**value).collect();
        // Of two values of which one contains the other the longer goes first, or its rest would show.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        for value in values {
            let quoted = serde_json::Value::from(value).to_string();
            let quoted = &quoted[1..quoted.len() - 1];
            let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(value);
            // The last character depends on what follows the value.
            let encoded = &encoded[..encoded.len() - 1];
            for form in [value, quoted, encoded] {
                if masked.contains(form) {
                    masked = masked.replace(form, MASK);
                }
            }
        }
        masked
    }
}

impl fmt::Debug for Confidential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Confidential({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_secrets_hold_is_hidden_and_what_objects_are_called_is_not() {
        let object = |value| Object::new(value).unwrap();
        let values = Confidential::of_secrets(&[
            object(
                serde_json::json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "database"},
                "data": {"url": "cG9zdGdyZXM6\nLy9zaG9w", "user": "ZGF0YWJhc2U=", "no": "%"},
                "stringData": {"token": "hunter22", "name": "shop"}}),
            ),
            object(serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"},
                "data": {"open": "everybody knows"}})),
        ]);
        assert_eq!(
            values.mask("database: postgres://shop, hunter22, everybody knows"),
            "database: [secret], [secret], everybody knows"
        );
    }

    #[test]
    fn values_are_hidden_in_every_form() {
        let mut values = Confidential::default();
        for value in ["pa\"ss", "pa\"ss-and-more", "first line\nsecond line\n", "on", "true"] {
            values.add(value);
        }
        for (text, masked) in [
            ("x pa\"ss y", "x [secret] y"),
            ("x \"pa\\\"ss\" y", "x \"[secret]\" y"),
            ("pa\"ss-and-more", "[secret]"),
            ("at \"second line\"", "at \"[secret]\""),
            ("true is on", "true is on"),
            ("cGEic3M=", "[secret]M="),
        ] {
            assert_eq!(values.mask(text), masked);
        }
        assert_eq!(format!("{values:?}"), "Confidential(5)");
        let object =
            serde_json::json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "first line"}});
        values.reveal_names(&[Object::new(object).unwrap()]);
        assert_eq!(values.mask("Secret first line: second line"), "Secret first line: [secret]");
    }
}
