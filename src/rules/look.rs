//! A look at one tenant as a task of its own: its rows are read unless they came along, and then it
//! is activated.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::activation::{Mode, Rows, activate};
use super::engine::Engine;
use super::lease::Lease;
use super::memory::Memory;
use super::outcome::{Activated, Outcome};
use super::tenants::Begun;
use crate::tenancy::OrganisationId;

/// What came of a look.
pub(super) struct Looked {
    pub(super) organisation: OrganisationId,
    pub(super) activated: Activated,
    pub(super) memory: Box<Memory>,
    pub(super) heard_at: Option<Instant>,
    pub(super) requests: Vec<Uuid>,
    pub(super) took: Duration,
    /// The organisation is not there.
    pub(super) is_absent: bool,
    /// It is part of the look at everything.
    pub(super) is_survey: bool,
}

pub(super) struct Look {
    pub(super) engine: Arc<Engine>,
    pub(super) lease: Lease,
    pub(super) organisation: OrganisationId,
    pub(super) rows: Option<Rows>,
    pub(super) mode: Mode,
    pub(super) begun: Begun,
    pub(super) is_survey: bool,
    /// Somebody waits for a look at everything.
    pub(super) is_asked_for: bool,
}

impl Look {
    pub(super) async fn run(self) -> Looked {
        let Self { engine, lease, organisation, rows, mode, begun, is_survey, is_asked_for } = self;
        let Begun { mut memory, heard_at, requests } = begun;
        if is_asked_for || !requests.is_empty() {
            memory.doubt();
        }
        let began = Instant::now();
        let (rows, is_absent) = match rows {
            Some(rows) => (Ok(rows), false),
            None => match engine.store.alert_rules_of(vec![organisation.clone()]).await {
                Ok(mut snapshot) => {
                    let is_absent = !snapshot.existing.contains(&organisation);
                    let rules = snapshot.rows.remove(&organisation).unwrap_or_default();
                    let tombstones = snapshot.tombstones.remove(&organisation).unwrap_or_default();
                    (Ok(Rows { rules, tombstones, listing: None }), is_absent)
                }
                Err(error) => (Err(error), false),
            },
        };
        let activated = match rows {
            Ok(_) if is_absent => Activated::default(),
            Ok(rows) => activate(&engine, &lease, &organisation, &rows, &mut memory, mode).await,
            Err(error) => {
                Activated { outcome: Outcome::Failed(error.into()), ..Activated::default() }
            }
        };
        let took = began.elapsed();
        Looked { organisation, activated, memory, heard_at, requests, took, is_absent, is_survey }
    }
}
