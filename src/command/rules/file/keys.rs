//! The keys of a file with rules, and suggestions for unknown ones.

use crate::spelling::nearest;

/// A kind of mapping.
pub(super) struct Keys {
    /// What it is called.
    pub(super) of: &'static str,
    /// What it may hold.
    pub(super) known: &'static [&'static str],
    /// What is meant by a name from elsewhere, or why it has no place.
    meant: &'static [(&'static str, Meant)],
}

enum Meant {
    /// This one.
    Key(&'static str),
    /// Nothing that a rule here can say.
    Nothing(&'static str),
}
use Meant::{Key, Nothing};

const RECORDING: &str = "recording rules are not supported: alert_rule has alerts only";
const GROUP_LABELS: &str = "group labels have no column; write them into each rule";

/// A row of `alert_rule`.
pub(super) const ROW: Keys = Keys {
    of: "a rule",
    known: &[
        "name",
        "expr",
        "for_duration",
        "keep_firing_for",
        "rule_group",
        "evaluation_interval",
        "labels",
        "annotations",
        "enabled",
        "id",
        "organisation_id",
        "created_at",
        "updated_at",
    ],
    meant: &[
        ("alert", Key("name")),
        ("for", Key("for_duration")),
        ("group", Key("rule_group")),
        ("interval", Key("evaluation_interval")),
        ("query", Key("expr")),
        ("organisation", Key("organisation_id")),
        ("record", Nothing(RECORDING)),
    ],
};

/// Columns that have another name in a file with groups.
pub(super) const OF_GROUPS: &[(&str, &str)] = &[
    ("name", "alert"),
    ("for_duration", "for"),
    ("rule_group", "name of the group"),
    ("evaluation_interval", "interval"),
];

/// The column of a rule's key in a file with groups.
pub(super) fn column_of(key: &'static str) -> &'static str {
    OF_GROUPS.iter().find(|(_, name)| *name == key).map_or(key, |(column, _)| *column)
}

/// A file with groups.
pub(super) const FILE: Keys = Keys {
    of: "the file",
    known: &["groups"],
    meant: &[
        ("namespace", Nothing("the namespace is set by rules.namespace; leave it out")),
        (
            "rules",
            Nothing(
                "rules belong into groups: [{name: …, rules: […]}], or the file is a list of rules",
            ),
        ),
    ],
};

/// A group as Prometheus has it.
pub(super) const GROUP: Keys = Keys {
    of: "a group",
    known: &["name", "interval", "rules"],
    meant: &[
        ("evaluation_interval", Key("interval")),
        ("rule_group", Key("name")),
        ("labels", Nothing(GROUP_LABELS)),
        ("limit", Nothing("a limit on alerts has no column in alert_rule")),
        (
            "query_offset",
            Nothing("an offset has no column in alert_rule; write it into the expression"),
        ),
        (
            "evaluation_delay",
            Nothing("an offset has no column in alert_rule; write it into the expression"),
        ),
        ("source_tenants", Nothing("a rule reads only its own organisation")),
    ],
};

/// A rule of such a group.
pub(super) const RULE: Keys = Keys {
    of: "a rule",
    known: &["alert", "expr", "for", "keep_firing_for", "labels", "annotations"],
    meant: &[
        ("name", Key("alert")),
        ("for_duration", Key("for")),
        ("query", Key("expr")),
        ("record", Nothing(RECORDING)),
        ("rule_group", Nothing("the group's name is set on the group")),
        ("evaluation_interval", Nothing("the interval is set on the group, as interval")),
        ("interval", Nothing("the interval is set on the group")),
        ("enabled", Nothing("only a row can be disabled; leave the rule out")),
    ],
};

impl Keys {
    /// What is wrong with a key, if it is none of these.
    pub(super) fn fault(&self, key: &str) -> Option<String> {
        if self.known.contains(&key) {
            return None;
        }
        Some(match (self.listed(key), self.meant(key)) {
            (Some(Nothing(reason)), _) => format!("{key}: {reason}"),
            (_, Some(meant)) => format!("{key}: unknown key; did you mean {meant}?"),
            (_, None) => {
                format!("{key}: unknown key; {} has {}", self.of, self.known.join(", "))
            }
        })
    }

    /// Which key is meant by one that is none of these.
    pub(super) fn meant(&self, key: &str) -> Option<&'static str> {
        match self.listed(key) {
            Some(Nothing(_)) => None,
            Some(Key(meant)) => Some(meant),
            None if self.known.contains(&key) => None,
            None => nearest(&key.to_lowercase(), self.known.iter().copied()),
        }
    }

    fn listed(&self, key: &str) -> Option<&Meant> {
        self.meant.iter().find(|(name, _)| *name == key).map(|(_, meant)| meant)
    }
}
