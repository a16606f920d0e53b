//! One reconcile: reads what Mimir has for one tenant, and makes it have what the rows ask for.
//!
//! It takes no input but the organisation: the rows and Mimir's document decide what is done, not the
//! trigger. It is idempotent, and it may end between any two requests. There is one write, of the whole
//! document, so that there is no intermediate state.
//!
//! Only Mimir knows whether a document is valid. So the write is optimistic, and only if Mimir refuses
//! it, parts are tried until it is known which channels and routes it refuses ([`super::sift`]). These
//! are left out with Mimir's words, and the rest is written.

mod memory;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::document::{Document, Live, Observed, diff_texts};
use super::guard::{foreign, missing};
use super::outcome::{Failure, Outcome};
use super::reach::Reach;
use super::sift::Sift;
use super::spec::{
    ChannelRow, Desired, LeftOut, Omissions, Operator, Rows, State, States, desired,
    without_integrations,
};
use super::world::{ReadsMimir, World, WriteError};
use crate::mimir::ExchangeError;
use crate::mimir::alertmanager::{AlertmanagerError, Checked, ConfigurationBody, Redactor};
use crate::store::{GuardHeld, NotificationKind, NotificationStatusRow};
use crate::tenancy::OrganisationId;

pub(crate) use memory::Memory;

/// What a reconcile goes by.
pub(crate) struct Given<'a> {
    pub(crate) organisation: &'a OrganisationId,
    pub(crate) operator: &'a Operator,
    pub(crate) rows: &'a Rows,
    /// The statuses as they stand in the table.
    pub(crate) statuses: &'a [NotificationStatusRow],
    /// The ID of the hold that an administrator has confirmed just now.
    pub(crate) confirmed: Option<&'a str>,
    /// The digest of the document that was written last, by whichever leader.
    pub(crate) written: Option<&'a str>,
    /// The organisation has been gone for longer than the grace period: its document is to be deleted,
    /// even if there are rows. The guard applies all the same.
    pub(crate) is_purge: bool,
    /// An administrator has confirmed that, and with it the loss of rows.
    pub(crate) is_purge_confirmed: bool,
}

#[derive(Debug)]
pub(crate) struct Reconciled {
    pub(crate) outcome: Outcome,
    pub(crate) channels: States,
    pub(crate) routes: States,
    /// Which alerts reach a channel; none if that is not known, as for a foreign document.
    pub(crate) reach: Option<Reach>,
    /// Whether Mimir has what the rows ask for, so that their tombstones are carried out.
    pub(crate) is_done: bool,
    pub(crate) wrote: bool,
    /// Live channels and routes that were written now, and were not there like this before.
    pub(crate) renewed: BTreeSet<Uuid>,
    /// The digest of what Mimir has now, if it is ours.
    pub(crate) document: Option<String>,
    /// Mimir has a foreign document.
    pub(crate) is_foreign: bool,
}

/// Writes of one reconcile. Each one more follows a refusal that was explained, so only a Mimir that
/// contradicts itself gets here.
const MOST_ROUNDS: usize = 4;
/// Mimir's words would be about everybody's rows, and whoever writes one could make them repeat a guess at
/// the secret of another.
const REFUSED_TOGETHER: &str = "it accepts each channel and route alone, and not all together";

enum Stop {
    LeaseLost,
    Failed(Failure),
}

/// What Mimir has.
enum Found {
    /// Nothing, or what the fallback leaves.
    Nothing,
    Ours(Observed, Live),
    Foreign(Observed),
}

impl Found {
    fn read(stored: Option<ConfigurationBody>) -> Result<Self, AlertmanagerError> {
        let Some(stored) = stored else { return Ok(Self::Nothing) };
        // Mimir's YAML always ends so. Half of a document would be missing in the other half.
        if !stored.expose().ends_with('\n') {
            return Err(ExchangeError::Unreadable("it is cut off".to_owned()).into());
        }
        // The reason of a failure repeats nothing of it.
        let observed = Observed::parse(stored.expose()).map_err(ExchangeError::Unreadable)?;
        Ok(match observed.live() {
            Some(live) => Self::Ours(observed, live),
            None if observed.is_empty() => Self::Nothing,
            None => Self::Foreign(observed),
        })
    }

    fn is_foreign(&self) -> bool {
        matches!(self, Self::Foreign(_))
    }

    /// Whether it is what is wanted, byte for byte. An organisation without channels keeps a foreign
    /// document.
    fn is(&self, document: Option<&Document>) -> bool {
        match (self, document) {
            (Self::Nothing | Self::Foreign(_), None) => true,
            (Self::Ours(observed, _), Some(wanted)) => wanted.is(observed),
            _ => false,
        }
    }
}

struct Reconcile<'a, W> {
    world: &'a W,
    given: &'a Given<'a>,
    memory: &'a mut Memory,
    redactor: Redactor,
    /// A trial was stored, because this Mimir takes what it must refuse.
    is_dirty: bool,
    /// Mimir was seen to have something else than what is wanted.
    is_behind: bool,
    wrote: bool,
}

/// What a sync would do, without doing it.
pub(crate) struct Preview {
    /// The document as Mimir has it and as it would be, both without secrets.
    pub(crate) before: String,
    pub(crate) after: String,
    pub(crate) is_in_sync: bool,
    pub(crate) is_foreign: bool,
    pub(crate) guard: Option<GuardHeld>,
    pub(crate) channels: States,
    pub(crate) routes: States,
}

pub(crate) async fn reconcile<W: World>(
    world: &W,
    given: &Given<'_>,
    memory: &mut Memory,
) -> Reconciled {
    memory.tidy(given.rows);
    let redactor = secrets_of(given.rows.channels.iter());
    let mut run = Reconcile {
        world,
        given,
        memory,
        redactor,
        is_dirty: false,
        is_behind: false,
        wrote: false,
    };
    let mut wanted = run.desired();
    let mut is_foreign = false;
    let outcome = match run.run(&mut wanted, &mut is_foreign).await {
        Ok(outcome) => outcome,
        Err(Stop::LeaseLost) => Outcome::LeaseLost,
        Err(Stop::Failed(failure)) => Outcome::Failed(failure),
    };
    let (wrote, is_behind) = (run.wrote, run.is_behind);
    let Desired { document, channels, routes, reach } = wanted;
    let document = document.map(|document| document.digest());
    let is_done = matches!(outcome, Outcome::Unchanged | Outcome::Applied);
    let mut reconciled = Reconciled {
        channels,
        routes,
        reach: (is_done && !is_foreign).then_some(reach),
        is_done,
        wrote,
        renewed: BTreeSet::new(),
        document: document.clone().filter(|_| is_done),
        is_foreign,
        outcome,
    };
    if is_done {
        if wrote {
            let live = live_of(&reconciled.channels).into_iter().chain(live_of(&reconciled.routes));
            let is_new = |id: &Uuid| memory.is_as_written(given.rows, *id) != Some(true);
            reconciled.renewed = live.filter(is_new).collect();
        }
        memory.remember(given.rows);
    } else {
        let was_written = !is_behind && document.is_some() && document.as_deref() == given.written;
        unsettle(&mut reconciled, given, memory, was_written);
    }
    reconciled
}

impl Reconciled {
    /// Mimir was not even asked.
    pub(crate) fn failed(given: &Given<'_>, memory: &Memory, failure: Failure) -> Self {
        let left_out = memory.left_out(given.rows);
        let wanted = desired(given.rows, given.operator, given.organisation, &left_out);
        let mut reconciled = Self {
            outcome: Outcome::Failed(failure),
            channels: wanted.channels,
            routes: wanted.routes,
            reach: None,
            is_done: false,
            wrote: false,
            renewed: BTreeSet::new(),
            document: None,
            is_foreign: false,
        };
        unsettle(&mut reconciled, given, memory, false);
        reconciled
    }
}

impl<W: World> Reconcile<'_, W> {
    async fn run(&mut self, wanted: &mut Desired, is_foreign: &mut bool) -> Result<Outcome, Stop> {
        let found = Found::read(self.world.stored().await?)?;
        *is_foreign = found.is_foreign();
        self.is_behind = !found.is(wanted.document.as_ref());
        if let Some(held) = held(&found, self.given, wanted.document.as_ref()) {
            return Ok(Outcome::Held(held));
        }
        if !self.is_behind {
            return Ok(Outcome::Unchanged);
        }
        for _ in 0..MOST_ROUNDS {
            match self.put(&found, wanted.document.as_ref()).await {
                Ok(()) => {
                    *is_foreign = found.is_foreign() && !self.wrote;
                    let outcome = if self.wrote { Outcome::Applied } else { Outcome::Unchanged };
                    return Ok(outcome);
                }
                Err(WriteError::Mimir(AlertmanagerError::Refused(_))) => {
                    if !self.find_refused(wanted).await? {
                        let words = REFUSED_TOGETHER.to_owned();
                        return Err(AlertmanagerError::Refused(words).into());
                    }
                }
                Err(WriteError::Mimir(AlertmanagerError::TooBig(limit))) => {
                    self.learn_limit(limit)?;
                }
                Err(error) => return Err(error.into()),
            }
            *wanted = self.desired();
            if !self.is_dirty && found.is(wanted.document.as_ref()) {
                return Ok(Outcome::Unchanged);
            }
        }
        Err(AlertmanagerError::Refused("again and again".to_owned()).into())
    }

    /// The one write.
    async fn put(&mut self, found: &Found, document: Option<&Document>) -> Result<(), WriteError> {
        match document {
            Some(document) => self.world.set(&body_of(document), &self.redactor).await?,
            None if self.is_dirty || matches!(found, Found::Ours(..)) => {
                self.world.delete().await?;
            }
            None => return Ok(()),
        }
        self.wrote = true;
        self.is_dirty = false;
        Ok(())
    }
}

impl<W: ReadsMimir> Reconcile<'_, W> {
    fn desired(&self) -> Desired {
        let wanted = self.desired_without(&self.memory.left_out(self.given.rows));
        match self.memory.limit() {
            Some(limit) => self.within(wanted, limit),
            None => wanted,
        }
    }

    /// The smallest document. What Mimir says against it is said against every organisation's.
    fn smallest(&self) -> Document {
        let Given { operator, organisation, .. } = self.given;
        without_integrations(&Rows::default(), operator, organisation, &Omissions::new())
    }

    /// Remembers Mimir's limit on a document's size, unless no document is small enough for it: then the rows
    /// are not at fault, and what is live stays.
    fn learn_limit(&mut self, limit: usize) -> Result<(), AlertmanagerError> {
        if body_of(&self.smallest()).bytes() > limit {
            return Err(AlertmanagerError::TooBig(limit));
        }
        self.memory.learn_limit(limit);
        Ok(())
    }

    fn desired_without(&self, left_out: &Omissions) -> Desired {
        let Given { organisation, operator, rows, is_purge, .. } = self.given;
        if *is_purge {
            return desired(&Rows::default(), operator, organisation, left_out);
        }
        desired(rows, operator, organisation, left_out)
    }

    /// Leaves out the youngest channels and routes until the document is within Mimir's limit on its size. So
    /// what is added never displaces what was there.
    fn within(&self, whole: Desired, limit: usize) -> Desired {
        let fits = |wanted: &Desired| {
            wanted.document.as_ref().is_none_or(|document| body_of(document).bytes() <= limit)
        };
        if fits(&whole) {
            return whole;
        }
        let Rows { channels, routes, .. } = self.given.rows;
        // Of the same age a route is younger: it is nothing without its channel.
        let channels = channels.iter().map(|row| ((row.created_at_micros, false), row.id));
        let routes = routes.iter().map(|row| ((row.created_at_micros, true), row.id));
        let ages: HashMap<Uuid, _> = channels.chain(routes).map(|(age, id)| (id, age)).collect();
        let mut youngest = live_of(&whole.channels);
        youngest.extend(live_of(&whole.routes));
        youngest.sort_by_key(|id| std::cmp::Reverse((ages.get(id).copied(), *id)));
        let reason = format!(
            "Mimir takes at most {limit} bytes of channels and routes for the organisation; older \
             ones come first"
        );
        let without = |count: usize| {
            let mut left_out = self.memory.left_out(self.given.rows);
            let omitted = youngest.iter().take(count);
            left_out.extend(omitted.map(|id| (*id, LeftOut::TooMuch(reason.clone()))));
            self.desired_without(&left_out)
        };
        let counts: Vec<usize> = (0..=youngest.len()).collect();
        without(counts.partition_point(|count| !fits(&without(*count))))
    }

    /// Finds out what Mimir refuses, and quarantines it; returns whether anything was found. Channels
    /// first, without their routes, and then the routes with all channels that Mimir accepts. What a Mimir
    /// refuses that refuses everything is nobody's fault: that is a failure, and what is live stays.
    async fn find_refused(&mut self, wanted: &Desired) -> Result<bool, WriteError> {
        let (accepted, mut refused) = self.sift(live_of(&wanted.channels), None, wanted).await?;
        let (_, refused_routes) =
            self.sift(live_of(&wanted.routes), Some(&accepted), wanted).await?;
        refused.extend(refused_routes);
        if refused.is_empty() {
            return Ok(false);
        }
        let control = body_of(&self.smallest());
        if self.world.check(&control, &Redactor::default()).await? == Checked::Stored {
            self.is_dirty = true;
        }
        self.memory.quarantine(self.given.rows, refused);
        Ok(true)
    }

    /// Sifts channels, or routes with the channels that are accepted. What is shown of a refusal must not
    /// depend on a secret that its author cannot read, or they could guess it letter by letter. So the trial of
    /// a channel has no other channel's secrets in it, and the trial of a route has none.
    async fn sift(
        &mut self,
        items: Vec<Uuid>,
        accepted: Option<&[Uuid]>,
        wanted: &Desired,
    ) -> Result<(Vec<Uuid>, BTreeMap<Uuid, String>), WriteError> {
        let Given { organisation, operator, rows, .. } = self.given;
        let mut sift = Sift::new(items);
        while let Some(set) = sift.next() {
            let tried: BTreeSet<Uuid> =
                set.iter().chain(accepted.unwrap_or_default()).copied().collect();
            let mut left_out = self.memory.left_out(rows);
            let all = live_of(&wanted.channels).into_iter().chain(live_of(&wanted.routes));
            let others = all.filter(|id| !tried.contains(id));
            left_out.extend(others.map(|id| (id, LeftOut::NotTried)));
            let (document, redactor) = if accepted.is_some() {
                let document = without_integrations(rows, operator, organisation, &left_out);
                (document, Redactor::default())
            } else {
                let Some(document) = self.desired_without(&left_out).document else {
                    sift.accept();
                    continue;
                };
                (document, secrets_of(rows.channels.iter().filter(|row| set.contains(&row.id))))
            };
            match self.world.check(&body_of(&document), &redactor).await {
                Ok(Checked::Valid) => sift.accept(),
                Ok(Checked::Stored) => {
                    self.is_dirty = true;
                    sift.accept();
                }
                // Not the fault of one row. The whole document is measured when it is written.
                Err(WriteError::Mimir(AlertmanagerError::TooBig(_))) => sift.accept(),
                Err(WriteError::Mimir(AlertmanagerError::Refused(words))) => sift.refuse(words),
                Err(error) => return Err(error),
            }
        }
        Ok(sift.into_found())
    }
}

/// What has to be confirmed first, and was not.
fn held(found: &Found, given: &Given<'_>, wanted: Option<&Document>) -> Option<GuardHeld> {
    if given.is_purge_confirmed {
        return None;
    }
    let held = match found {
        // It was deleted by hand, or a file is being written while it is read: what was live then is
        // known from the statuses.
        Found::Nothing if given.written.is_some() => {
            let live = live_by_status(given.statuses);
            let missing = missing(&live, given.rows);
            (!missing.is_empty()).then(|| missing.held(&live))
        }
        Found::Nothing => None,
        Found::Foreign(observed) => wanted.is_some().then(|| foreign(observed)),
        Found::Ours(_, live) => {
            let missing = missing(live, given.rows);
            (!missing.is_empty()).then(|| missing.held(live))
        }
    };
    held.filter(|held| given.confirmed != Some(held.id.as_str()))
}

fn live_by_status(statuses: &[NotificationStatusRow]) -> Live {
    let live = |kind: NotificationKind| {
        let of_kind = statuses.iter().filter(|row| row.kind == kind && row.state == State::Live);
        of_kind.map(|row| row.id).collect()
    };
    Live { channels: live(NotificationKind::Channel), routes: live(NotificationKind::Route) }
}

/// Reads, plans and asks the guard, and stops before the write: Mimir only checks what would be written.
pub(crate) async fn preview<W: ReadsMimir>(
    world: &W,
    given: &Given<'_>,
) -> Result<Preview, AlertmanagerError> {
    let mut memory = Memory::default();
    let redactor = secrets_of(given.rows.channels.iter());
    let mut run = Reconcile {
        world,
        given,
        memory: &mut memory,
        redactor,
        is_dirty: false,
        is_behind: false,
        wrote: false,
    };
    let found = Found::read(world.stored().await?)?;
    let mut wanted = run.desired();
    let guard = held(&found, given, wanted.document.as_ref());
    if guard.is_none() && !found.is(wanted.document.as_ref()) {
        wanted = run.checked(wanted).await?;
    }
    let is_in_sync = found.is(wanted.document.as_ref());
    // A foreign document stays where there is nothing to be written over it, and is never shown.
    let live = match &found {
        Found::Ours(observed, _) => Some(observed),
        Found::Nothing | Found::Foreign(_) => None,
    };
    let (before, after) = diff_texts(live, wanted.document.as_ref());
    let is_foreign = found.is_foreign();
    let Desired { channels, routes, .. } = wanted;
    Ok(Preview { before, after, is_in_sync, is_foreign, guard, channels, routes })
}

impl<W: ReadsMimir> Reconcile<'_, W> {
    /// What Mimir would accept of a document.
    async fn checked(&mut self, mut wanted: Desired) -> Result<Desired, AlertmanagerError> {
        for _ in 0..MOST_ROUNDS {
            let Some(document) = &wanted.document else { break };
            match self.world.check(&body_of(document), &self.redactor).await {
                Ok(_) | Err(WriteError::LeaseLost) => break,
                Err(WriteError::Mimir(AlertmanagerError::TooBig(limit))) => {
                    self.learn_limit(limit)?;
                }
                Err(WriteError::Mimir(AlertmanagerError::Refused(_))) => {
                    match self.find_refused(&wanted).await {
                        Ok(true) => {}
                        Ok(false) | Err(WriteError::LeaseLost) => break,
                        Err(WriteError::Mimir(error)) => return Err(error),
                    }
                }
                Err(WriteError::Mimir(error)) => return Err(error),
            }
            wanted = self.desired();
        }
        Ok(wanted)
    }
}

/// The states if the document was not written: what Mimir had it still has. `was_written` says whether the
/// document is the one that was written last, as far as its digest tells, in which there are no secrets: two
/// that differ in a secret alone look the same. So it counts only for rows of which the memory knows nothing.
fn unsettle(reconciled: &mut Reconciled, given: &Given<'_>, memory: &Memory, was_written: bool) {
    let (state, reason) = match &reconciled.outcome {
        Outcome::Held(held) => {
            let reason = format!("waits for an administrator's confirmation: {}", held.reason);
            (State::Pending, reason)
        }
        Outcome::Failed(failure) => {
            (State::Error, format!("{}; the sync is retried automatically", failure.reason))
        }
        Outcome::Unchanged | Outcome::Applied | Outcome::LeaseLost => return,
    };
    let was_live: HashMap<(NotificationKind, Uuid), bool> =
        given.statuses.iter().map(|row| ((row.kind, row.id), row.state == State::Live)).collect();
    let parts = [
        (NotificationKind::Channel, &mut reconciled.channels),
        (NotificationKind::Route, &mut reconciled.routes),
    ];
    for (kind, states) in parts {
        for (id, now) in states {
            let was_live = was_live.get(&(kind, *id)).copied().unwrap_or(false);
            let is_same = memory.is_as_written(given.rows, *id).unwrap_or(was_written);
            match now.0 {
                State::Live if was_live && is_same => {}
                // Not `disabled`, because Mimir has it until the document can be written.
                State::Disabled if !was_live => {}
                State::Live | State::Disabled => *now = (state, reason.clone()),
                State::Pending | State::Invalid | State::OverLimit | State::Error => {}
            }
        }
    }
}

fn body_of(document: &Document) -> ConfigurationBody {
    ConfigurationBody::new(document.body())
}

/// Every text in the `secrets` of channels, to be taken out of what Mimir says.
fn secrets_of<'a>(channels: impl Iterator<Item = &'a ChannelRow>) -> Redactor {
    fn collect(value: &serde_json::Value, into: &mut Vec<String>) {
        match value {
            serde_json::Value::String(text) => into.push(text.clone()),
            serde_json::Value::Number(number) => into.push(number.to_string()),
            serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
            serde_json::Value::Object(fields) => {
                fields.values().for_each(|field| collect(field, into));
            }
            serde_json::Value::Null | serde_json::Value::Bool(_) => {}
        }
    }
    let mut texts = Vec::new();
    for secrets in channels.filter_map(|row| row.secrets.as_ref()) {
        match serde_json::from_slice(secrets.expose()) {
            Ok(value) => collect(&value, &mut texts),
            Err(_) => texts.push(String::from_utf8_lossy(secrets.expose()).into_owned()),
        }
    }
    Redactor::new(texts.iter().map(String::as_str))
}

fn live_of(states: &States) -> Vec<Uuid> {
    let live = states.iter().filter(|(_, (state, _))| *state == State::Live);
    live.map(|(id, _)| *id).collect()
}

impl From<AlertmanagerError> for Stop {
    fn from(error: AlertmanagerError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<WriteError> for Stop {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::LeaseLost => Self::LeaseLost,
            WriteError::Mimir(error) => error.into(),
        }
    }
}
