//! "Send a test": one alert for one channel, and what became of it, in words.
//!
//! The document has a route for this in front of all others: an alert with the label
//! `mimir_tenant_proxy_test` goes to the channel that it names and to no other. Alertmanager has no API for
//! what became of a notification. But every instance counts notifications by tenant and integration, and
//! tells which configuration it has loaded, so the counters before and after are compared, instance by
//! instance. An instance of which one of the two is missing may have sent the test, and may not: then
//! nothing is certain.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;
use uuid::Uuid;

use super::document::{Observed, TEST_LABEL};
use super::reconciler::{ChannelError, ChannelReconciler, Read};
use super::spec::channel::parse;
use super::spec::{ChannelRow, Omissions, Operator, Rows, State, desired};
use super::world::stored;
use crate::clock::Clock;
use crate::labels::TestOutcome;
use crate::mimir::Retriable as _;
use crate::mimir::alertmanager::{AlertmanagerError, Counters, TestAlert, config_hash};
use crate::store::NotificationKind;
use crate::tenancy::OrganisationId;
use crate::yaml::{Kind, Node};

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TestReport {
    pub outcome: TestOutcome,
    /// The same in words.
    pub reason: String,
    /// The identifier in the label `mimir_tenant_proxy_test_id` of the alert that was sent, if one was.
    pub test: Option<Uuid>,
    pub took_ms: u64,
}

/// Makes each test a group of its own, so that none waits for another's interval.
const TEST_ID_LABEL: &str = "mimir_tenant_proxy_test_id";
/// How long Mimir may take to load the channel: it looks every 15 seconds by default.
const LOAD_TIMEOUT: Duration = Duration::from_secs(35);
/// How long the notification may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to wait for the counters of an instance that gives no answer, before the test is sent without
/// them and its end cannot be known.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// How long the alert lasts. Alertmanager then says that it is resolved, where the channel wants that.
const LASTS: Duration = Duration::from_secs(60);

/// One reading of the counters: those of each instance, or `None` if it gave no answer.
type Reading = BTreeMap<String, Option<Counters>>;

impl ChannelReconciler {
    /// Sends a test to a channel and follows it.
    pub async fn send_test(
        &self,
        organisation: &OrganisationId,
        channel: Uuid,
        clock: &Clock,
    ) -> Result<TestReport, ChannelError> {
        let began = Instant::now();
        let test = Uuid::new_v4();
        let (outcome, reason) = self.try_channel(organisation, channel, test, clock).await?;
        let is_sent = !matches!(outcome, TestOutcome::NotLive | TestOutcome::NotLoaded);
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(TestReport { outcome, reason, test: is_sent.then_some(test), took_ms })
    }

    async fn try_channel(
        &self,
        organisation: &OrganisationId,
        channel: Uuid,
        test: Uuid,
        clock: &Clock,
    ) -> Result<(TestOutcome, String), ChannelError> {
        let Read { exists, rows, statuses, .. } = self.read(organisation).await?;
        if !exists {
            return Err(ChannelError::Missing("organisation"));
        }
        let row = rows.channels.iter().find(|row| row.id == channel);
        let row = row.ok_or(ChannelError::Missing("channel"))?;
        let of = |status: &&crate::store::NotificationStatusRow| {
            status.kind == NotificationKind::Channel && status.id == channel
        };
        let status = statuses.iter().find(of);
        if status.is_none_or(|status| status.state != State::Live) {
            let state = status.map_or("pending", |status| status.state.name());
            let reason = status.map(|status| status.reason.as_str()).unwrap_or_default();
            let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            return Ok((TestOutcome::NotLive, format!("the channel is {state}{because}")));
        }
        let tenant = self.tenant_of(organisation);
        let tenant = tenant.map_err(|error| ChannelError::Tenant(error.to_string()))?;

        // What Mimir has stored, and what its instances have loaded of that.
        let found = stored(&self.client, &tenant).await?;
        let found = found.and_then(|found| Observed::parse(found.expose()).ok());
        let is_there =
            |found: &Observed| found.live().is_some_and(|live| live.channels.contains(&channel));
        let Some(found) = found.filter(is_there) else {
            return Ok((
                TestOutcome::NotLive,
                "Mimir does not have the channel any more; the sync will repair that".to_owned(),
            ));
        };
        let parsed = parse(row, &self.operator).ok().flatten();
        let is_current = is_as_the_row(&found, row, &self.operator, organisation);
        let Some(parsed) = parsed.filter(|_| is_current) else {
            let reason = "Mimir has the channel as it was before its last change, which is not \
                          written yet; nothing was sent";
            return Ok((TestOutcome::NotLive, reason.to_owned()));
        };
        let integration = parsed.kind.integration();
        let wanted = config_hash(found.config());
        let (mut polling, mut completing) = (Polling::new(LOAD_TIMEOUT), None);
        let before = loop {
            let began = Instant::now();
            let reading = self.client.counters(&tenant, integration).await;
            let all_answered = reading.values().all(Option::is_some);
            if is_loaded(&reading, wanted) {
                let completing =
                    completing.get_or_insert_with(|| Polling::since(began, ANSWER_TIMEOUT));
                if all_answered || !completing.goes_on().await {
                    break reading;
                }
                continue;
            }
            if polling.goes_on().await {
                continue;
            }
            if loaded(&reading).next().is_none() && !all_answered {
                let reason = "Mimir's metrics cannot be read, so it is not known whether it has \
                              loaded the channel; nothing was sent";
                return Ok((TestOutcome::Unknown, reason.to_owned()));
            }
            let reason =
                "Mimir has stored the channel and not loaded it yet; nothing was sent, try again";
            return Ok((TestOutcome::NotLoaded, reason.to_owned()));
        };

        let name = row.name.as_deref().unwrap_or_default();
        let alert = test_alert(channel, test, name, clock);
        match self.client.post_alert(&tenant, &alert).await {
            Ok(()) => {}
            Err(error @ (AlertmanagerError::NotConfigured | AlertmanagerError::NotLoaded)) => {
                return Ok((
                    TestOutcome::NotLoaded,
                    format!("{error}; nothing was sent, try again"),
                ));
            }
            // It may have been sent.
            Err(error) if !error.is_transient() => return Err(error.into()),
            Err(error) => tracing::info!(%error, "Test alert not acknowledged"),
        }
        let mut polling = Polling::new(SEND_TIMEOUT);
        loop {
            let after = self.client.counters(&tenant, integration).await;
            if let Some(outcome) = judge(&before, &after) {
                return Ok(outcome);
            }
            if !polling.goes_on().await {
                return Ok(judge_late(&before, &after));
            }
        }
    }
}

/// Whether Mimir's document has a channel as its row is now. A document that waits or cannot be written keeps
/// the old address and the old secret, and a test would be about these. The rest of the document does not
/// matter: other rows may be waiting.
fn is_as_the_row(
    found: &Observed,
    row: &ChannelRow,
    operator: &Operator,
    organisation: &OrganisationId,
) -> bool {
    let alone = Rows { channels: vec![row.clone()], ..Rows::default() };
    let wanted = desired(&alone, operator, organisation, &Omissions::new()).document;
    let wanted = wanted.and_then(|document| Observed::parse(&document.body()).ok());
    let wanted = wanted.and_then(|wanted| receiver(&wanted, row.id));
    wanted.is_some() && wanted == receiver(found, row.id)
}

/// A channel's receiver in a document, with its secrets.
fn receiver(document: &Observed, channel: Uuid) -> Option<serde_json::Value> {
    let documents = Node::read_all(document.config()).ok()?;
    let Kind::List(receivers) = &documents.first()?.entry("receivers")?.value.kind else {
        return None;
    };
    let name = channel.to_string();
    let is_wanted =
        |node: &&Node| node.entry("name").and_then(|name| name.value.text()) == Some(name.as_str());
    receivers.iter().find(is_wanted).map(Node::to_json)
}

/// Which configurations the instances that serve the tenant have loaded.
fn loaded(reading: &Reading) -> impl Iterator<Item = f64> {
    reading.values().flatten().flat_map(|counters| counters.loaded.iter().copied())
}

/// Whether every instance that serves the tenant has loaded this configuration.
fn is_loaded(reading: &Reading, hash: f64) -> bool {
    loaded(reading).next().is_some() && loaded(reading).all(|loaded| (loaded - hash).abs() < 0.5)
}

fn test_alert(channel: Uuid, test: Uuid, name: &str, clock: &Clock) -> TestAlert {
    let now = clock.utc();
    let pairs = |pairs: &[(&str, String)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    };
    let labels: BTreeMap<String, String> = pairs(&[
        ("alertname", "TestNotification".to_owned()),
        (TEST_LABEL, channel.to_string()),
        (TEST_ID_LABEL, test.to_string()),
    ]);
    let annotations = pairs(&[
        ("summary", format!("This is a test of the notification channel {name:?}.")),
        ("description", "It was sent to see whether it arrives. No alert is firing.".to_owned()),
    ]);
    TestAlert { labels, annotations, starts_at: now, ends_at: now + LASTS }
}

/// Asks again and again, less and less often, until the time is over.
struct Polling {
    deadline: Instant,
    pause: Duration,
}

impl Polling {
    fn new(timeout: Duration) -> Self {
        Self::since(Instant::now(), timeout)
    }

    fn since(began: Instant, timeout: Duration) -> Self {
        Self { deadline: began + timeout, pause: FIRST_PAUSE }
    }

    /// Waits before the next time; returns whether there is one.
    async fn goes_on(&mut self) -> bool {
        if Instant::now() >= self.deadline {
            return false;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        true
    }
}

/// What happened between two readings, at the instances that both have.
#[derive(Default)]
struct Between {
    /// Whether these are all instances. If not, the test may have been sent by another one.
    is_whole: bool,
    begun: f64,
    delivered: f64,
    requests_failed: f64,
    suppressed: f64,
    /// Why notifications were given up.
    reasons: BTreeSet<String>,
}

impl Between {
    fn of(before: &Reading, after: &Reading) -> Self {
        let mut all = Self { is_whole: before.keys().eq(after.keys()), ..Self::default() };
        for (instance, after) in after {
            let before = before.get(instance).and_then(Option::as_ref);
            if before.is_none() && after.is_none() {
                continue; // it is away, and sends nothing
            }
            let both = before.zip(after.as_ref());
            let Some((before, after)) = both.filter(|(before, after)| goes_on(before, after))
            else {
                all.is_whole = false;
                continue;
            };
            let requests = after.requests - before.requests;
            let requests_failed = after.requests_failed - before.requests_failed;
            all.begun += after.notifications - before.notifications;
            all.delivered += (requests - requests_failed).max(0.0);
            all.requests_failed += requests_failed;
            all.suppressed += after.suppressed - before.suppressed;
            let failed = after.failed.iter().filter(|(reason, count)| {
                **count > before.failed.get(*reason).copied().unwrap_or_default()
            });
            all.reasons.extend(failed.map(|(reason, _)| reason.clone()));
        }
        all
    }
}

/// Whether no counter was reset between the readings: by a restart of the instance, or when it got the tenant back. What
/// it counted before the reset is not known.
fn goes_on(before: &Counters, after: &Counters) -> bool {
    let failed = |reason: &String| after.failed.get(reason).copied().unwrap_or_default();
    after.notifications >= before.notifications
        && after.requests >= before.requests
        && after.requests_failed >= before.requests_failed
        && after.suppressed >= before.suppressed
        && before.failed.iter().all(|(reason, count)| failed(reason) >= *count)
}

/// What became of the test, as soon as that is certain. Other notifications of the tenant by the same
/// integration are counted, too: only if all of them ended alike, the test did. So all instances must be
/// known, before and after, but for those that are away all the time.
fn judge(before: &Reading, after: &Reading) -> Option<(TestOutcome, String)> {
    let between = Between::of(before, after);
    if !between.is_whole || between.begun < 0.5 {
        return None;
    }
    if between.delivered + 0.5 > between.begun && between.reasons.is_empty() {
        let reason = if between.requests_failed < 0.5 {
            "the channel's service has accepted it".to_owned()
        } else {
            format!(
                "the channel's service has accepted it after {} failed attempts",
                between.requests_failed
            )
        };
        return Some((TestOutcome::Delivered, reason));
    }
    if between.delivered < 0.5 && !between.reasons.is_empty() {
        return Some((TestOutcome::Failed, given_up(&between.reasons)));
    }
    None
}

/// What can be said when the time is over.
fn judge_late(before: &Reading, after: &Reading) -> (TestOutcome, String) {
    let between = Between::of(before, after);
    if !between.is_whole {
        let reason = "not all of Mimir's metrics can be compared: an instance gave no answer, was \
                      restarted, came or went; look whether it arrived";
        return (TestOutcome::Unknown, reason.to_owned());
    }
    if between.begun > 0.5 && between.delivered < 0.5 && between.requests_failed > 0.5 {
        let reason = format!(
            "{} attempts failed so far, and Alertmanager goes on trying: the channel's service \
             answers with an error or cannot be reached, or its address is not allowed",
            between.requests_failed
        );
        return (TestOutcome::Failed, reason);
    }
    let reason = if between.begun > 1.5 {
        "other notifications of the same kind were sent at the same time, and not all arrived; \
         look whether it did, or try again"
    } else if between.begun > 0.5 {
        "Alertmanager is still sending it; the channel's service has not answered"
    } else if between.suppressed > 0.5 {
        "nothing was sent: a silence, an inhibition or a mute time matches the test"
    } else {
        "Alertmanager has taken it and sent nothing so far"
    };
    (TestOutcome::Unknown, reason.to_owned())
}

/// Mimir's classes of reasons in words (Alertmanager's `notify.Reason`).
fn given_up(reasons: &BTreeSet<String>) -> String {
    let words = |reason: &String| {
        match reason.as_str() {
        "clientError" => {
            "the channel's service refused it (an answer of 4xx): its address, token or key is wrong"
                .to_owned()
        }
        "serverError" => "the channel's service failed (an answer of 5xx)".to_owned(),
        "contextDeadlineExceeded" => {
            "the channel's service did not answer in time, or its address is not allowed".to_owned()
        }
        "contextCanceled" => "Alertmanager loaded another configuration meanwhile".to_owned(),
        "other" => "the channel's service cannot be reached, or its address is not allowed".to_owned(),
        other => format!("Alertmanager gave up: {other}"),
    }
    };
    let all: Vec<String> = reasons.iter().map(words).collect();
    all.join("; ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::channels::tests::{acme, channel_row, operator, route_row};
    use crate::config::Secret;

    // Seen: while Mimir refused the document with a new address, a test was "delivered" by the old one.
    #[test]
    fn a_test_is_sent_only_if_mimir_has_the_channel_as_its_row_is_now() {
        let operator = operator();
        let [one, two] = [1, 2].map(|id| channel_row(Uuid::from_u128(id)));
        let route = route_row(Uuid::from_u128(3), one.id);
        let rows = Rows {
            channels: vec![one.clone(), two.clone()],
            routes: vec![route],
            ..Rows::default()
        };
        let document = desired(&rows, &operator, &acme(), &Omissions::new()).document.unwrap();
        let found = Observed::parse(&document.body()).unwrap();
        let is_current = |row: &ChannelRow| is_as_the_row(&found, row, &operator, &acme());
        assert!(is_current(&one) && is_current(&two));
        let renamed = ChannelRow { name: Some("renamed".to_owned()), ..one.clone() };
        assert!(is_current(&renamed), "Mimir does not know its name");
        let secrets = Some(Secret::new(r#"{"url": "https://hooks.example.com/new"}"#));
        let settings = Some(r#"{"max_alerts": 7}"#.to_owned());
        for changed in [
            ChannelRow { secrets, ..one.clone() },
            ChannelRow { settings, ..one.clone() },
            ChannelRow { enabled: Some("false".to_owned()), ..one.clone() },
            ChannelRow { id: Uuid::from_u128(9), ..one.clone() },
        ] {
            assert!(!is_current(&changed), "{:?} {:?}", changed.settings, changed.enabled);
        }
    }

    fn counters(
        begun: u32,
        requests: u32,
        requests_failed: u32,
        failed: &[(&str, u32)],
    ) -> Counters {
        let failed = failed.iter().map(|(reason, count)| ((*reason).to_owned(), f64::from(*count)));
        Counters {
            notifications: begun.into(),
            requests: requests.into(),
            requests_failed: requests_failed.into(),
            failed: failed.collect(),
            ..Counters::default()
        }
    }

    fn reading<const N: usize>(instances: [Option<Counters>; N]) -> Reading {
        instances.into_iter().enumerate().map(|(at, one)| (at.to_string(), one)).collect()
    }

    /// Of one instance that has just been started.
    fn outcome(after: &Counters) -> Option<TestOutcome> {
        let [before, after] = [Counters::default(), after.clone()].map(|one| reading([Some(one)]));
        judge(&before, &after).map(|(outcome, _)| outcome)
    }

    fn late(before: Reading, after: Reading) -> (TestOutcome, String) {
        judge_late(&before, &after)
    }

    #[test]
    fn what_the_counters_say() {
        assert_eq!(outcome(&counters(0, 0, 0, &[])), None, "nothing happened");
        assert_eq!(outcome(&counters(1, 0, 0, &[])), None, "on its way");
        assert_eq!(outcome(&counters(1, 1, 0, &[])), Some(TestOutcome::Delivered));
        assert_eq!(outcome(&counters(1, 3, 2, &[])), Some(TestOutcome::Delivered));
        assert_eq!(outcome(&counters(1, 2, 2, &[])), None, "it is tried again");
        let refused = counters(1, 1, 1, &[("clientError", 1)]);
        assert_eq!(outcome(&refused), Some(TestOutcome::Failed));
        let [before, after] = [Counters::default(), refused].map(|one| reading([Some(one)]));
        assert!(judge(&before, &after).unwrap().1.contains("4xx"));
        // Another notification was delivered, or refused, at the same time: whose is it?
        assert_eq!(outcome(&counters(2, 2, 1, &[("clientError", 1)])), None);
        assert_eq!(outcome(&counters(2, 1, 0, &[])), None);
        assert_eq!(outcome(&counters(2, 2, 0, &[])), Some(TestOutcome::Delivered));
    }

    // Seen: an instance that had been slow to answer came back with all that it had ever sent, and the test
    // was "delivered" before it was sent.
    #[test]
    fn what_an_instance_counted_before_the_first_reading_is_not_the_test() {
        let idle = || Some(counters(3, 3, 0, &[]));
        let sent = || Some(counters(500, 500, 0, &[]));
        let lost = || Some(counters(500, 500, 500, &[("clientError", 500)]));
        for late_one in [sent(), lost()] {
            let after = reading([idle(), late_one]);
            for before in [reading([idle(), None]), reading([idle()])] {
                assert_eq!(judge(&before, &after), None);
                let (outcome, reason) = late(before, after.clone());
                assert_eq!(outcome, TestOutcome::Unknown);
                assert!(reason.contains("look whether it arrived"), "{reason}");
            }
        }
        // One that is away in the end, or lost its counters, may have sent it and failed.
        let delivered = || Some(counters(4, 4, 0, &[]));
        let before = reading([idle(), sent()]);
        for gone in [
            reading([delivered(), None]),
            reading([delivered()]),
            reading([delivered(), Some(counters(1, 1, 1, &[]))]),
        ] {
            assert_eq!(judge(&before, &gone), None);
            assert_eq!(late(before.clone(), gone).0, TestOutcome::Unknown);
        }
        let after = reading([delivered(), sent()]);
        assert_eq!(judge(&before, &after).unwrap().0, TestOutcome::Delivered);
    }

    #[test]
    fn only_instances_that_serve_the_tenant_have_to_load_the_channel() {
        let with =
            |hashes: &[f64]| Some(Counters { loaded: hashes.to_vec(), ..Counters::default() });
        assert!(is_loaded(&reading([with(&[7.0]), with(&[]), None]), 7.0));
        assert!(!is_loaded(&reading([with(&[7.0]), with(&[6.0])]), 7.0));
        assert!(!is_loaded(&reading([with(&[]), None]), 7.0));
    }

    #[test]
    fn what_can_be_said_when_the_time_is_over() {
        let late =
            |after: Counters| late(reading([Some(Counters::default())]), reading([Some(after)]));
        assert_eq!(late(counters(1, 2, 2, &[])).0, TestOutcome::Failed);
        for (after, part) in [
            (counters(0, 0, 0, &[]), "sent nothing"),
            (counters(1, 0, 0, &[]), "still sending"),
            (counters(2, 2, 1, &[("clientError", 1)]), "other notifications"),
            (Counters { suppressed: 1.0, ..Counters::default() }, "silence"),
        ] {
            let (outcome, reason) = late(after);
            assert_eq!(outcome, TestOutcome::Unknown);
            assert!(reason.contains(part), "{reason}");
        }
    }

    /// What an instance has counted: notifications, requests, failed ones of these, and notifications that
    /// were given up.
    type Count = [u32; 4];

    /// An instance: what it has counted at first, what happens, and what goes wrong with it.
    #[derive(Clone, Debug)]
    struct Simulated {
        at_first: Count,
        grows: Count,
        fault: u8,
    }

    fn simulated() -> impl Strategy<Value = Simulated> {
        let count = |most: u32| (0..most, 0..most, 0..most, 0..3_u32);
        // Without a fault it is in both readings.
        (count(600), count(4), 0..12_u8).prop_map(|(at_first, grows, fault)| {
            let valid = |(begun, requests, failed, given_up): (u32, u32, u32, u32)| {
                [begun, requests, failed.min(requests), given_up]
            };
            Simulated { at_first: valid(at_first), grows: valid(grows), fault }
        })
    }

    /// The fault of one that is away all the time, and sends nothing.
    const AWAY: u8 = 4;

    impl Simulated {
        /// What the readings before and after have of it; nothing if it is not in one of them.
        fn readings(&self) -> [Vec<Option<Counters>>; 2] {
            let of = |[begun, requests, failed, given_up]: Count| {
                vec![Some(counters(begun, requests, failed, &[("other", given_up)]))]
            };
            let away = || vec![None];
            let later = std::array::from_fn(|at| self.at_first[at] + self.grows[at]);
            let (before, after) = (of(self.at_first), of(later));
            match self.fault {
                0 => [away(), after],
                1 => [vec![], after],
                2 => [before, away()],
                3 => [before, vec![]],
                AWAY => [away(), away()],
                // A restart resets its counters. That is seen if one of them is lower.
                5 if (0..4).any(|at| self.grows[at] < self.at_first[at]) => {
                    [before, of(self.grows)]
                }
                _ => [before, after],
            }
        }
    }

    proptest! {
        // "Delivered" is never said of a test when any notification may have been lost, nor "failed" when
        // one may have arrived, whatever the instances have counted before, and whichever of them come, go,
        // give no answer or are restarted.
        #[test]
        fn delivered_is_certain(instances in proptest::collection::vec(simulated(), 1..4)) {
            let [mut before, mut after] = [Reading::new(), Reading::new()];
            for (at, instance) in instances.iter().enumerate() {
                let [first, second] = instance.readings();
                before.extend(first.into_iter().map(|one| (at.to_string(), one)));
                after.extend(second.into_iter().map(|one| (at.to_string(), one)));
            }
            let there = || instances.iter().filter(|one| one.fault != AWAY);
            let sum = |at: usize| there().map(|one| one.grows[at]).sum::<u32>();
            let [begun, requests, failed, given_up] = std::array::from_fn(sum);
            match judge(&before, &after).map(|(outcome, _)| outcome) {
                Some(TestOutcome::Delivered) => {
                    prop_assert!(begun > 0 && requests - failed >= begun && given_up == 0);
                }
                Some(TestOutcome::Failed) => {
                    prop_assert!(begun > 0 && requests == failed && given_up > 0);
                }
                _ => {}
            }
            if judge_late(&before, &after).0 == TestOutcome::Failed {
                prop_assert!(begun > 0 && requests == failed && failed > 0);
            }
        }
    }
}
