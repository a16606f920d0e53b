//! A stand-in for a Supabase project. Supabase Auth and PostgREST are in no package registry that this
//! repository builds from, so this speaks the part of their protocols that supabase-js 2 uses: sign-in by
//! password, refresh tokens that rotate, sign-out, the key set, and reads and writes of tables.
//!
//! The tables are real: each request runs in PostgreSQL as the role `authenticated` with the token's claims
//! in `request.jwt.claims`, so row-level security is that of the migrations. What it lacks it refuses in
//! words; Realtime answers 404, so pages poll. It keeps passwords in clear text: it is for demos and tests.

#![expect(clippy::result_large_err, reason = "an error is an answer that is sent next")]

/// Supabase Auth.
mod auth;
/// PostgREST.
mod rest;
/// A query string of PostgREST's as SQL.
mod statement;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};

use crate::database::Database;
use crate::http_server::{Answer, HttpServer, Request, answer};
use auth::Auth;

/// The largest body that is read.
const MAX_BODY: usize = 1024 * 1024;

/// A running project.
pub struct Supabase {
    server: HttpServer,
    project: Arc<Project>,
}

struct Project {
    auth: Auth,
    database: Database,
    anon_key: String,
}

/// A request whose body was read.
struct Asked {
    method: Method,
    path: String,
    /// Decoded, in the order of the query string.
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
}

impl Supabase {
    /// Makes a database what a new project has: the roles of its API, and users and sessions in the schema
    /// `auth`. This comes before the migrations, which grant rights to these roles.
    pub async fn prepare(database: &Database) {
        database.execute(PREPARE).await;
    }

    /// Starts it for a database that is prepared. Access tokens last for `lifetime`; Supabase's last an hour.
    pub async fn start(database: &Database, lifetime: Duration) -> Self {
        let anon_key = format!("sb_publishable_{}", uuid::Uuid::new_v4().simple());
        let auth = Auth::new(database.clone(), lifetime);
        let project = Arc::new(Project { auth, database: database.clone(), anon_key });
        let shared = Arc::clone(&project);
        let server = HttpServer::start(move |request| {
            let project = Arc::clone(&shared);
            async move { project.answer(request).await }
        })
        .await;
        project.auth.issue_as(format!("{}/auth/v1", server.url()));
        Self { server, project }
    }

    /// The address of the project.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// `iss` of its tokens.
    pub fn issuer(&self) -> String {
        format!("{}/auth/v1", self.url())
    }

    /// What a page shows to be let in at all. It is no secret.
    pub fn anon_key(&self) -> &str {
        &self.project.anon_key
    }

    /// Adds a user who has confirmed their address, and returns their ID.
    pub async fn add_user(&self, email: &str, password: &str) -> String {
        self.project.auth.add_user(email, password).await
    }
}

impl Project {
    async fn answer(&self, request: Request) -> Answer {
        let mut answer = if request.method() == Method::OPTIONS {
            preflight(request.headers())
        } else {
            match read(request).await {
                Ok(asked) => self.route(&asked).await,
                Err(why) => refusal(StatusCode::BAD_REQUEST, &json!({ "message": why })),
            }
        };
        let headers = answer.headers_mut();
        headers.insert("access-control-allow-origin", HeaderValue::from_static("*"));
        headers.insert("access-control-expose-headers", HeaderValue::from_static(EXPOSED));
        answer
    }

    async fn route(&self, asked: &Asked) -> Answer {
        if let Some(path) = asked.path.strip_prefix("/auth/v1/") {
            // The proxy fetches the key set, without any key.
            let is_open = path == ".well-known/jwks.json";
            return match is_open || self.has_key(asked) {
                true => self.auth.answer(path, asked).await,
                false => no_key(),
            };
        }
        match asked.path.strip_prefix("/rest/v1/") {
            Some(_) if !self.has_key(asked) => no_key(),
            Some(table) => rest::answer(self, table, asked).await,
            None => refusal(
                StatusCode::NOT_FOUND,
                &json!({ "message": "the stand-in has no such API" }),
            ),
        }
    }

    fn has_key(&self, asked: &Asked) -> bool {
        let in_query =
            asked.query.iter().any(|(name, value)| name == "apikey" && *value == self.anon_key);
        in_query || asked.header("apikey") == self.anon_key
    }
}

impl Asked {
    /// A header as text, empty if it is not there.
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn bearer(&self) -> &str {
        self.header("authorization").strip_prefix("Bearer ").unwrap_or_default()
    }
}

async fn read(request: Request) -> Result<Asked, String> {
    let (parts, body) = request.into_parts();
    let target = format!("http://localhost{}", parts.uri);
    let url = reqwest::Url::parse(&target).map_err(|error| error.to_string())?;
    let query =
        url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| error.to_string())?;
    let (method, headers) = (parts.method, parts.headers);
    Ok(Asked { method, path: url.path().to_owned(), query, headers, body: body.to_bytes() })
}

/// Any origin may ask: a project does not know the pages that use it.
fn preflight(headers: &HeaderMap) -> Answer {
    let mut ok = answer(StatusCode::OK, "text/plain", Bytes::new());
    let wanted = headers.get("access-control-request-headers").cloned();
    let to = ok.headers_mut();
    to.insert("access-control-allow-methods", HeaderValue::from_static(METHODS));
    to.insert("access-control-allow-headers", wanted.unwrap_or(HeaderValue::from_static("*")));
    to.insert("access-control-max-age", HeaderValue::from_static("3600"));
    ok
}

fn no_key() -> Answer {
    let hint = "No `apikey` request header or url param was found.";
    refusal(
        StatusCode::UNAUTHORIZED,
        &json!({ "message": "No API key found in request", "hint": hint }),
    )
}

fn refusal(status: StatusCode, body: &Value) -> Answer {
    answer(status, "application/json; charset=utf-8", body.to_string())
}

const METHODS: &str = "GET, HEAD, PUT, PATCH, POST, DELETE, OPTIONS";
const EXPOSED: &str = "Content-Range, Location, X-Supabase-Api-Version";

/// What a new project has, as far as it is used. Roles belong to the whole cluster.
const PREPARE: &str = "
do $$ begin
    if not exists (select from pg_roles where rolname = 'anon') then create role anon nologin; end if;
    if not exists (select from pg_roles where rolname = 'authenticated') then create role authenticated nologin; end if;
end $$;
grant usage on schema public to anon, authenticated;
create schema auth;
create table auth.users (
    id              uuid primary key default gen_random_uuid(),
    email           text not null unique,
    created_at      timestamptz not null default now(),
    last_sign_in_at timestamptz,
    banned_until    timestamptz
);
create table auth.sessions (
    id         uuid primary key,
    user_id    uuid not null references auth.users (id) on delete cascade,
    created_at timestamptz not null default now(),
    not_after  timestamptz
);
create function auth.uid() returns uuid language sql stable as $$
    select (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
$$;
grant usage on schema auth to anon, authenticated";
