//! Whole reconciles against a model of Mimir that refuses, fails and forgets.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use parking_lot::Mutex;
use proptest::collection::btree_set;
use proptest::prelude::*;

use super::*;
use crate::channels::tests::{acme, channel_row, operator, route_row};
use crate::config::Secret;

/// A Mimir of one tenant.
#[derive(Default)]
struct Model {
    stored: Mutex<Option<String>>,
    /// Every body that was stored, in order.
    written: Mutex<Vec<String>>,
    checks: Mutex<usize>,
    /// It refuses a body that holds one of these texts, with words that repeat it.
    refused: BTreeSet<String>,
    limit: Option<usize>,
    /// It refuses everything, as a load balancer before it may.
    refuses_all: Mutex<bool>,
    /// So many requests are answered; then Mimir is away.
    answers: Mutex<Option<usize>>,
    /// It takes what it must refuse.
    stores_trials: bool,
}

const AWAY: &str = "connection refused";

impl Model {
    fn answer(&self) -> Result<(), AlertmanagerError> {
        let mut answers = self.answers.lock();
        match &mut *answers {
            Some(0) => Err(ExchangeError::Unreachable(AWAY.to_owned()).into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn judge(&self, body: &ConfigurationBody, redactor: &Redactor) -> Result<(), WriteError> {
        self.answer().map_err(WriteError::Mimir)?;
        if let Some(limit) = self.limit.filter(|limit| body.bytes() > *limit) {
            return Err(WriteError::Mimir(AlertmanagerError::TooBig(limit)));
        }
        if *self.refuses_all.lock() {
            return Err(WriteError::Mimir(AlertmanagerError::Refused("bad request".to_owned())));
        }
        match self.refused.iter().find(|text| body.expose().contains(text.as_str())) {
            Some(text) => {
                let words = redactor.redact(&format!("cannot take {text}"));
                Err(WriteError::Mimir(AlertmanagerError::Refused(words)))
            }
            None => Ok(()),
        }
    }

    fn store(&self, body: &ConfigurationBody) {
        *self.stored.lock() = Some(body.expose().to_owned());
        self.written.lock().push(body.expose().to_owned());
    }

    fn live(&self) -> Live {
        let stored = self.stored.lock();
        let observed = stored.as_ref().map(|text| Observed::parse(text).unwrap());
        observed.and_then(|observed| observed.live()).unwrap_or_default()
    }
}

impl ReadsMimir for Model {
    async fn stored(&self) -> Result<Option<ConfigurationBody>, AlertmanagerError> {
        self.answer()?;
        Ok(self.stored.lock().clone().map(ConfigurationBody::new))
    }

    async fn check(
        &self,
        body: &ConfigurationBody,
        redactor: &Redactor,
    ) -> Result<Checked, WriteError> {
        *self.checks.lock() += 1;
        self.judge(body, redactor)?;
        if self.stores_trials {
            self.store(body);
            return Ok(Checked::Stored);
        }
        Ok(Checked::Valid)
    }
}

impl World for Model {
    async fn set(&self, body: &ConfigurationBody, redactor: &Redactor) -> Result<(), WriteError> {
        self.judge(body, redactor)?;
        self.store(body);
        Ok(())
    }

    async fn delete(&self) -> Result<(), WriteError> {
        self.answer().map_err(WriteError::Mimir)?;
        *self.stored.lock() = None;
        self.written.lock().push(String::new());
        Ok(())
    }
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// Channels of these numbers, with a route each, whose number is 1000 more.
fn rows(channels: impl IntoIterator<Item = u128>) -> Rows {
    let mut rows = Rows::default();
    for number in channels {
        rows.channels.push(channel_row(id(number)));
        rows.routes.push(route_row(id(number + 1000), id(number)));
    }
    rows
}

fn buried(channels: impl IntoIterator<Item = u128>) -> Rows {
    let at = || "2026-01-01".to_owned();
    let mut rows = Rows::default();
    for number in channels {
        rows.channel_tombstones.insert(id(number), at());
        rows.route_tombstones.insert(id(number + 1000), at());
    }
    rows
}

static ORGANISATION: LazyLock<OrganisationId> = LazyLock::new(acme);
static OPERATOR: LazyLock<Operator> = LazyLock::new(operator);

fn given(rows: &Rows) -> Given<'_> {
    Given {
        organisation: &ORGANISATION,
        operator: &OPERATOR,
        rows,
        statuses: &[],
        confirmed: None,
        written: None,
        is_purge: false,
        is_purge_confirmed: false,
    }
}

async fn run(model: &Model, rows: &Rows) -> Reconciled {
    reconcile(model, &given(rows), &mut Memory::default()).await
}

fn state(states: &States, number: u128) -> (State, &str) {
    let (state, reason) = &states[&id(number)];
    (*state, reason)
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The address of a channel's webhook, which nothing else in the document holds.
fn address(number: u128) -> String {
    format!("hooks.example.com/{}", id(number))
}

/// A text that only this route has.
fn matcher(number: u128) -> String {
    format!("severity=\\\\\\\"{number}\\\\\\\"")
}

#[tokio::test]
async fn rows_become_a_document_and_the_second_time_nothing_is_written() {
    let model = Model::default();
    let reconciled = run(&model, &rows([1, 2])).await;
    assert_eq!(reconciled.outcome, Outcome::Applied);
    assert_eq!(state(&reconciled.channels, 1), (State::Live, ""));
    assert_eq!(model.live().channels, [id(1), id(2)].into());
    assert_eq!(model.live().routes, [id(1001), id(1002)].into());
    assert_eq!(run(&model, &rows([1, 2])).await.outcome, Outcome::Unchanged);
    assert_eq!((model.written.lock().len(), *model.checks.lock()), (1, 0));
}

#[tokio::test]
async fn without_rows_nothing_is_written_and_deleted_rows_take_the_document_along() {
    let model = Model::default();
    assert_eq!(run(&model, &Rows::default()).await.outcome, Outcome::Unchanged);
    assert!(model.written.lock().is_empty());
    run(&model, &rows([1])).await;
    assert_eq!(run(&model, &buried([1])).await.outcome, Outcome::Applied);
    assert_eq!(*model.stored.lock(), None);
}

#[tokio::test]
async fn a_row_that_is_missing_holds_everything_until_exactly_that_is_confirmed() {
    let model = Model::default();
    run(&model, &rows([1, 2, 3])).await;
    let before = model.stored.lock().clone();
    let held = |reconciled: &Reconciled| match &reconciled.outcome {
        Outcome::Held(held) => held.clone(),
        other => panic!("{other:?}"),
    };
    // One is gone, and another one is new.
    let first = held(&run(&model, &rows([1, 2, 4])).await);
    assert!(first.reason.starts_with("1 of 3 channels and 1 of 3 routes"), "{}", first.reason);
    // All are gone: a truncated table, a role that sees nothing, another database.
    let all = held(&run(&model, &Rows::default()).await);
    assert_ne!(all.id, first.id);
    assert_eq!(*model.stored.lock(), before);
    // A confirmation of the one does not permit the other.
    let memory = &mut Memory::default();
    let none = Rows::default();
    let confirmed = Given { confirmed: Some(&first.id), ..given(&none) };
    held(&reconcile(&model, &confirmed, memory).await);
    assert_eq!(*model.stored.lock(), before);
    let left = rows([1, 2, 4]);
    let confirmed = Given { confirmed: Some(&first.id), ..given(&left) };
    let reconciled = reconcile(&model, &confirmed, memory).await;
    assert_eq!(reconciled.outcome, Outcome::Applied);
    assert_eq!(model.live().channels, [id(1), id(2), id(4)].into());
}

#[tokio::test]
async fn a_foreign_document_is_untouched_until_it_is_confirmed() {
    let foreign = "alertmanager_config: |\n  route:\n    receiver: somebody\n  receivers:\n    - name: somebody\n";
    let model = Model { stored: Mutex::new(Some(foreign.to_owned())), ..Model::default() };
    let nothing = run(&model, &Rows::default()).await;
    assert_eq!((nothing.outcome.clone(), nothing.is_foreign), (Outcome::Unchanged, true));
    assert!(nothing.reach.is_none(), "whom it reaches is not known");
    let reconciled = run(&model, &rows([1])).await;
    let Outcome::Held(held) = &reconciled.outcome else { panic!("{:?}", reconciled.outcome) };
    assert_eq!(state(&reconciled.channels, 1).0, State::Pending);
    assert_eq!(model.stored.lock().as_deref(), Some(foreign));
    let rows = rows([1]);
    let confirmed = Given { confirmed: Some(&held.id), ..given(&rows) };
    let reconciled = reconcile(&model, &confirmed, &mut Memory::default()).await;
    assert_eq!(reconciled.outcome, Outcome::Applied);
    assert_eq!(model.live().channels, [id(1)].into());
}

#[tokio::test]
async fn what_somebody_changed_by_hand_is_repaired() {
    let model = Model::default();
    run(&model, &rows([1, 2])).await;
    let right = model.stored.lock().clone();
    let edited = right.clone().unwrap().replace("4h", "1h");
    assert_ne!(Some(&edited), right.as_ref());
    *model.stored.lock() = Some(edited);
    assert_eq!(run(&model, &rows([1, 2])).await.outcome, Outcome::Applied);
    assert_eq!(*model.stored.lock(), right);
    // Deleted by hand, too: that has no explanation to be asked for.
    *model.stored.lock() = None;
    assert_eq!(run(&model, &rows([1, 2])).await.outcome, Outcome::Applied);
    assert_eq!(*model.stored.lock(), right);
}

#[tokio::test]
async fn broken_ones_are_left_out_with_their_own_reasons_and_are_not_asked_for_again() {
    let refused = [address(7), address(31), matcher(1050), matcher(1099)];
    let model = Model { refused: refused.into(), ..Model::default() };
    let rows = rows(1..=100);
    let mut memory = Memory::default();
    let reconciled = reconcile(&model, &given(&rows), &mut memory).await;
    assert_eq!(reconciled.outcome, Outcome::Applied);
    let live = |states: &States| live_of(states).len();
    assert_eq!((live(&reconciled.channels), live(&reconciled.routes)), (98, 96));
    for number in [7, 31] {
        let (state, reason) = state(&reconciled.channels, number);
        assert_eq!(state, State::Invalid);
        // Mimir's words, and not the address that they repeat.
        assert!(reason.contains("cannot take"), "{reason}");
        assert!(!reason.contains(&id(number).to_string()), "{reason}");
    }
    for number in [1050, 1099] {
        let (state, reason) = state(&reconciled.routes, number);
        assert!(state == State::Invalid && reason.contains("cannot take"), "{reason}");
    }
    assert_eq!(model.written.lock().len(), 1);
    let checks = *model.checks.lock();
    let again = reconcile(&model, &given(&rows), &mut memory).await;
    assert_eq!((again.outcome, *model.checks.lock()), (Outcome::Unchanged, checks));
    assert_eq!(state(&again.channels, 7).0, State::Invalid);
}

#[tokio::test]
async fn an_edited_row_is_tried_again_and_the_other_stays_left_out() {
    let model = Model { refused: [address(1), address(2)].into(), ..Model::default() };
    let (mut rows, mut memory) = (rows([1, 2, 3]), Memory::default());
    reconcile(&model, &given(&rows), &mut memory).await;
    rows.channels[0].secrets = Some(Secret::new(r#"{"url": "https://hooks.example.com/mended"}"#));
    let reconciled = reconcile(&model, &given(&rows), &mut memory).await;
    assert_eq!(state(&reconciled.channels, 1).0, State::Live);
    assert_eq!(state(&reconciled.channels, 2).0, State::Invalid);
    assert_eq!(model.live().channels, [id(1), id(3)].into());
}

#[tokio::test]
async fn mimirs_limit_on_the_size_leaves_out_the_youngest() {
    let whole = Model::default();
    run(&whole, &rows(1..=10)).await;
    let bytes = whole.stored.lock().as_ref().unwrap().len();
    let model = Model { limit: Some(bytes * 3 / 4), ..Model::default() };
    let mut memory = Memory::default();
    let reconciled = reconcile(&model, &given(&rows(1..=10)), &mut memory).await;
    assert_eq!(reconciled.outcome, Outcome::Applied);
    let live = model.live().channels;
    assert!(live.len() > 3 && live.len() < 10, "{live:?}");
    let oldest: BTreeSet<Uuid> = (1..=live.len() as u128).map(id).collect();
    assert_eq!(live, oldest);
    assert_eq!(state(&reconciled.channels, 10).0, State::OverLimit);
    assert!(state(&reconciled.channels, 10).1.contains("bytes"));
    let again = reconcile(&model, &given(&rows(1..=10)), &mut memory).await;
    assert_eq!(again.outcome, Outcome::Unchanged);
}

// Whoever adds what is too much loses that, and nothing that was there: not even by routes to an old channel.
#[tokio::test]
async fn new_routes_that_are_too_much_leave_out_no_old_channel() {
    let model = Model::default();
    run(&model, &rows([1, 2])).await;
    let bytes = model.stored.lock().as_ref().unwrap().len();
    let model = Model { limit: Some(bytes + 2000), stored: model.stored, ..Model::default() };
    let mut more = rows([1, 2]);
    for number in 2000..2020 {
        let mut route = route_row(id(number), id(1));
        route.matchers = Some(format!("[\"site=\\\"{}\\\"\"]", "x".repeat(400)));
        more.routes.push(route);
    }
    let reconciled = run(&model, &more).await;
    assert_eq!(reconciled.outcome, Outcome::Applied);
    assert_eq!(model.live().channels, [id(1), id(2)].into());
    assert!(model.live().routes.is_superset(&[id(1001), id(1002), id(2000)].into()));
    let (state, reason) = state(&reconciled.routes, 2019);
    assert!(state == State::OverLimit && reason.contains("bytes"), "{reason}");
}

// A limit that no document meets, or a template that is too large, or something before Mimir that refuses every
// request: no row is at fault, and what is live stays.
#[tokio::test]
async fn a_mimir_that_refuses_everything_leaves_what_is_live() {
    let model = Model::default();
    let mut memory = Memory::default();
    reconcile(&model, &given(&rows([1, 2])), &mut memory).await;
    let stored = model.stored.lock().clone();
    for limit in [None, Some(10)] {
        let model = Model { limit, stored: Mutex::new(stored.clone()), ..Model::default() };
        *model.refuses_all.lock() = limit.is_none();
        let more = rows([1, 2, 3]);
        let reconciled = reconcile(&model, &given(&more), &mut memory).await;
        let Outcome::Failed(failure) = &reconciled.outcome else { panic!("{reconciled:?}") };
        assert!(!failure.is_transient, "{failure:?}");
        assert_eq!(*model.stored.lock(), stored);
        assert_eq!(state(&reconciled.channels, 3).0, State::Error);
        // And it is over when Mimir has changed its mind: nothing was quarantined.
        let model = Model { stored: Mutex::new(stored.clone()), ..Model::default() };
        let reconciled = reconcile(&model, &given(&more), &mut memory).await;
        assert_eq!(reconciled.outcome, Outcome::Applied);
        assert_eq!(model.live().channels, [id(1), id(2), id(3)].into());
    }
}

// Whether a refusal is shown must not tell the author of a route about the secret of a channel: letter by letter
// that would be all of it.
#[tokio::test]
async fn a_refused_route_is_no_way_to_guess_a_secret() {
    let mut rows = rows([1, 2]);
    rows.channels[0].secrets =
        Some(Secret::new(r#"{"url": "https://hooks.example.com/kp4zq9lw2"}"#));
    for guess in ["kp4zq9", "kp4zq8"] {
        let text = format!("Zone-{guess}");
        rows.routes[1].matchers = Some(format!("[\"site=\\\"{text}\\\"\"]"));
        let model = Model { refused: [text.clone()].into(), ..Model::default() };
        let reconciled = run(&model, &rows).await;
        let (state, reason) = state(&reconciled.routes, 1002);
        assert_eq!(state, State::Invalid);
        assert!(reason.contains(&text), "{reason}");
    }
}

#[tokio::test]
async fn while_mimir_is_away_what_is_live_stays_so_and_what_is_new_says_why_not() {
    let model = Model::default();
    let (mut rows, mut memory) = (rows([1, 2]), Memory::default());
    let reconciled = reconcile(&model, &given(&rows), &mut memory).await;
    let statuses: Vec<NotificationStatusRow> = reconciled
        .channels
        .iter()
        .map(|(id, (state, reason))| NotificationStatusRow {
            kind: NotificationKind::Channel,
            id: *id,
            organisation: acme(),
            state: *state,
            reason: reason.clone(),
            synced_at: None,
        })
        .collect();
    *model.answers.lock() = Some(0);
    rows.channels.push(channel_row(id(3)));
    rows.channels[1].name = Some("renamed".to_owned());
    let with_statuses = Given { statuses: &statuses, ..given(&rows) };
    let reconciled = reconcile(&model, &with_statuses, &mut memory).await;
    assert!(matches!(reconciled.outcome, Outcome::Failed(_)));
    assert_eq!(state(&reconciled.channels, 1), (State::Live, ""));
    for number in [2, 3] {
        let (state, reason) = state(&reconciled.channels, number);
        assert_eq!(state, State::Error);
        assert!(reason.contains("retried automatically"), "{reason}");
    }
    // A new leader remembers nothing, and goes by the digest of what was written.
    let document = {
        *model.answers.lock() = None;
        run(&model, &rows).await.document.unwrap()
    };
    *model.answers.lock() = Some(0);
    let with_digest = Given { written: Some(&document), ..with_statuses };
    let reconciled = reconcile(&model, &with_digest, &mut Memory::default()).await;
    assert_eq!(state(&reconciled.channels, 1).0, State::Live);
    *model.answers.lock() = None;
    assert_eq!(run(&model, &rows).await.outcome, Outcome::Unchanged);
}

/// What the table says after a reconcile.
fn statuses_of(reconciled: &Reconciled) -> Vec<NotificationStatusRow> {
    let status = |kind, (id, (state, reason)): (&Uuid, &(State, String))| NotificationStatusRow {
        kind,
        id: *id,
        organisation: acme(),
        state: *state,
        reason: reason.clone(),
        synced_at: None,
    };
    let channels = reconciled.channels.iter().map(|row| status(NotificationKind::Channel, row));
    let routes = reconciled.routes.iter().map(|row| status(NotificationKind::Route, row));
    channels.chain(routes).collect()
}

// Seen: a webhook that had leaked got another address while Mimir could not be written, and stayed `live`. The
// digest of a document is that of its redacted text, so a changed secret does not change it.
#[tokio::test]
async fn a_changed_secret_that_is_not_written_is_not_live() {
    // Mimir is away; it refuses every document; a lost row holds it.
    for (away, refuses_all, is_held) in
        [(true, false, false), (false, true, false), (false, false, true)]
    {
        let model = Model::default();
        let (mut rows, mut memory) = (rows([1, 2, 3]), Memory::default());
        let first = reconcile(&model, &given(&rows), &mut memory).await;
        let (statuses, written) = (statuses_of(&first), first.document.unwrap());
        rows.channels[0].secrets = Some(Secret::new(r#"{"url": "https://hooks.example.com/new"}"#));
        if is_held {
            rows.channels.pop();
        }
        *model.answers.lock() = away.then_some(0);
        *model.refuses_all.lock() = refuses_all;
        let now = Given { statuses: &statuses, written: Some(&written), ..given(&rows) };
        let second = reconcile(&model, &now, &mut memory).await;
        let expected = if is_held { State::Pending } else { State::Error };
        assert_eq!(state(&second.channels, 1).0, expected, "{:?}", second.outcome);
        assert_eq!(state(&second.channels, 2), (State::Live, ""), "{:?}", second.outcome);
        assert_eq!(state(&second.routes, 1001).0, State::Live, "it is as it was");
        // And when it can be written, it is.
        *model.answers.lock() = None;
        *model.refuses_all.lock() = false;
        let confirmed = match &second.outcome {
            Outcome::Held(held) => Some(held.id.as_str()),
            _ => None,
        };
        let third = reconcile(&model, &Given { confirmed, ..now }, &mut memory).await;
        assert_eq!(third.outcome, Outcome::Applied);
        assert_eq!(state(&third.channels, 1), (State::Live, ""));
        assert!(third.renewed.contains(&id(1)));
    }
}

// The same after a restart, when nothing is remembered: what was read says that Mimir has something else.
#[tokio::test]
async fn after_a_restart_the_digest_does_not_outweigh_what_mimir_has() {
    let model = Model::default();
    let mut rows = rows([1]);
    let first = run(&model, &rows).await;
    let (statuses, written) = (statuses_of(&first), first.document.unwrap());
    *model.refuses_all.lock() = true;
    rows.channels[0].secrets = Some(Secret::new(r#"{"url": "https://hooks.example.com/new"}"#));
    let now = Given { statuses: &statuses, written: Some(&written), ..given(&rows) };
    let second = reconcile(&model, &now, &mut Memory::default()).await;
    assert!(matches!(second.outcome, Outcome::Failed(_)), "{:?}", second.outcome);
    assert_eq!(state(&second.channels, 1).0, State::Error);
}

// On a file system Mimir reads an empty configuration while it writes one.
#[tokio::test]
async fn where_mimir_has_nothing_any_more_the_statuses_say_what_was_live() {
    let model = Model::default();
    let reconciled = run(&model, &rows([1, 2])).await;
    let document = reconciled.document.clone().unwrap();
    let status = |kind, id| NotificationStatusRow {
        kind,
        id,
        organisation: acme(),
        state: State::Live,
        reason: String::new(),
        synced_at: None,
    };
    let channels = [1, 2].map(|number| status(NotificationKind::Channel, id(number)));
    let routes = [1001, 1002].map(|number| status(NotificationKind::Route, id(number)));
    let statuses: Vec<NotificationStatusRow> = channels.into_iter().chain(routes).collect();
    *model.stored.lock() = None;
    let lost = rows([1]);
    let knowing = Given { statuses: &statuses, written: Some(&document), ..given(&lost) };
    let reconciled = reconcile(&model, &knowing, &mut Memory::default()).await;
    let Outcome::Held(held) = &reconciled.outcome else { panic!("{:?}", reconciled.outcome) };
    assert!(held.reason.starts_with("1 of 2 channels and 1 of 2 routes"), "{}", held.reason);
    assert!(model.stored.lock().is_none());
    // With all rows there it is written again.
    let whole = rows([1, 2]);
    let knowing = Given { statuses: &statuses, written: Some(&document), ..given(&whole) };
    let reconciled = reconcile(&model, &knowing, &mut Memory::default()).await;
    assert_eq!(reconciled.outcome, Outcome::Applied);
}

#[tokio::test]
async fn a_purge_needs_explanations_too() {
    let model = Model::default();
    run(&model, &rows([1])).await;
    let memory = &mut Memory::default();
    let none = Rows::default();
    let lost = reconcile(&model, &Given { is_purge: true, ..given(&none) }, memory).await;
    assert!(matches!(lost.outcome, Outcome::Held(_)));
    assert!(model.stored.lock().is_some());
    let confirmed = Given { is_purge: true, is_purge_confirmed: true, ..given(&none) };
    assert_eq!(reconcile(&model, &confirmed, memory).await.outcome, Outcome::Applied);
    assert!(model.stored.lock().is_none());
    run(&model, &rows([1])).await;
    let explained = buried([1]);
    let deleted = reconcile(&model, &Given { is_purge: true, ..given(&explained) }, memory).await;
    assert_eq!(deleted.outcome, Outcome::Applied);
    assert!(model.stored.lock().is_none());
}

// What a Mimir does that accepts the trials is not pretty, but the end is right.
#[tokio::test]
async fn a_mimir_that_stores_trials_has_the_right_document_in_the_end() {
    let model = Model { stores_trials: true, refused: [address(2)].into(), ..Model::default() };
    assert_eq!(run(&model, &rows([1, 2, 3])).await.outcome, Outcome::Applied);
    assert_eq!(model.live().channels, [id(1), id(3)].into());
    let model = Model { stores_trials: true, refused: [address(1)].into(), ..Model::default() };
    run(&model, &rows([1])).await;
    assert!(model.live().channels.is_empty());
}

#[tokio::test]
async fn parts_that_are_refused_only_together_fail_and_change_nothing() {
    struct Jealous(Model);
    impl ReadsMimir for Jealous {
        async fn stored(&self) -> Result<Option<ConfigurationBody>, AlertmanagerError> {
            self.0.stored().await
        }
        async fn check(
            &self,
            body: &ConfigurationBody,
            redactor: &Redactor,
        ) -> Result<Checked, WriteError> {
            self.0.check(body, redactor).await
        }
    }
    impl World for Jealous {
        async fn set(&self, _: &ConfigurationBody, _: &Redactor) -> Result<(), WriteError> {
            Err(WriteError::Mimir(AlertmanagerError::Refused("I do not like it".to_owned())))
        }
        async fn delete(&self) -> Result<(), WriteError> {
            self.0.delete().await
        }
    }
    let model = Jealous(Model::default());
    let reconciled = reconcile(&model, &given(&rows([1, 2])), &mut Memory::default()).await;
    let Outcome::Failed(failure) = &reconciled.outcome else { panic!("{:?}", reconciled.outcome) };
    assert!(failure.problem.contains("not all together") && !failure.is_transient);
    assert_eq!(state(&reconciled.channels, 1).0, State::Error);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // However many are broken, whatever was live and is still right is in every document that Mimir ever
    // has, and in the end Mimir has exactly what it accepts.
    #[test]
    fn what_is_live_and_right_stays_live_throughout(
        before in btree_set(1..20_u128, 0..10), after in btree_set(1..20_u128, 0..12),
        bad in btree_set(1..20_u128, 0..5), bad_routes in btree_set(1..20_u128, 0..5),
    ) {
        block_on(async {
            let refused = bad.iter().map(|number| address(*number));
            let refused = refused.chain(bad_routes.iter().map(|number| matcher(number + 1000)));
            let model = Model { refused: refused.collect(), ..Model::default() };
            run(&model, &rows(before.clone())).await;
            let was_live = model.live();
            model.written.lock().clear();
            let gone = buried(before.difference(&after).copied());
            let now = Rows { channel_tombstones: gone.channel_tombstones, route_tombstones: gone.route_tombstones, ..rows(after.clone()) };
            let reconciled = run(&model, &now).await;
            assert!(reconciled.is_done, "{:?}", reconciled.outcome);
            let wanted: BTreeSet<Uuid> = after.difference(&bad).map(|number| id(*number)).collect();
            let routes: BTreeSet<Uuid> = after
                .iter()
                .filter(|number| !bad.contains(number) && !bad_routes.contains(number))
                .map(|number| id(number + 1000))
                .collect();
            assert_eq!((model.live().channels, model.live().routes), (wanted.clone(), routes.clone()));
            let stays: BTreeSet<Uuid> = was_live.channels.intersection(&wanted).copied().collect();
            for text in &*model.written.lock() {
                let live = if text.is_empty() { Live::default() } else { Observed::parse(text).unwrap().live().unwrap() };
                assert!(stays.is_subset(&live.channels));
            }
            let live: BTreeSet<Uuid> = live_of(&reconciled.channels).into_iter().collect();
            assert_eq!(live, wanted);
            assert_eq!(run(&model, &now).await.outcome, Outcome::Unchanged);
        });
    }

    // A reconcile may end at any request, and the next one, perhaps of another leader, brings it to the
    // same end. On the way nothing is deleted that has a row.
    #[test]
    fn an_interrupted_reconcile_is_finished_by_the_next(
        before in btree_set(1..10_u128, 1..6), after in btree_set(1..10_u128, 1..8),
        bad in btree_set(1..10_u128, 0..3), answers in 0..12_usize,
    ) {
        block_on(async {
            let model = Model { refused: bad.iter().map(|number| address(*number)).collect(), ..Model::default() };
            run(&model, &rows(before.clone())).await;
            let was_live = model.live().channels;
            let gone = buried(before.difference(&after).copied());
            let now = Rows { channel_tombstones: gone.channel_tombstones, route_tombstones: gone.route_tombstones, ..rows(after.clone()) };
            *model.answers.lock() = Some(answers);
            run(&model, &now).await;
            let wanted: BTreeSet<Uuid> = after.difference(&bad).map(|number| id(*number)).collect();
            let live = model.live().channels;
            assert!(live == was_live || live == wanted, "{live:?}");
            *model.answers.lock() = None;
            run(&model, &now).await;
            assert_eq!(model.live().channels, wanted);
        });
    }

    // The promise: nothing is deleted without a row that says so or a tombstone.
    #[test]
    fn nothing_is_deleted_without_an_explanation(
        before in btree_set(1..10_u128, 1..8), left in btree_set(1..10_u128, 0..8),
        dead in btree_set(1..10_u128, 0..8),
    ) {
        block_on(async {
            let model = Model::default();
            run(&model, &rows(before.clone())).await;
            let stored = model.stored.lock().clone();
            let graves = buried(dead.clone());
            let now = Rows { channel_tombstones: graves.channel_tombstones, route_tombstones: graves.route_tombstones, ..rows(left.clone()) };
            let reconciled = run(&model, &now).await;
            let is_lost = before.iter().any(|number| !left.contains(number) && !dead.contains(number));
            if is_lost {
                assert!(matches!(reconciled.outcome, Outcome::Held(_)));
                assert_eq!(*model.stored.lock(), stored);
            } else {
                assert!(reconciled.is_done);
                assert_eq!(model.live().channels, left.iter().map(|number| id(*number)).collect());
            }
        });
    }
}
