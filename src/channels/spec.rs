//! What an organisation's rows ask for: its document, and the state of each row.

pub mod channel;
mod fault;
mod json;
pub mod kinds;
pub mod matcher;
mod mute_times;
pub mod route;
mod secret;
pub mod targets;
mod text;

use std::collections::BTreeMap;

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
            max_channels: config.max_channels,
            max_routes: config.max_routes,
        }
    }
}

/// What an organisation's rows ask for.
#[derive(Clone, Debug)]
pub struct Desired {
    /// None if no channel can be live.
    pub document: Option<Document>,
    /// The state that each channel has once the document is written: [`State::Live`] if it is in it, and
    /// why not otherwise.
    pub channels: BTreeMap<Uuid, (State, String)>,
    /// The same of each route.
    pub routes: BTreeMap<Uuid, (State, String)>,
    /// Whom alerts reach once the document is written.
    pub reach: Reach,
}

/// Reads an organisation's rows. `left_out` are channels and routes that Mimir has refused, with its
/// words: they are not in the document.
pub fn desired(
    rows: &Rows,
    operator: &Operator,
    organisation: &OrganisationId,
    left_out: &BTreeMap<Uuid, String>,
) -> Desired {
    let mut states = BTreeMap::new();
    let channels = live_channels(rows, operator, left_out, &mut states);
    let mut route_states = BTreeMap::new();
    let routes = live_routes(rows, operator, left_out, &channels, &states, &mut route_states);
    let reach = Reach::new(&channels, &routes);
    let document =
        (!channels.is_empty()).then(|| Document::write(&channels, &routes, operator, organisation));
    Desired { document, channels: states, routes: route_states, reach }
}

/// Channels in the order of their age, which is the document's.
fn live_channels(
    rows: &Rows,
    operator: &Operator,
    left_out: &BTreeMap<Uuid, String>,
    states: &mut BTreeMap<Uuid, (State, String)>,
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
            Ok(Some(channel)) => match left_out.get(&row.id) {
                Some(words) => (State::Invalid, refused(words)),
                None => {
                    channels.push(channel);
                    (State::Live, String::new())
                }
            },
        };
        states.insert(row.id, state);
    }
    channels
}

/// Routes in the order in which they are tried.
fn live_routes(
    rows: &Rows,
    operator: &Operator,
    left_out: &BTreeMap<Uuid, String>,
    channels: &[Channel],
    channel_states: &BTreeMap<Uuid, (State, String)>,
    states: &mut BTreeMap<Uuid, (State, String)>,
) -> Vec<Route> {
    let mut sorted: Vec<&RouteRow> = rows.routes.iter().collect();
    sorted.sort_by_key(|row| (row.created_at_micros.unwrap_or(i64::MIN), row.id));
    let mut routes: Vec<Route> = Vec::new();
    for row in sorted {
        if states.contains_key(&row.id) {
            continue;
        }
        let state = match route::parse(row) {
            _ if row.excess != Excess::None => too_large(row.excess, MOST_ROUTE_BYTES),
            Err(faults) => (State::Invalid, faults.to_string()),
            Ok(None) => (State::Disabled, String::new()),
            Ok(Some(_)) if routes.len() >= operator.max_routes => {
                (State::OverLimit, over_limit("routes", operator.max_routes))
            }
            Ok(Some(route)) => match (left_out.get(&row.id), route.channel) {
                (Some(words), _) => (State::Invalid, refused(words)),
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

fn refused(words: &str) -> String {
    format!("Mimir's Alertmanager refuses it: {words}")
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
