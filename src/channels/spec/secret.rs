//! A secret of a channel.

use std::fmt;

/// A text that only the document itself holds. It has no `Display` and is not serialised; its `Debug` does
/// not show it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretText(Box<str>);

impl SecretText {
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The secret. To be written to Mimir, and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}
