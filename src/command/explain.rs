//! Explains one token, device key or admin key by the functions that `serve` uses.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};

use crate::authn::{self, Explanation, Identity, KeySet, Principal, Revocations, refused_client};
use crate::authz::{AccessSet, Authorizer, Denial, MembershipLookup};
use crate::clock::Clock;
use crate::config::Config;
use crate::mimir::TENANT_HEADER;
use crate::route::{self, Access, ROUTES, Route};
use crate::store::{Store, StoreError};
use crate::tenancy::{OrganisationId, Scopes};

/// A request to try the credential on.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// The value of `X-Scope-OrgID`.
    pub(super) organisation: Option<String>,
    /// The path, optionally after a method.
    pub(super) path: Option<String>,
}

/// Explains a credential: what it says, whether it was revoked, and its owner's memberships. Without
/// a key set (none given, none fetched) an asymmetric signature cannot be checked, and the
/// explanation says so.
pub(super) async fn explain(
    config: &Config,
    token: &str,
    keys: Result<&KeySet, &str>,
    tried: &Tried,
) -> Explanation {
    let now = Clock::system().unix_seconds();
    let (token, note) = authn::bare_credential(token);
    let token = &*token;
    let store = match &config.database {
        None => None,
        Some(database) => match Store::new(database, config.tables_read()) {
            Ok(store) => Some(store),
            Err(error) => return Explanation::of_problem("database", error.to_string()),
        },
    };
    let mut explanation = if token.starts_with(authn::DEVICE_KEY_PREFIX) {
        explain_device_key(store.as_ref(), token, now).await
    } else {
        authn::explain(token, &config.auth, keys, now)
    };
    if let Some(note) = note {
        explanation.step("note", Ok(note.to_owned()));
    }
    let Some(principal) = explanation.principal() else { return explanation };
    if let Some(store) = &store {
        explain_revocation(&mut explanation, config, store).await;
    }
    let Some(lookup) = look_up(&mut explanation, config, store.as_ref(), &principal).await else {
        return explanation;
    };
    if tried.organisation.is_none() && tried.path.is_none() {
        explain_access(&mut explanation, config, &principal, &lookup);
    } else {
        explain_request(&mut explanation, config, store.as_ref(), &principal, &lookup, tried).await;
    }
    explanation
}

async fn explain_device_key(store: Option<&Store>, key: &str, now: i64) -> Explanation {
    let Some(hash) = authn::device_key_hash(key.as_bytes()) else {
        return Explanation::of_problem("form", "a device key, mistyped or cut off".to_owned());
    };
    let Some(store) = store else {
        return Explanation::of_problem("database", "device keys need database.url".to_owned());
    };
    let mut explanation = Explanation::default();
    explanation.step("form", Ok("a device key, and its checksum fits".to_owned()));
    match store.device_keys(vec![hash]).await.map(|mut found| found.remove(&hash)) {
        Ok(Some(Some(row))) => explanation.device(&row, now),
        // `serve` answers 503 to this.
        Ok(Some(None)) => {
            explanation.unavailable("device", "its row cannot be read: see the log".to_owned());
        }
        Ok(None) => match store.has_device_keys().await {
            Ok(true) => explanation.step("device", Err("no device has this key".to_owned())),
            // 503 here, too.
            Ok(false) => {
                explanation.unavailable("device", "the table device_key is empty".to_owned());
            }
            Err(error) => cannot_read(&mut explanation, "device", &error),
        },
        Err(error) => cannot_read(&mut explanation, "device", &error),
    }
    explanation
}

/// Records a failed query. An outage is not a fault of the credential.
fn cannot_read(explanation: &mut Explanation, about: &str, error: &StoreError) {
    explanation.unavailable(about, error.to_string());
}

async fn explain_revocation(explanation: &mut Explanation, config: &Config, store: &Store) {
    let Some(principal) = explanation.principal() else { return };
    let Identity::User(user) = principal.identity() else { return };
    let outcome = match store.revocations().await {
        Err(error) => return cannot_read(explanation, "revocations", &error),
        Ok(rows) if Revocations::are_about(&rows, user) => Err("the token was revoked".to_owned()),
        Ok(rows) => Ok(format!("none of {} is about this token", rows.len())),
    };
    explanation.step("revocations", outcome);
    if !config.auth.check_sessions {
        return;
    }
    let session = user.session_id().and_then(|id| uuid::Uuid::try_parse(id).ok());
    let outcome = match session {
        None => Err("the token names none".to_owned()),
        Some(id) => match store.sessions(vec![id]).await {
            Err(error) => return cannot_read(explanation, "session", &error),
            Ok(found) => match found.get(&id) {
                None => Err(format!("{id} has ended")),
                Some(session) => match refused_client(session, &config.auth.tokens.oauth_clients) {
                    None => Ok(format!("{id} goes on")),
                    Some(fault) => Err(fault.inside()),
                },
            },
        },
    };
    explanation.step("session", outcome);
}

/// A user's rows of the membership table; none if the table has a say and cannot be read.
async fn look_up(
    explanation: &mut Explanation,
    config: &Config,
    store: Option<&Store>,
    principal: &Principal,
) -> Option<MembershipLookup> {
    let Identity::User(user) = principal.identity() else {
        return Some(MembershipLookup::not_needed());
    };
    let policy = config.tenancy.membership;
    explanation.step("policy", Ok(format!("tenancy.membership = {:?}", policy.name())));
    let (Some(store), true) = (store, policy.reads_table()) else {
        return Some(MembershipLookup::not_needed());
    };
    match store.memberships_of(vec![user.id()]).await {
        Err(error) => {
            cannot_read(explanation, "memberships", &error);
            None
        }
        Ok(mut found) => {
            let own = found.remove(&user.id()).unwrap_or_default();
            explanation.step("memberships", Ok(format!("{} in the table", own.len())));
            Some(MembershipLookup::read(own))
        }
    }
}

/// Tries one request: its path, its organisation, and what the caller may do there.
async fn explain_request(
    explanation: &mut Explanation,
    config: &Config,
    store: Option<&Store>,
    principal: &Arc<Principal>,
    lookup: &MembershipLookup,
    tried: &Tried,
) {
    let route = match tried.path.as_deref().map(find_route).transpose() {
        Ok(route) => route,
        Err(problem) => return explanation.step("path", Err(problem)),
    };
    let route = route.unwrap_or(&ROUTES[0]);
    if tried.path.is_some() {
        let found = format!("{}, surface {}", route.path, route.surface.name());
        explanation.step("path", Ok(found));
    }
    let Access::Tenant(scope) = route.access else {
        let problem = "is not about one tenant's telemetry; only such paths can be tried";
        return explanation.step("path", Err(problem.to_owned()));
    };
    let mut headers = HeaderMap::new();
    match tried.organisation.as_deref().map(HeaderValue::from_str) {
        None => {}
        Some(Ok(name)) => {
            headers.insert(TENANT_HEADER, name);
        }
        Some(Err(_)) => {
            let problem = "the organisation cannot stand in a header";
            return explanation.step("organisation", Err(problem.to_owned()));
        }
    }
    let authorizer = Authorizer::new(config.tenancy.clone(), config.auth.admin_required_aal, None);
    // Without a path only the organisation is tried, for which any scope on telemetry is enough.
    let scopes: Vec<_> = match tried.path {
        Some(_) => vec![scope],
        None => crate::tenancy::Scope::DATA.to_vec(),
    };
    let mut granted: Vec<crate::tenancy::Scope> = Vec::new();
    let mut outcome = Err(String::new());
    for scope in scopes {
        match authorizer.explain(principal, lookup, route, scope, &headers) {
            Ok(grant) => {
                granted.push(scope);
                outcome = Ok(grant);
            }
            Err(denial) if outcome.is_err() => outcome = Err(denial.to_string()),
            Err(_) => {}
        }
    }
    let grant = match outcome {
        Ok(grant) => grant,
        Err(problem) => return explanation.step("organisation", Err(problem)),
    };
    if let (Identity::Service(_), Some(store)) = (principal.identity(), store)
        && config.tables_read().organisations
    {
        match store.organisations_in_use(grant.organisations().to_vec()).await {
            Err(error) => return cannot_read(explanation, "organisation", &error),
            Ok(there) if grant.organisations().iter().any(|one| !there.contains(one)) => {
                return explanation.step("organisation", Err(Denial::NotAMember.to_string()));
            }
            Ok(_) => {}
        }
    }
    let names: Vec<_> = grant.organisations().iter().map(OrganisationId::as_str).collect();
    let scopes: Vec<_> = granted.into_iter().collect::<Scopes>().names().collect();
    let (names, scopes) = (names.join("|"), scopes.join(", "));
    let tenant = grant.tenants().as_str();
    explanation.step("organisation", Ok(format!("{names}, tenant {tenant}, scopes {scopes}")));
}

/// The route of a path, or of `METHOD PATH`. Without a method GET is tried first, then POST.
fn find_route(text: &str) -> Result<&'static Route, String> {
    let text = text.trim();
    let (method, target) = match text.split_once(' ') {
        Some((method, target)) => {
            let method = method.to_ascii_uppercase();
            let method =
                Method::from_bytes(method.as_bytes()).map_err(|error| error.to_string())?;
            (Some(method), target.trim())
        }
        None => (None, text),
    };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let found = match method {
        Some(method) => route::find_path(&method, path, query),
        None => route::find_path(&Method::GET, path, query)
            .or_else(|_| route::find_path(&Method::POST, path, query)),
    };
    found.map_err(|unroutable| unroutable.to_string())
}

fn explain_access(
    explanation: &mut Explanation,
    config: &Config,
    principal: &Principal,
    lookup: &MembershipLookup,
) {
    let authorizer = Authorizer::new(config.tenancy.clone(), config.auth.admin_required_aal, None);
    match authorizer.access_set(principal, lookup) {
        Err(denial) => explanation.step("organisation", Err(denial.to_string())),
        Ok(AccessSet::Everywhere(scopes)) => {
            let scopes: Vec<_> = scopes.names().collect();
            explanation
                .step("organisation", Ok(format!("every one, scopes {}", scopes.join(", "))));
        }
        Ok(AccessSet::Listed(listed)) if listed.is_empty() => {
            explanation.step("organisation", Err(Denial::NoOrganisation.to_string()));
        }
        Ok(AccessSet::Listed(listed)) => {
            if listed.len() > 1 && !listed.iter().any(|access| access.is_default) {
                let hint = "several and no default: requests must name one in X-Scope-OrgID";
                explanation.step("selector", Ok(hint.to_owned()));
            }
            for access in listed {
                let tenant = config.tenancy.template.tenant_of(access.organisation);
                let role = access.role.map_or("no role".to_owned(), |role| format!("role {role}"));
                let scopes: Vec<_> = access.scopes.names().collect();
                if scopes.is_empty() {
                    let problem =
                        format!("{}: the {role} may do nothing; see [roles]", access.organisation);
                    explanation.step("organisation", Err(problem));
                    continue;
                }
                let scopes = scopes.join(", ");
                let source = access.source.name();
                let found = tenant.map(|tenant| {
                    let (organisation, tenant) = (access.organisation, tenant.as_str());
                    format!("{organisation} by {source}, tenant {tenant}, {role}, scopes {scopes}")
                });
                explanation.step("organisation", found.map_err(|error| error.to_string()));
            }
        }
    }
}
