use std::collections::BTreeMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::channels::spec::SecretText;
use crate::channels::spec::kinds::Kind;
use crate::channels::spec::matcher::{self, MOST_PATTERN_WEIGHT};
use crate::channels::spec::route::GroupBy;

fn channel(id: u128, is_default: bool) -> Channel {
    let kind = Kind::Discord(SecretText::new("https://discord.com/api/webhooks/1/x"));
    Channel { id: Uuid::from_u128(id), is_default, send_resolved: true, kind }
}

fn route(matchers: Vec<Matcher>) -> Route {
    Route {
        id: Uuid::from_u128(9),
        channel: Uuid::from_u128(1),
        position: 0,
        created: 0,
        matchers,
        group_by: GroupBy::Root,
        group_wait: None,
        group_interval: None,
        repeat_interval: None,
        mute_times: Vec::new(),
        continue_matching: false,
    }
}

fn routed(matchers: &[&str]) -> Reach {
    let mut room = MOST_PATTERN_WEIGHT;
    let mut read = |text: &&str| matcher::parse(text, &mut room).unwrap();
    let routes: Vec<Route> = matchers.iter().map(|text| route(read(text))).collect();
    Reach::new(&[channel(1, false)], &routes)
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn no_is_said_only_where_no_labels_could_make_it_a_yes() {
    let critical = labels(&[("severity", "critical")]);
    for (matchers, reaches) in [
        (&[r#"severity="critical""#][..], Some(true)),
        (&[r#"severity="warning""#], Some(false)),
        (&[r#"severity=~"crit.*""#], Some(true)),
        (&[r#"severity!~"crit.*""#], Some(false)),
        // Anchored, as Alertmanager's are.
        (&[r#"severity=~"crit""#], Some(false)),
        (&[r#"severity!="critical",team="a""#], Some(false)),
        (&[r#"team="a""#], None),
        (&[r#"team=~".*""#], Some(true)),
        (&[r#"team!~".*""#], Some(false)),
        (&[r#"team="a",team="b""#], Some(false)),
        (&[r#"team="a",team=~"b""#], Some(false)),
        (&[r#"team!="a""#], None),
        (&[r#"severity="warning""#, r#"severity="critical""#], Some(true)),
        // Only Go knows whether it matches.
        (&[r#"severity=~"x{""#], None),
        (&[], Some(false)),
    ] {
        assert_eq!(routed(matchers).reaches(&critical), reaches, "{matchers:?}");
    }
    assert_eq!(Reach::default().reaches(&critical), Some(false));
    let default = Reach::new(&[channel(1, true)], &[]);
    assert_eq!(default.reaches(&critical), Some(true));
}

const VALUES: [&str; 3] = ["", "a", "b"];

fn any_matcher() -> impl Strategy<Value = Matcher> {
    let operator = prop::sample::select(vec![
        Operator::Equal,
        Operator::NotEqual,
        Operator::Matches,
        Operator::MatchesNot,
    ]);
    let name = prop::sample::select(vec!["x", "y", "z"]);
    let value = prop::sample::select(vec!["", "a", "b", "a|b", ".*", ".+", "[^a]"]);
    (name, operator, value).prop_map(|(name, operator, value)| Matcher {
        name: name.to_owned(),
        operator,
        value: value.to_owned(),
    })
}

/// Alertmanager's tree, walked: the channel that an alert reaches first.
fn walks_to_a_channel(routes: &[Vec<Matcher>], alert: &BTreeMap<&str, &str>) -> bool {
    let matches = |matcher: &Matcher| {
        let value = alert.get(matcher.name.as_str()).copied().unwrap_or_default();
        let pattern = || regex_lite::Regex::new(&format!("^(?:{})$", matcher.value)).unwrap();
        match matcher.operator {
            Operator::Equal => value == matcher.value,
            Operator::NotEqual => value != matcher.value,
            Operator::Matches => pattern().is_match(value),
            Operator::MatchesNot => !pattern().is_match(value),
        }
    };
    routes.iter().any(|matchers| matchers.iter().all(matches))
}

proptest! {
    // Against every alert of a small world, of which some labels are known.
    #[test]
    fn what_is_said_holds_for_every_alert(
        routes in prop::collection::vec(prop::collection::vec(any_matcher(), 0..4), 0..4),
        known in prop::collection::btree_map(
            prop::sample::select(vec!["x", "y", "z"]), prop::sample::select(VALUES.to_vec()), 0..3,
        ),
    ) {
        let rows: Vec<Route> = routes.iter().map(|matchers| route(matchers.clone())).collect();
        let reach = Reach::new(&[channel(1, false)], &rows);
        let pairs: Vec<(&str, &str)> = known.iter().map(|(name, value)| (*name, *value)).collect();
        let said = reach.reaches(&labels(&pairs));
        for x in VALUES {
            for y in VALUES {
                for z in VALUES {
                    let alert = BTreeMap::from([("x", x), ("y", y), ("z", z)]);
                    if known.iter().any(|(name, value)| alert[name] != *value) {
                        continue;
                    }
                    let reaches = walks_to_a_channel(&routes, &alert);
                    prop_assert!(said.is_none_or(|said| said == reaches), "{:?} of {:?}", said, alert);
                }
            }
        }
    }
}

// What is not asked is not known: a rule that is told to notify nobody by mistake would be worse.
#[test]
fn many_patterns_for_one_rule_are_not_all_asked() {
    let routes: Vec<String> = (0..200).map(|n| format!(r#"site=~"s{n}.*|t{n}""#)).collect();
    let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
    let reach = routed(&routes);
    let of = |site: &str| reach.reaches(&labels(&[("site", site)]));
    assert_eq!(of("s3"), Some(true));
    assert_eq!(of("elsewhere, and far away from here"), None);
    assert_eq!(routed(&routes[..20]).reaches(&labels(&[("site", "elsewhere")])), Some(false));
    // Those that another matcher ends are not asked, and lists of words cost next to nothing.
    let others: Vec<String> = routes.iter().map(|route| format!(r#"{route},team="b""#)).collect();
    let words = (0..200).map(|n| format!(r#"site=~"platform-{n}|payments-{n}|search-{n}""#));
    let routes: Vec<String> = others.into_iter().chain(words).collect();
    let reach = routed(&routes.iter().map(String::as_str).collect::<Vec<_>>());
    let of = |site: &str| reach.reaches(&labels(&[("site", site), ("team", "a")]));
    assert_eq!(of("elsewhere, and far away from here"), Some(false));
    assert_eq!(of("search-199"), Some(true));
}
