//! The tree of routes.

use super::yaml::Node;
use crate::channels::spec::channel::Channel;
use crate::channels::spec::matcher::{Matcher, Operator};
use crate::channels::spec::route::{GroupBy, Route};

/// The label of a test notification; its value is the channel's ID.
pub const TEST_LABEL: &str = "mimir_tenant_proxy_test";

/// The receiver of what reaches no channel.
pub(super) const NOBODY: &str = "nobody";

/// First a route for tests of each channel, then the organisation's own, then its default channels.
pub(super) fn write(channels: &[Channel], routes: &[Route]) -> Node {
    let mut children: Vec<Node> = channels.iter().map(test).collect();
    children.extend(routes.iter().map(route));
    let defaults: Vec<&Channel> = channels.iter().filter(|channel| channel.is_default).collect();
    for (at, channel) in defaults.iter().enumerate() {
        let goes_on = at + 1 < defaults.len();
        children.push(Node::Map(vec![
            ("receiver", Node::text(channel.id)),
            ("continue", Node::Switch(goes_on)),
        ]));
    }
    Node::Map(vec![
        ("receiver", Node::text(NOBODY)),
        ("group_by", Node::texts(["alertname"])),
        // Alertmanager's own defaults, so that they do not change with it.
        ("group_wait", Node::text("30s")),
        ("group_interval", Node::text("5m")),
        ("repeat_interval", Node::text("4h")),
        ("routes", Node::List(children)),
    ])
}

/// A test is sent at once, alone, and to its channel only.
fn test(channel: &Channel) -> Node {
    let matcher = Matcher {
        name: TEST_LABEL.to_owned(),
        operator: Operator::Equal,
        value: channel.id.to_string(),
    };
    Node::Map(vec![
        ("receiver", Node::text(channel.id)),
        ("matchers", Node::texts([matcher])),
        ("group_by", Node::texts(["..."])),
        ("group_wait", Node::text("0s")),
    ])
}

fn route(route: &Route) -> Node {
    let mut entries = vec![("receiver", Node::text(route.channel))];
    if !route.matchers.is_empty() {
        entries.push(("matchers", Node::texts(&route.matchers)));
    }
    match &route.group_by {
        GroupBy::Root => {}
        GroupBy::Labels(labels) => entries.push(("group_by", Node::texts(labels))),
        GroupBy::Every => entries.push(("group_by", Node::texts(["..."]))),
    }
    for (key, duration) in [
        ("group_wait", route.group_wait),
        ("group_interval", route.group_interval),
        ("repeat_interval", route.repeat_interval),
    ] {
        if let Some(duration) = duration {
            entries.push((key, Node::text(duration)));
        }
    }
    if !route.mute_times.is_empty() {
        entries.push(("mute_time_intervals", Node::texts([route.id])));
    }
    entries.push(("continue", Node::Switch(route.continue_matching)));
    Node::Map(entries)
}

/// The mute times of each route, named by its ID.
pub(super) fn time_intervals(routes: &[Route]) -> Node {
    let of_route = |route: &Route| {
        let intervals = route.mute_times.iter().map(|interval| {
            let mut entries = Vec::new();
            if !interval.times.is_empty() {
                let times = interval.times.iter().map(|(start, end)| {
                    Node::Map(vec![
                        ("start_time", Node::text(start)),
                        ("end_time", Node::text(end)),
                    ])
                });
                entries.push(("times", Node::List(times.collect())));
            }
            for (key, texts) in [
                ("weekdays", &interval.weekdays),
                ("days_of_month", &interval.days_of_month),
                ("months", &interval.months),
                ("years", &interval.years),
            ] {
                if !texts.is_empty() {
                    entries.push((key, Node::texts(texts)));
                }
            }
            if let Some(location) = &interval.location {
                entries.push(("location", Node::text(location)));
            }
            Node::Map(entries)
        });
        Node::Map(vec![
            ("name", Node::text(route.id)),
            ("time_intervals", Node::List(intervals.collect())),
        ])
    };
    let muted = routes.iter().filter(|route| !route.mute_times.is_empty());
    Node::List(muted.map(of_route).collect())
}
