//! Where webhooks arrive, for people and pages to look at.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use http::{HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;

use crate::http_server::{HttpServer, answer};

/// How many are kept.
const MOST: usize = 100;

/// A running receiver: what is posted to it can be read from it, newest first.
pub struct Inbox {
    server: HttpServer,
}

impl Inbox {
    /// Starts one.
    pub async fn start() -> Self {
        let kept: Arc<Mutex<VecDeque<Value>>> = Arc::default();
        let server = HttpServer::start(move |request| {
            let kept = Arc::clone(&kept);
            async move {
                if request.method() == Method::POST {
                    let body = Limited::new(request.into_body(), 1024 * 1024).collect().await;
                    let Ok(body) = body.map(http_body_util::Collected::to_bytes) else {
                        return answer(StatusCode::BAD_REQUEST, "text/plain", "");
                    };
                    let mut kept = kept.lock().expect("no one panics with it");
                    kept.push_front(serde_json::from_slice(&body).unwrap_or_default());
                    kept.truncate(MOST);
                    return answer(StatusCode::OK, "text/plain", "");
                }
                let all =
                    serde_json::to_string_pretty(&*kept.lock().expect("no one panics with it"));
                let mut all = answer(StatusCode::OK, "application/json", all.unwrap_or_default());
                all.headers_mut()
                    .insert("access-control-allow-origin", HeaderValue::from_static("*"));
                all
            }
        })
        .await;
        Self { server }
    }

    /// Its address.
    pub fn url(&self) -> String {
        self.server.url()
    }
}
