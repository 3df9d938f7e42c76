//! The variables and their values.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest as _, Sha256};

/// A name that no expression can name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} cannot be the name of a variable: letters, digits and _ may be in it, and no digit comes first"
)]
pub struct InvalidName {
    /// The name.
    pub name: String,
}

#[derive(Clone, PartialEq, Eq)]
struct Variable {
    value: String,
    is_secret: bool,
}

/// Variables and their values. `Debug` shows the names.
///
/// ```
/// let mut variables = engine::substitute::Variables::default();
/// variables.set("CLUSTER", "dev", false)?;
/// assert!(variables.set("not a name", "", false).is_err());
/// # Ok::<(), engine::substitute::InvalidName>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, Variable>);

impl Variables {
    /// Sets a variable, over what it was. As in Flux line breaks in the value go: it stands in one field.
    ///
    /// # Errors
    /// [`InvalidName`] where no expression could name it.
    pub fn set(&mut self, name: &str, value: &str, is_secret: bool) -> Result<(), InvalidName> {
        let fits =
            |(at, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit());
        if name.is_empty() || !name.chars().enumerate().all(fits) {
            return Err(InvalidName { name: name.to_owned() });
        }
        self.0.insert(name.to_owned(), Variable { value: value.replace('\n', ""), is_secret });
        Ok(())
    }

    /// A variable's value, and whether it must not be repeated in messages.
    pub(super) fn get(&self, name: &str) -> Option<(&str, bool)> {
        self.0.get(name).map(|variable| (variable.value.as_str(), variable.is_secret))
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The values that must not be repeated in messages.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        self.0.values().filter(|variable| variable.is_secret).map(|variable| variable.value.as_str())
    }

    /// A name for these variables with these values: equal only for equal ones.
    pub fn id(&self) -> String {
        let mut hash = Sha256::new();
        for (name, variable) in &self.0 {
            for part in [name.as_str(), &variable.value] {
                hash.update(part.len().to_be_bytes());
                hash.update(part);
            }
            hash.update([u8::from(variable.is_secret)]);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
