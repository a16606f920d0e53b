//! Reads a row of `notification_channel`: into a [`Channel`], or into [`Faults`] that name what is wrong.

use uuid::Uuid;

use super::Operator;
use super::fault::{Collector, Faults};
use super::json::{self, Secrets, Settings};
use super::kinds::{self, Kind};
use super::text::{switch, trimmed};
use crate::config::Secret;
use crate::rules::spec::refusal::quoted;
use crate::spelling::nearest;
use crate::store::ChannelRow;

/// A channel that may be written to Mimir.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The row's ID, and the receiver's name.
    pub id: Uuid,
    /// Whether it gets what no route sends anywhere.
    pub is_default: bool,
    /// Whether it is told when an alert ends.
    pub send_resolved: bool,
    pub kind: Kind,
}

/// Whether a row that its author has not disabled has the mask of a secret that is not stored. Its author
/// removes a secret together with its mask, so such a secret is lost.
pub fn has_lost_a_secret(row: &ChannelRow) -> bool {
    let is_enabled = switch("enabled", row.enabled.as_deref(), true, &mut Collector::default());
    is_enabled && json::has_mask(text_of(row.secrets.as_ref()))
}

fn text_of(secrets: Option<&Secret>) -> Option<&str> {
    secrets.and_then(|secrets| std::str::from_utf8(secrets.expose()).ok())
}

/// Reads a row; none if its author has disabled it. The rest of such a row is not checked.
///
/// The destructuring makes a new column a compile error until it is read here, or named as one that is no
/// part of a channel.
pub fn parse(row: &ChannelRow, operator: &Operator) -> Result<Option<Channel>, Faults> {
    let ChannelRow {
        id,
        organisation: _,
        // For people; the receiver is named by the ID, which stays the same.
        name: _,
        kind,
        settings,
        secrets,
        enabled,
        is_default,
        created_at_micros: _,
        excess: _,
    } = row;
    let mut faults = Collector::default();
    if !switch("enabled", enabled.as_deref(), true, &mut faults) {
        return Ok(None);
    }
    let is_default = switch("is_default", is_default.as_deref(), false, &mut faults);
    let name = trimmed(kind.as_deref().unwrap_or_default());
    if !kinds::NAMES.contains(&name) {
        let known = kinds::NAMES.join(", ");
        let fault = match nearest(name, kinds::NAMES) {
            _ if name.is_empty() => format!("is empty; should be one of {known}"),
            Some(meant) => {
                format!("{} is not known; did you mean {meant}? there are {known}", quoted(name))
            }
            None => format!("{} is not known; there are {known}", quoted(name)),
        };
        faults.add("kind", fault);
        return faults.none_or(None);
    }
    let settings = Settings::read(settings.as_deref(), &mut faults);
    let secrets = Secrets::read(text_of(secrets.as_ref()), &mut faults);
    let read = kinds::read(name, settings, secrets, operator, &mut faults);
    let channel = read
        .map(|(kind, send_resolved)| Some(Channel { id: *id, is_default, send_resolved, kind }));
    faults.none_or(channel)
}
