//! What an organisation's rows ask for: its document, and the state of each row.

pub mod channel;
mod fault;
mod json;
pub mod kinds;
pub mod matcher;
mod mute_times;
pub mod pattern;
pub mod route;
mod secret;
pub mod targets;
mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use url::Url;
use uuid::Uuid;

use crate::channels::document::Document;
use crate::channels::reach::Reach;
use crate::config::{ChannelsConfig, DashboardUrl, EmailRelay};
use crate::store::{Excess, MOST_CHANNEL_BYTES, MOST_NOTIFICATION_BYTES, MOST_ROUTE_BYTES};
use crate::tenancy::OrganisationId;

pub use crate::store::{
    ChannelRow, NotificationRows as Rows, NotificationState as State, RouteRow,
};
pub use secret::SecretText;

use channel::Channel;
use route::Route;

/// What the operator says of every organisation's document.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Where links lead.
    pub dashboard_url: Option<DashboardUrl>,
    /// The relay of channels of kind `email`.
    pub email: Option<EmailRelay>,
    pub pagerduty_url: Option<Url>,
    pub opsgenie_url: Option<Url>,
    pub telegram_url: Option<Url>,
    /// Whether channels may name addresses of a private network.
    pub allow_private_targets: bool,
    /// The shortest `group_interval` of a route.
    pub min_group_interval: Duration,
    pub max_channels: usize,
    pub max_routes: usize,
}

impl Operator {
    pub fn new(config: &ChannelsConfig) -> Self {
        Self {
            dashboard_url: config.dashboard_url.clone(),
            email: config.email.clone(),
            pagerduty_url: config.pagerduty_url.clone(),
            opsgenie_url: config.opsgenie_url.clone(),
            telegram_url: config.telegram_url.clone(),
            allow_private_targets: config.allow_private_targets,
            min_group_interval: config.min_group_interval,
            max_channels: config.max_channels,
            max_routes: config.max_routes,
        }
    }
}

/// What became of channels or routes, by their IDs.
pub type States = BTreeMap<Uuid, (State, String)>;

/// What an organisation's rows ask for.
#[derive(Clone, Debug)]
pub struct Desired {
    /// None if no channel can be live.
    pub document: Option<Document>,
    /// The state that each channel has once the document is written: [`State::Live`] if it is in it, and
    /// why not otherwise.
    pub channels: States,
    /// The same of each route.
    pub routes: States,
    /// Whom alerts reach once the document is written.
    pub reach: Reach,
}

/// Why a channel or a route that is valid by itself is not in the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// Mimir refuses it, in these words.
    Refused(String),
    /// The document would be larger than Mimir takes.
    TooMuch(String),
    /// The document is a trial of others.
    NotTried,
}

/// Channels and routes that are left out of the document, by their IDs.
pub type Omissions = BTreeMap<Uuid, LeftOut>;

/// Reads an organisation's rows.
pub fn desired(
    rows: &Rows,
    operator: &Operator,
    organisation: &OrganisationId,
    left_out: &Omissions,
) -> Desired {
    let (mut channel_states, mut route_states) = (States::new(), States::new());
    let channels = live_channels(rows, operator, left_out, &mut channel_states);
    let routes =
        live_routes(rows, operator, left_out, &channels, &channel_states, &mut route_states);
    let reach = Reach::new(&channels, &routes);
    let document =
        (!channels.is_empty()).then(|| Document::write(&channels, &routes, operator, organisation));
    Desired { document, channels: channel_states, routes: route_states, reach }
}

/// The same document with channels that are names alone. It holds no secret, so that no refusal of it can
/// repeat one. With everything left out it still has the default route, to nobody.
pub fn without_integrations(
    rows: &Rows,
    operator: &Operator,
    organisation: &OrganisationId,
    left_out: &Omissions,
) -> Document {
    let (mut channel_states, mut route_states) = (States::new(), States::new());
    let channels = live_channels(rows, operator, left_out, &mut channel_states);
    let routes =
        live_routes(rows, operator, left_out, &channels, &channel_states, &mut route_states);
    Document::write_without_integrations(&channels, &routes, operator, organisation)
}

/// Channels in the order of their age, which is the document's.
fn live_channels(
    rows: &Rows,
    operator: &Operator,
    left_out: &Omissions,
    states: &mut States,
) -> Vec<Channel> {
    let mut sorted: Vec<&ChannelRow> = rows.channels.iter().collect();
    sorted.sort_by_key(|row| (row.created_at_micros.unwrap_or(i64::MIN), row.id));
    let mut channels: Vec<Channel> = Vec::new();
    for row in sorted {
        if states.contains_key(&row.id) {
            continue; // an operator's query gave it twice
        }
        let state = match channel::parse(row, operator) {
            _ if row.excess != Excess::None => too_large(row.excess, MOST_CHANNEL_BYTES),
            Err(faults) => (State::Invalid, faults.to_string()),
            Ok(None) => (State::Disabled, String::new()),
            Ok(Some(_)) if channels.len() >= operator.max_channels => {
                (State::OverLimit, over_limit("channels", operator.max_channels))
            }
            Ok(Some(channel)) => {
                if let Some(why) = left_out.get(&row.id) {
                    why.state()
                } else {
                    channels.push(channel);
                    (State::Live, String::new())
                }
            }
        };
        states.insert(row.id, state);
    }
    channels
}

/// Routes in the order in which they are tried.
fn live_routes(
    rows: &Rows,
    operator: &Operator,
    left_out: &Omissions,
    channels: &[Channel],
    channel_states: &States,
    states: &mut States,
) -> Vec<Route> {
    let mut sorted: Vec<&RouteRow> = rows.routes.iter().collect();
    sorted.sort_by_key(|row| (row.created_at_micros.unwrap_or(i64::MIN), row.id));
    let mut routes: Vec<Route> = Vec::new();
    let mut room = matcher::MOST_PATTERN_WEIGHT;
    for row in sorted {
        if states.contains_key(&row.id) {
            continue;
        }
        let state = match route::parse(row, operator, &mut room) {
            _ if row.excess != Excess::None => too_large(row.excess, MOST_ROUTE_BYTES),
            Err(faults) => (State::Invalid, faults.to_string()),
            Ok(None) => (State::Disabled, String::new()),
            Ok(Some(_)) if routes.len() >= operator.max_routes => {
                (State::OverLimit, over_limit("routes", operator.max_routes))
            }
            Ok(Some(route)) => match (left_out.get(&row.id), route.channel) {
                (Some(why), _) => why.state(),
                (None, id) if channels.iter().any(|channel| channel.id == id) => {
                    routes.push(route);
                    (State::Live, String::new())
                }
                (None, id) => without_channel(channel_states.get(&id)),
            },
        };
        states.insert(row.id, state);
    }
    routes.sort_by_key(|route| (route.position, route.created, route.id));
    routes
}

fn too_large(excess: Excess, row: usize) -> (State, String) {
    match excess {
        Excess::Organisation => (
            State::OverLimit,
            format!(
                "the organisation's rows are more than can be read, {} MiB, and older ones come first",
                MOST_NOTIFICATION_BYTES >> 20
            ),
        ),
        Excess::None | Excess::Row => {
            (State::Invalid, format!("the row is larger than {} KiB", row >> 10))
        }
    }
}

fn over_limit(what: &str, most: usize) -> String {
    format!("the organisation has more than {most} {what}, and older ones come first")
}

impl LeftOut {
    fn state(&self) -> (State, String) {
        match self {
            Self::Refused(words) => {
                (State::Invalid, format!("Mimir's Alertmanager refuses it: {words}"))
            }
            Self::TooMuch(reason) => (State::OverLimit, reason.clone()),
            // It is not shown.
            Self::NotTried => (State::Pending, String::new()),
        }
    }
}

/// The state of a route whose channel is not live: its alerts go on to later routes and the default channels.
fn without_channel(channel: Option<&(State, String)>) -> (State, String) {
    let (state, why) = match channel.map(|(state, _)| *state) {
        None => (State::Invalid, "there is no such channel"),
        Some(State::Disabled) => (State::Disabled, "the channel is disabled"),
        Some(State::OverLimit) => {
            (State::OverLimit, "the channel is over the organisation's limit")
        }
        Some(_) => (State::Invalid, "the channel is invalid"),
    };
    let rest = "until it is live, later routes and the default channels get these alerts";
    (state, format!("channel_id: {why}; {rest}"))
}

#[cfg(test)]
mod tests;
