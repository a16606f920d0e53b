//! What `rules diff` and `channels diff` print: each tenant that differs, and how many could not be compared.

use std::fmt::{Display, Write as _};

use serde_json::{Value, json};

use super::rules::MOST_UNANSWERED;
use super::{EXIT_UNAVAILABLE, Outcome, Said, database_failed, unavailable};
use crate::store::{GuardHeld, StoreError};
use crate::tenancy::{OrganisationId, TenantId};

pub(super) struct Comparison {
    as_json: bool,
    compared: usize,
    answer: String,
    views: Vec<Value>,
    notes: Vec<String>,
    differing: usize,
    unanswered: usize,
    unanswered_in_a_row: usize,
}

impl Comparison {
    pub(super) fn of(organisations: usize, as_json: bool) -> Self {
        Self {
            as_json,
            compared: organisations,
            answer: String::new(),
            views: Vec::new(),
            notes: Vec::new(),
            differing: 0,
            unanswered: 0,
            unanswered_in_a_row: 0,
        }
    }

    /// There is nothing to compare, for a reason that is the organisation's.
    pub(super) fn note(&mut self, organisation: &OrganisationId, reason: impl Display) {
        self.notes.push(format!("{organisation}: {reason}"));
    }

    /// One organisation could not be compared. Ends the command if the next ones could not be, either:
    /// one tenant may be too much for Mimir, but if several fail, the fault is Mimir's.
    pub(super) fn unanswered(
        &mut self,
        organisation: &OrganisationId,
        error: impl Display,
    ) -> Result<(), Said> {
        self.unanswered += 1;
        self.unanswered_in_a_row += 1;
        self.note(organisation, error);
        if self.unanswered_in_a_row >= MOST_UNANSWERED {
            return Err(unavailable(self.notes.join("\n")));
        }
        Ok(())
    }

    /// Ends the command: what the database did not do for one organisation it would not do for the next.
    pub(super) fn database_failed(
        mut self,
        organisation: &OrganisationId,
        error: &StoreError,
    ) -> Outcome {
        self.note(organisation, error);
        let notes = self.notes.join("\n");
        match database_failed(error) {
            Ok(said) => Ok(Said { note: Some(notes), ..said }),
            Err(_) => Err(notes),
        }
    }

    pub(super) fn answered(&mut self, is_in_sync: bool) {
        self.unanswered_in_a_row = 0;
        self.differing += usize::from(!is_in_sync);
    }

    /// Begins an organisation's part, as text or with these fields as JSON. `confirm` is the command that
    /// confirms what is held.
    pub(super) fn begin(
        &mut self,
        organisation: &OrganisationId,
        tenant: &TenantId,
        held: Option<&GuardHeld>,
        confirm: &str,
        fields: Value,
    ) {
        if self.as_json {
            let mut view = json!({
                "organisation": organisation.as_str(),
                "tenant": tenant.as_str(),
                "guard": held.map(|held| &held.reason),
                "guard_id": held.map(|held| &held.id),
            });
            if let (Some(view), Value::Object(fields)) = (view.as_object_mut(), fields) {
                view.extend(fields);
            }
            self.views.push(view);
            return;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(self.answer, "# organisation {organisation}, tenant {}", tenant.as_str());
        if let Some(held) = held {
            let _ = writeln!(
                self.answer,
                "# held until it is confirmed: {}; {confirm} {} --organisation {organisation}",
                held.reason, held.id
            );
        }
    }

    /// Adds to the text of an organisation's part.
    pub(super) fn add(&mut self, text: &str) {
        if !self.as_json {
            self.answer.push_str(text);
        }
    }

    /// The whole. `more` ends the note that counts. The exit code is 1 if a sync would change anything.
    pub(super) fn finish(mut self, more: &str) -> Said {
        if self.as_json {
            self.answer = json!({ "organisations": self.views }).to_string();
        }
        let unknown = match self.unanswered {
            0 => String::new(),
            unanswered => format!(", {unanswered} unknown"),
        };
        self.notes.push(format!(
            "{} organisations, {} of them not in sync{unknown}{more}",
            self.compared, self.differing
        ));
        let exit_code = match self.unanswered {
            0 => u8::from(self.differing > 0),
            _ => EXIT_UNAVAILABLE,
        };
        let answer = self.answer.trim_end().to_owned();
        Said { answer, note: Some(self.notes.join("\n")), exit_code }
    }
}
