//! Values of the configuration as operators may see them. What is hidden follows from the type of a
//! value and not from its key: a type that is not named here cannot be read from the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use url::Url;

use super::values::Secret;
use crate::prom_duration::PromDuration;
use crate::tenancy::{Scope, TenantTemplate};

/// A key, its value and where the value is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Such as `listen.address`.
    pub key: String,
    /// Empty if the key has no value. A secret is only said to be set.
    pub value: String,
    /// `default`, `file`, or the environment variable.
    pub source: String,
}

/// What may be seen of a value.
pub(super) trait Shown {
    fn shown(&self) -> String;
}

impl Shown for Secret {
    fn shown(&self) -> String {
        if self.is_empty() { String::new() } else { "set; not shown".to_owned() }
    }
}

impl Shown for Duration {
    fn shown(&self) -> String {
        super::values::show_duration(*self)
    }
}

/// Such an address has no user, no password and no query by its own rules. Only what follows from
/// that is shown, whatever those rules become.
impl Shown for Url {
    fn shown(&self) -> String {
        format!("{}{}", self.origin().ascii_serialization(), self.path())
    }
}

impl Shown for PathBuf {
    fn shown(&self) -> String {
        self.display().to_string()
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        self.clone()
    }
}

impl<T: Shown> Shown for Option<T> {
    fn shown(&self) -> String {
        self.as_ref().map(Shown::shown).unwrap_or_default()
    }
}

impl<T: Shown> Shown for Vec<T> {
    fn shown(&self) -> String {
        self.iter().map(Shown::shown).collect::<Vec<_>>().join(", ")
    }
}

macro_rules! shown_as_text {
    ($($kind:ty),+ $(,)?) => {
        $( impl Shown for $kind {
            fn shown(&self) -> String {
                self.to_string()
            }
        } )+
    };
}

shown_as_text!(bool, u32, u64, usize, f64, SocketAddr, HeaderName, PromDuration, TenantTemplate);

impl Shown for Scope {
    fn shown(&self) -> String {
        self.name().to_owned()
    }
}
