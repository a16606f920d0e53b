//! `[rules]`, which this version does not serve. Its keys are known and may stand there switched
//! off, so that one file serves this version and the next; switched on they are a fault, because a
//! setting that is silently ignored is worse than none.

use std::time::Duration;

use super::reader::Section;
use super::values::{duration, switch, text};

pub(super) fn rules(section: &mut Section<'_>) {
    let day = Duration::from_secs(86_400);
    section.get("namespace", String::new(), text);
    section.get("reconcile_interval", day, |raw| duration(raw, Duration::from_secs(1), day));
    section.secret("webhook_secret");
    if section.get("enabled", false, switch) {
        let problem = "must be false: this version syncs no alert rules";
        section.fault("enabled", problem.to_owned());
    }
}
