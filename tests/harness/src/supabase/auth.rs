//! Sessions as Supabase Auth has them: a short access token, and a refresh token that is good for one use.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Method, StatusCode};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Asked, refusal};
use crate::database::Database;
use crate::http_server::Answer;
use crate::issuer::{SigningKey, TokenBuilder};

/// A refresh token that was used may be shown again for this long: a page that is open in two tabs does
/// that. This is Supabase's default.
const REUSE: Duration = Duration::from_secs(10);

/// The version of the API whose errors supabase-js understands.
const API_VERSION: &str = "2024-01-01";

pub(super) struct Auth {
    key: SigningKey,
    issuer: OnceLock<String>,
    lifetime: Duration,
    database: Database,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    users: Vec<User>,
    /// By ID.
    sessions: HashMap<Uuid, Session>,
    /// What was issued, by the token itself.
    access: HashMap<String, Access>,
}

#[derive(Clone)]
struct User {
    id: String,
    email: String,
    password: String,
    created_at: String,
}

struct Session {
    user: User,
    signed_in_at: u64,
    /// The one that is good, and those that were.
    refresh: String,
    used: HashMap<String, Instant>,
}

#[derive(Clone)]
struct Access {
    session: Uuid,
    expires_at: u64,
    claims: Value,
}

/// Why a token is refused.
pub(super) enum Unknown {
    /// It is none of ours.
    Invalid,
    /// It was one.
    Expired,
}

impl Auth {
    pub(super) fn new(database: Database, lifetime: Duration) -> Self {
        let key = SigningKey::generate(&Uuid::new_v4().to_string(), Algorithm::ES256);
        Self { key, issuer: OnceLock::new(), lifetime, database, state: Mutex::default() }
    }

    /// The address is known once the server listens.
    pub(super) fn issue_as(&self, issuer: String) {
        self.issuer.set(issuer).expect("one address");
    }

    pub(super) async fn add_user(&self, email: &str, password: &str) -> String {
        assert!(!email.contains('\''), "{email:?}");
        let sql = format!(
            "insert into auth.users (email) values ('{email}') returning id, \
             to_char(created_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
        );
        let row: Vec<String> =
            self.database.query(&sql).await.remove(0).into_iter().flatten().collect();
        let [id, created_at] = row.try_into().expect("two columns");
        let (email, password) = (email.to_owned(), password.to_owned());
        self.state().users.push(User { id: id.clone(), email, password, created_at });
        id
    }

    /// The claims of an access token.
    pub(super) fn claims(&self, token: &str, leeway: u64) -> Result<Value, Unknown> {
        self.access(token, leeway).map(|access| access.claims)
    }

    fn access(&self, token: &str, leeway: u64) -> Result<Access, Unknown> {
        let access = self.state().access.get(token).cloned().ok_or(Unknown::Invalid)?;
        if access.expires_at + leeway <= now() { Err(Unknown::Expired) } else { Ok(access) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no one panics with it")
    }

    pub(super) async fn answer(&self, path: &str, asked: &Asked) -> Answer {
        let mut answer = match (path, &asked.method) {
            (".well-known/jwks.json", &Method::GET) => {
                let mut keys = refusal(StatusCode::OK, &json!({ "keys": [self.key.public] }));
                keys.headers_mut()
                    .insert("cache-control", HeaderValue::from_static("public, max-age=600"));
                keys
            }
            ("token", &Method::POST) => self.token(asked).await,
            ("user", &Method::GET) => match self.signed_in(asked) {
                Ok((_, user)) => refusal(StatusCode::OK, &user_json(&user)),
                Err(answer) => answer,
            },
            ("logout", &Method::POST) => self.logout(asked).await,
            ("signup", &Method::POST) => {
                error(422, "signup_disabled", "Signups not allowed for this instance", asked)
            }
            _ => {
                error(404, "not_found", "the stand-in of Supabase Auth has no such endpoint", asked)
            }
        };
        answer
            .headers_mut()
            .insert("x-supabase-api-version", HeaderValue::from_static(API_VERSION));
        answer
    }

    async fn token(&self, asked: &Asked) -> Answer {
        let body: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let grant = asked.query.iter().find(|(name, _)| name == "grant_type");
        match grant.map(|(_, value)| value.as_str()) {
            Some("password") => self.sign_in(&text("email"), &text("password"), asked).await,
            Some("refresh_token") => self.refresh(&text("refresh_token"), asked).await,
            _ => error(400, "invalid_grant", "unsupported_grant_type", asked),
        }
    }

    async fn sign_in(&self, email: &str, password: &str, asked: &Asked) -> Answer {
        let email = email.trim().to_lowercase();
        let is_theirs = |user: &&User| user.email == email && user.password == password;
        let found = self.state().users.iter().find(is_theirs).cloned();
        let Some(user) = found else {
            return error(400, "invalid_credentials", "Invalid login credentials", asked);
        };
        let (id, refresh) = (Uuid::new_v4(), refresh_token());
        // The proxy reads sessions there (`auth.check_sessions`).
        let sql = format!(
            "insert into auth.sessions (id, user_id) values ('{id}', '{0}'); \
             update auth.users set last_sign_in_at = now() where id = '{0}'",
            user.id
        );
        self.database.execute(&sql).await;
        let session = Session { user, signed_in_at: now(), refresh, used: HashMap::new() };
        let mut state = self.state();
        let answer = self.issue(&mut state.access, id, &session);
        state.sessions.insert(id, session);
        refusal(StatusCode::OK, &answer)
    }

    async fn refresh(&self, shown: &str, asked: &Asked) -> Answer {
        let (stolen, answer) = self.rotate(shown, asked);
        if let Some(session) = stolen {
            self.end(&[session]).await;
        }
        answer
    }

    /// Exchanges a refresh token; or names the session that has to end, because a token of it that was used
    /// long ago can only be a copy.
    fn rotate(&self, shown: &str, asked: &Asked) -> (Option<Uuid>, Answer) {
        let state = &mut *self.state();
        let known =
            |session: &Session| session.refresh == shown || session.used.contains_key(shown);
        let Some((id, session)) = state.sessions.iter_mut().find(|(_, session)| known(session))
        else {
            let text = "Invalid Refresh Token: Refresh Token Not Found";
            return (None, error(400, "refresh_token_not_found", text, asked));
        };
        match session.used.get(shown) {
            Some(used) if used.elapsed() > REUSE => {
                let text = "Invalid Refresh Token: Already Used";
                return (Some(*id), error(400, "refresh_token_already_used", text, asked));
            }
            Some(_) => {}
            None => {
                session.used.insert(shown.to_owned(), Instant::now());
                session.refresh = refresh_token();
            }
        }
        (None, refusal(StatusCode::OK, &self.issue(&mut state.access, *id, session)))
    }

    fn issue(&self, access: &mut HashMap<String, Access>, id: Uuid, session: &Session) -> Value {
        let (now, user) = (now(), &session.user);
        let expires_at = now + self.lifetime.as_secs();
        access.retain(|_, access| access.expires_at + 3600 > now);
        let issuer = self.issuer.get().expect("it listens");
        let token = TokenBuilder::new(&self.key, issuer)
            .claim("sub", json!(user.id))
            .claim("email", json!(user.email))
            .claim("session_id", json!(id.to_string()))
            .claim("amr", json!([{"method": "password", "timestamp": session.signed_in_at}]))
            .claim("iat", json!(now))
            .claim("exp", json!(expires_at))
            // Two tokens of one second would be the same otherwise.
            .claim("jti", json!(Uuid::new_v4().to_string()));
        let (claims, token) = (token.claims(), token.sign());
        access.insert(token.clone(), Access { session: id, expires_at, claims });
        json!({
            "access_token": token, "token_type": "bearer", "expires_in": self.lifetime.as_secs(),
            "expires_at": expires_at, "refresh_token": session.refresh, "user": user_json(user),
        })
    }

    fn signed_in(&self, asked: &Asked) -> Result<(Uuid, User), Answer> {
        let access = self.access(asked.bearer(), 0).map_err(|why| {
            let text = match why {
                Unknown::Invalid => "invalid JWT: unable to parse or verify signature",
                Unknown::Expired => "invalid JWT: token is expired",
            };
            error(403, "bad_jwt", text, asked)
        })?;
        match self.state().sessions.get(&access.session) {
            Some(session) => Ok((access.session, session.user.clone())),
            None => {
                let text = "Session from session_id claim in JWT does not exist";
                Err(error(403, "session_not_found", text, asked))
            }
        }
    }

    async fn logout(&self, asked: &Asked) -> Answer {
        let (current, user) = match self.signed_in(asked) {
            Ok(signed_in) => signed_in,
            Err(answer) => return answer,
        };
        let scope = asked.query.iter().find(|(name, _)| name == "scope");
        let scope = scope.map_or("global", |(_, value)| value.as_str()).to_owned();
        let ends = |(id, session): (&Uuid, &Session)| {
            let is_theirs = session.user.id == user.id;
            let is_meant = match scope.as_str() {
                "local" => *id == current,
                "others" => *id != current,
                _ => true,
            };
            (is_theirs && is_meant).then_some(*id)
        };
        let ended: Vec<Uuid> = self.state().sessions.iter().filter_map(ends).collect();
        self.end(&ended).await;
        crate::http_server::answer(StatusCode::NO_CONTENT, "application/json", "")
    }

    async fn end(&self, sessions: &[Uuid]) {
        self.state().sessions.retain(|id, _| !sessions.contains(id));
        for id in sessions {
            self.database.execute(&format!("delete from auth.sessions where id = '{id}'")).await;
        }
    }
}

fn user_json(user: &User) -> Value {
    json!({
        "id": user.id, "aud": "authenticated", "role": "authenticated", "email": user.email,
        "email_confirmed_at": user.created_at, "confirmed_at": user.created_at, "phone": "",
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "user_metadata": {"email_verified": true}, "identities": [], "is_anonymous": false,
        "created_at": user.created_at, "updated_at": user.created_at,
    })
}

/// Supabase Auth has two forms of errors; a client that names the API's version gets the newer one.
fn error(status: u16, code: &str, text: &str, asked: &Asked) -> Answer {
    let body = if asked.header("x-supabase-api-version") == API_VERSION {
        json!({ "code": code, "message": text })
    } else {
        json!({ "code": status, "error_code": code, "msg": text })
    };
    refusal(StatusCode::from_u16(status).expect("a status"), &body)
}

fn refresh_token() -> String {
    Uuid::new_v4().simple().to_string()[..12].to_owned()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").as_secs()
}
