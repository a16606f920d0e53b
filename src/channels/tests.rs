//! Rows and settings for the tests of this module.

use std::time::Duration;

use uuid::Uuid;

use super::spec::{ChannelRow, Operator, RouteRow};
use crate::config::Secret;
use crate::store::Excess;
use crate::tenancy::OrganisationId;

pub(crate) fn acme() -> OrganisationId {
    OrganisationId::parse("acme").unwrap()
}

pub(crate) fn operator() -> Operator {
    Operator {
        dashboard_url: None,
        email: None,
        pagerduty_url: None,
        opsgenie_url: None,
        telegram_url: None,
        allow_private_targets: false,
        min_group_interval: Duration::from_secs(10),
        max_channels: 100,
        max_routes: 200,
    }
}

/// A webhook of its own address.
pub(crate) fn channel_row(id: Uuid) -> ChannelRow {
    ChannelRow {
        id,
        organisation: acme(),
        name: Some("a webhook".to_owned()),
        kind: Some("webhook".to_owned()),
        settings: Some("{}".to_owned()),
        secrets: Some(Secret::new(&format!(r#"{{"url": "https://hooks.example.com/{id}"}}"#))),
        enabled: None,
        is_default: None,
        created_at_micros: Some(i64::try_from(id.as_u128() & 0xffff).unwrap()),
        excess: Excess::None,
    }
}

pub(crate) fn route_row(id: Uuid, channel: Uuid) -> RouteRow {
    RouteRow {
        id,
        organisation: acme(),
        channel: Some(channel.to_string()),
        position: Some("0".to_owned()),
        matchers: Some(format!(r#"["severity=\"{}\""]"#, id.as_u128())),
        group_by: None,
        group_wait: None,
        group_interval: None,
        repeat_interval: None,
        mute_times: None,
        continue_matching: None,
        enabled: None,
        created_at_micros: Some(i64::try_from(id.as_u128() & 0xffff).unwrap()),
        excess: Excess::None,
    }
}
