//! The way of one token, device key or admin key, by the functions that `serve` uses.

use crate::authn::{self, Explanation, Identity, KeySet, Revocations};
use crate::authz::{Asked, Authorizer, Denial, Standing};
use crate::clock::Clock;
use crate::config::Config;
use crate::store::Store;

/// Walks a credential's way: what it says, whether it was revoked, and where its owner stands.
/// Without a key set (none given, none fetched) an asymmetric signature cannot be checked, and the
/// explanation says so.
pub(super) async fn explain(
    config: &Config,
    token: &str,
    keys: Result<&KeySet, &str>,
) -> Explanation {
    let now = Clock::system().unix_seconds();
    let token = token.trim();
    let store = match &config.database {
        None => None,
        Some(database) => match Store::new(database) {
            Ok(store) => Some(store),
            Err(error) => return Explanation::of_problem("database", error.to_string()),
        },
    };
    if token.starts_with(authn::DEVICE_KEY_PREFIX) {
        return explain_device_key(store.as_ref(), token, now).await;
    }
    let mut explanation = authn::explain(token, &config.auth, keys, now);
    if explanation.is_service() {
        let scopes = config.tenancy.service_scopes.names().collect::<Vec<_>>().join(", ");
        explanation.step("organisation", Ok(format!("every one, scopes {scopes}")));
        return explanation;
    }
    if let Some(store) = &store {
        explain_revocation(&mut explanation, config, store).await;
    }
    explain_standing(&mut explanation, config, store.as_ref()).await;
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
    let found = store.device_keys(vec![hash]).await;
    let row = match found.map(|mut found| found.remove(&hash)) {
        Ok(Some(Some(row))) => row,
        Ok(Some(None)) => {
            explanation.step("device", Err("its row cannot be read: see the log".to_owned()));
            return explanation;
        }
        Ok(None) => {
            explanation.step("device", Err("no device has this key".to_owned()));
            return explanation;
        }
        Err(error) => {
            explanation.step("device", Err(error.to_string()));
            return explanation;
        }
    };
    explanation.step("device", Ok(format!("{} ({:?})", row.id, row.name)));
    explanation.step("validity", authn::explain_validity(&row, now));
    explanation.step("organisation", Ok(row.organisation.to_string()));
    explanation.step("scopes", Ok(row.scopes.names().collect::<Vec<_>>().join(", ")));
    explanation
}

async fn explain_revocation(explanation: &mut Explanation, config: &Config, store: &Store) {
    let Some(principal) = explanation.principal() else { return };
    let Identity::User(user) = principal.identity() else { return };
    let outcome = match store.revocations().await {
        Err(error) => Err(error.to_string()),
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
            Err(error) => Err(error.to_string()),
            Ok(found) if found.contains(&id) => Ok(format!("{id} goes on")),
            Ok(_) => Err(format!("{id} has ended")),
        },
    };
    explanation.step("session", outcome);
}

async fn explain_standing(explanation: &mut Explanation, config: &Config, store: Option<&Store>) {
    let Some(principal) = explanation.principal() else { return };
    let policy = config.tenancy.membership;
    explanation.step("policy", Ok(format!("tenancy.membership = {:?}", policy.name())));
    let mut asked = Asked::nothing();
    if let (Identity::User(user), Some(store), true) =
        (principal.identity(), store, policy.reads_table())
    {
        match store.memberships_of(vec![user.id()]).await {
            Err(error) => return explanation.step("memberships", Err(error.to_string())),
            Ok(mut found) => {
                let own = found.remove(&user.id()).unwrap_or_default();
                explanation.step("memberships", Ok(format!("{} in the table", own.len())));
                asked = Asked::read(own);
            }
        }
    }
    let authorizer = Authorizer::new(config.tenancy.clone(), None);
    match authorizer.standing(&principal, &asked) {
        Err(denial) => explanation.step("organisation", Err(denial.to_string())),
        Ok(Standing::Everywhere(scopes)) => {
            let scopes: Vec<_> = scopes.names().collect();
            explanation
                .step("organisation", Ok(format!("every one, scopes {}", scopes.join(", "))));
        }
        Ok(Standing::In(places)) if places.is_empty() => {
            explanation.step("organisation", Err(Denial::NoOrganisation.to_string()));
        }
        Ok(Standing::In(places)) => {
            if places.len() > 1 && !places.iter().any(|place| place.is_default) {
                let hint = "several and no default: requests must name one in X-Scope-OrgID";
                explanation.step("selector", Ok(hint.to_owned()));
            }
            for place in places {
                let tenant = config.tenancy.template.tenant_of(place.organisation);
                let role = place.role.map_or("no role".to_owned(), |role| format!("role {role}"));
                let scopes: Vec<_> = place.scopes.names().collect();
                if scopes.is_empty() {
                    let problem =
                        format!("{}: the {role} may do nothing; see [roles]", place.organisation);
                    explanation.step("organisation", Err(problem));
                    continue;
                }
                let scopes = scopes.join(", ");
                let source = place.source.name();
                let found = tenant.map(|tenant| {
                    let (organisation, tenant) = (place.organisation, tenant.as_str());
                    format!("{organisation} by {source}, tenant {tenant}, {role}, scopes {scopes}")
                });
                explanation.step("organisation", found.map_err(|error| error.to_string()));
            }
        }
    }
}
