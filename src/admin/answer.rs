//! Answers of `/admin`: the only place that knows the statuses of what went well. What went wrong is
//! `rejection`'s.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::AdminError;
use crate::admin_executor::OrganisationSlot;

/// An answer, and what it acted on.
#[derive(Debug)]
pub struct Answer {
    success: Success,
    body: Result<Bytes, serde_json::Error>,
    target: Option<String>,
    slot: Option<OrganisationSlot>,
}

/// A body with the slot that is free when nothing of it is in memory any more: a client that does not read keeps its
/// answer there.
struct Held {
    body: Bytes,
    _slot: OrganisationSlot,
}

/// How it went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Success {
    /// It is done.
    Done,
    /// Something new is there.
    Created,
    /// It goes on after the answer.
    Accepted,
}

impl Success {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Done => StatusCode::OK,
            Self::Created => StatusCode::CREATED,
            Self::Accepted => StatusCode::ACCEPTED,
        }
    }
}

impl Answer {
    /// Answers with a view.
    pub(super) fn of(view: &impl Serialize) -> Self {
        Self::written(serde_json::to_vec(view).map(Bytes::from))
    }

    /// Answers with a view that was written before.
    pub(super) fn written(body: Result<Bytes, serde_json::Error>) -> Self {
        Self { success: Success::Done, body, target: None, slot: None }
    }

    pub(super) fn created(self) -> Self {
        Self { success: Success::Created, ..self }
    }

    pub(super) fn accepted(self) -> Self {
        Self { success: Success::Accepted, ..self }
    }

    /// Notes what the request acted on, for the audit.
    pub(super) fn about(self, target: impl ToString) -> Self {
        Self { target: Some(target.to_string()), ..self }
    }

    /// Keeps the slot for as long as the body is there.
    pub(super) fn holding(self, slot: Option<OrganisationSlot>) -> Self {
        Self { slot, ..self }
    }

    /// The response, and what the request acted on.
    pub fn into_response(self) -> Result<(Response<Bytes>, Option<String>), AdminError> {
        let body = self.body.map_err(|_| AdminError::Internal)?;
        let mut response = Response::new(match self.slot {
            Some(slot) => Bytes::from_owner(Held { body, _slot: slot }),
            None => body,
        });
        *response.status_mut() = self.success.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // A key that is shown once must not stay in a cache.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok((response, self.target))
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin_executor::OrganisationSlots;
    use crate::tenancy::OrganisationId;

    // An organisation has no more unread answers in memory than slots.
    #[tokio::test(start_paused = true)]
    async fn a_slot_is_held_for_as_long_as_a_part_of_the_body_is() {
        let slots = OrganisationSlots::new(1, 1);
        let acme = OrganisationId::parse("acme").unwrap();
        let answer = Answer::of(&"a body").holding(slots.take(&acme).await.ok());
        let (response, _) = answer.into_response().unwrap();
        let last = response.into_body().split_off(5);
        assert_eq!(last, "dy\"".as_bytes());
        assert!(slots.take(&acme).await.is_err());
        drop(last);
        assert!(slots.take(&acme).await.is_ok());
    }
}
