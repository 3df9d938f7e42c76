//! Values that must not reach logs, errors, differences or messages.

use std::fmt;

/// A value that cannot be printed or serialised by accident.
///
/// `Debug` shows a placeholder; there is no `Display` and no `Serialize`. Reading the value takes a call
/// of [`Secret::expose`], which is easy to find in a review.
///
/// ```
/// let token = agent::secret::Secret::new("xoxb-1".to_owned());
/// assert_eq!(format!("{token:?}"), "[secret]");
/// assert_eq!(token.expose(), "xoxb-1");
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
