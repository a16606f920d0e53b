//! Answers of `/admin`: the only place that knows the statuses of what went well. What went wrong is
//! `rejection`'s.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::AdminError;

/// An answer, and what it acted on.
#[derive(Debug)]
pub struct Answer {
    success: Success,
    body: Result<Vec<u8>, serde_json::Error>,
    target: Option<String>,
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
        Self { success: Success::Done, body: serde_json::to_vec(view), target: None }
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

    /// The response, and what the request acted on.
    pub fn into_response(self) -> Result<(Response<Bytes>, Option<String>), AdminError> {
        let body = self.body.map_err(|_| AdminError::Internal)?;
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.success.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // A key that is shown once must not stay in a cache.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok((response, self.target))
    }
}
