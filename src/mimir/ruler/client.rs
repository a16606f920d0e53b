//! The calls to Mimir's ruler.

use std::sync::Arc;

use http::{Method, StatusCode, header};
use serde::Deserialize;

use super::evaluation::ALL_SWITCHED_OFF;
use super::path::{MAX_NAME_BYTES, encode, is_addressable};
use super::refusal::position;
use super::tenant_splitter::TenantSplitter;
use super::{
    Evaluation, GroupRefusal, Listed, RawListing, RuleGroup, RulerError, RulerLimits, read_refusal,
    write_group,
};
use crate::mimir::ExchangeError;
use crate::mimir::transport::{Ask, MimirConfig, MimirHandle, Transport, retry_after};
use crate::tenancy::TenantId;

const RULES: &str = "/prometheus/config/v1/rules";

/// The rules of all tenants. The request names no tenant, so Mimir answers it for every client that
/// reaches it, unless the operator blocks the path.
const ALL_RULES: &str = "/ruler/rule_groups";

/// The longest listing of one tenant that is read. 70 groups of 20 rules of 4 KiB are 5.6 MiB.
const MAX_LISTING_BYTES: usize = 32 << 20;

/// The longest of all other answers that is read.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// A client of Mimir's ruler that writes in one namespace. Clones share its connections.
#[derive(Clone, Debug)]
pub struct RulerClient {
    transport: Arc<Transport>,
    namespace: Arc<str>,
}

/// What a deletion found. Object stores and file systems report success for objects that do not
/// exist, so for a group Mimir mostly reports that it was deleted; for a namespace it checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    Done,
    WasAbsent,
}

impl RulerClient {
    /// A client that connects on first use.
    pub fn new(config: &MimirConfig, namespace: &str) -> Result<Self, String> {
        if !is_addressable(namespace) || namespace.len() > MAX_NAME_BYTES {
            return Err(format!(
                "the namespace {namespace:?} cannot be part of a path; choose a plain, short name"
            ));
        }
        let transport = Arc::new(Transport::new(config)?);
        Ok(Self { transport, namespace: namespace.into() })
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// By which its addresses can be changed.
    pub fn handle(&self) -> MimirHandle {
        MimirHandle(Arc::clone(&self.transport))
    }

    /// The groups of a tenant, ours apart from others'.
    pub async fn list(&self, tenant: &TenantId) -> Result<Listed, RulerError> {
        self.list_raw(tenant).await?.parse(&self.namespace)
    }

    pub async fn list_raw(&self, tenant: &TenantId) -> Result<RawListing, RulerError> {
        let response = self.transport.send(Ask::new(Method::GET, RULES, tenant)).await?;
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        match status {
            StatusCode::OK => {
                Ok(RawListing::new(self.transport.read(response, MAX_LISTING_BYTES).await?))
            }
            StatusCode::NOT_FOUND => {
                let message = self.transport.message(response).await?;
                // Older versions answer this for a tenant without rules. Any other 404 comes from
                // something else at the address.
                if message.contains("no rule groups found") {
                    return Ok(RawListing::empty());
                }
                Err(ExchangeError::Unexpected { status: status.as_u16(), message }.into())
            }
            // This is how Mimir reports that its storage failed.
            StatusCode::BAD_REQUEST => {
                let message = self.transport.message(response).await?;
                Err(ExchangeError::Busy { status: status.as_u16(), retry_after, message }.into())
            }
            _ => Err(self.transport.error(response).await.into()),
        }
    }

    /// Reads the groups of every tenant in one exchange and passes each tenant's to `each` as soon
    /// as it is read, byte for byte what [`list_raw`](Self::list_raw) would have returned. It says
    /// nothing about tenants that are missing: Mimir silently leaves out those whose groups it
    /// fails to load.
    pub async fn list_all(
        &self,
        mut each: impl FnMut(TenantId, RawListing),
    ) -> Result<(), RulerError> {
        let ask = Ask {
            method: Method::GET,
            path: ALL_RULES.into(),
            query: None,
            tenant: None,
            body: None,
        };
        let mut response = self.transport.send(ask).await?;
        if response.status() != StatusCode::OK {
            return Err(self.transport.error(response).await.into());
        }
        let mut tenants = TenantSplitter::default();
        while let Some(piece) = self.transport.piece(&mut response).await? {
            tenants.push(&piece);
            while let Some((tenant, listing)) = tenants.next_tenant() {
                each(tenant, listing);
            }
            if tenants.waiting() > MAX_LISTING_BYTES {
                let wrong = format!("a tenant's groups are longer than {MAX_LISTING_BYTES} bytes");
                return Err(ExchangeError::Unreadable(wrong).into());
            }
        }
        for (tenant, listing) in tenants.finish()? {
            each(tenant, listing);
        }
        Ok(())
    }

    /// Creates a group or replaces the one with its name. Mimir evaluates it soon after.
    pub async fn set_group(&self, tenant: &TenantId, group: &RuleGroup) -> Result<(), RulerError> {
        // Mimir would accept it and then be unable to delete it.
        addressable(&group.name)?;
        if group.name.len() > MAX_NAME_BYTES {
            return Err(RulerError::Refused(GroupRefusal::Other(format!(
                "a group's name may be {MAX_NAME_BYTES} bytes long, and this one has {}",
                group.name.len()
            ))));
        }
        let path = format!("{RULES}/{}", encode(&self.namespace));
        let ask = Ask::new(Method::POST, path, tenant).with("application/yaml", write_group(group));
        let response = self.transport.send(ask).await?;
        match response.status() {
            StatusCode::ACCEPTED => self.finish(response).await,
            StatusCode::BAD_REQUEST => {
                let message = self.transport.message(response).await?;
                Err(RulerError::Refused(read_refusal(&message)))
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                let message = self.transport.message(response).await?;
                Err(RulerError::Refused(GroupRefusal::Other(format!(
                    "the group is too long: {message}"
                ))))
            }
            _ => Err(self.transport.error(response).await.into()),
        }
    }

    pub async fn delete_group(&self, tenant: &TenantId, name: &str) -> Result<Deleted, RulerError> {
        addressable(name)?;
        self.delete(tenant, format!("{RULES}/{}/{}", encode(&self.namespace), encode(name))).await
    }

    pub async fn delete_namespace(&self, tenant: &TenantId) -> Result<Deleted, RulerError> {
        self.delete(tenant, format!("{RULES}/{}", encode(&self.namespace))).await
    }

    async fn delete(&self, tenant: &TenantId, path: String) -> Result<Deleted, RulerError> {
        let response = self.transport.send(Ask::new(Method::DELETE, path, tenant)).await?;
        match response.status() {
            StatusCode::ACCEPTED => self.finish(response).await.map(|()| Deleted::Done),
            status @ StatusCode::NOT_FOUND => {
                let message = self.transport.message(response).await?;
                // "group does not exist", "group namespace does not exist".
                if message.contains("does not exist") {
                    return Ok(Deleted::WasAbsent);
                }
                Err(ExchangeError::Unexpected { status: status.as_u16(), message }.into())
            }
            _ => Err(self.transport.error(response).await.into()),
        }
    }

    /// Formats an expression as Prometheus prints it, or returns what is wrong with it. Two
    /// expressions with the same formatted text are equivalent.
    pub async fn format_query(&self, tenant: &TenantId, expr: &str) -> Result<String, RulerError> {
        #[derive(Deserialize)]
        struct Formatted {
            data: String,
        }
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("query", expr)
            .finish();
        let ask = Ask::new(Method::POST, "/prometheus/api/v1/format_query", tenant)
            .with("application/x-www-form-urlencoded", form);
        let response = self.transport.send(ask).await?;
        match response.status() {
            StatusCode::OK => {
                let body = self.transport.read(response, MAX_ANSWER_BYTES).await?;
                let read = serde_json::from_slice::<Formatted>(&body);
                read.map(|formatted| formatted.data)
                    .map_err(|error| ExchangeError::Unreadable(error.to_string()).into())
            }
            StatusCode::BAD_REQUEST => {
                let text = self.transport.message(response).await?;
                let (position, message) = position(&text);
                let (line, column) = position.unzip();
                Err(RulerError::InvalidExpression { message, line, column })
            }
            _ => Err(self.transport.error(response).await.into()),
        }
    }

    /// How Mimir evaluates the tenant's alerting rules in our namespace. Every ruler must answer for that,
    /// so an error says nothing about any rule.
    pub async fn evaluation(&self, tenant: &TenantId) -> Result<Evaluation, RulerError> {
        // A namespace has no character that a query string would have to escape, or it is escaped as in a
        // path. Versions that do not know the last two parameters send more, which is left out here.
        let namespace = encode(&self.namespace);
        let path = "/prometheus/api/v1/rules";
        let query = format!("type=alert&exclude_alerts=true&file[]={namespace}");
        let ask = Ask::new(Method::GET, path, tenant).asking(query);
        let response = self.transport.send(ask).await?;
        let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
        let date = date.map(str::to_owned);
        match response.status() {
            StatusCode::OK => {
                let body = self.transport.read(response, MAX_LISTING_BYTES).await?;
                Evaluation::parse(&body, date.as_deref(), &self.namespace)
                    .map_err(|problem| ExchangeError::Unreadable(problem).into())
            }
            status @ StatusCode::UNPROCESSABLE_ENTITY => {
                let message = self.transport.message(response).await?;
                if message.contains(ALL_SWITCHED_OFF) {
                    return Ok(Evaluation::switched_off(date.as_deref()));
                }
                Err(ExchangeError::Unexpected { status: status.as_u16(), message }.into())
            }
            _ => Err(self.transport.error(response).await.into()),
        }
    }

    /// A tenant's limits; `None` if this Mimir does not report them, which it does only with a
    /// runtime configuration.
    pub async fn limits(&self, tenant: &TenantId) -> Result<Option<RulerLimits>, RulerError> {
        let ask = Ask::new(Method::GET, "/api/v1/user_limits", tenant);
        let response = self.transport.send(ask).await?;
        match response.status() {
            StatusCode::OK => {
                let body = self.transport.read(response, MAX_ANSWER_BYTES).await?;
                let read = RulerLimits::parse(&body).map(Some);
                read.map_err(|problem| ExchangeError::Unreadable(problem).into())
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.transport.error(response).await.into()),
        }
    }

    /// Reads an answer whose content does not matter, so that its connection can be reused.
    async fn finish(&self, response: reqwest::Response) -> Result<(), RulerError> {
        Ok(self.transport.read(response, MAX_ANSWER_BYTES).await.map(drop)?)
    }
}

fn addressable(name: &str) -> Result<(), RulerError> {
    if is_addressable(name) {
        return Ok(());
    }
    Err(RulerError::Refused(GroupRefusal::Other(format!(
        "a group cannot be called {name:?}: Mimir reads names as paths; choose a plain name"
    ))))
}
