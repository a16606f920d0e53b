//! Mimir's HTTP interface as this crate knows it, and the only place that writes the tenant header.

pub mod alertmanager;
pub mod expression;
pub mod filters;
pub mod form;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod headers;
mod instances;
pub mod otlp;
pub mod remote_read;
mod retry;
pub mod ruler;
pub mod silence;
mod transport;

pub use headers::{TENANT_HEADER, is_never_forwarded, passes};
pub use retry::{MAX_DELAY, Retriable, next_delay, retrying};
pub use transport::{ExchangeError, MimirChange, MimirConfig, MimirHandle};

use http::HeaderMap;

use crate::tenancy::TenantHeader;

/// Sets the tenant of a request. It goes in last and replaces whatever the map held, so that
/// neither a client's spelling nor a `Connection` header can affect it (CVE-2021-32813,
/// CVE-2024-45410).
pub fn set_tenant(headers: &mut HeaderMap, tenants: &TenantHeader) {
    headers.insert(TENANT_HEADER, tenants.header_value());
}

/// Writes the tenant of a request into its head, as the last line: the only one with this name,
/// because no client's passes.
pub fn write_tenant(head: &mut Vec<u8>, tenants: &TenantHeader) {
    head.extend_from_slice(TENANT_HEADER.as_str().as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(tenants.as_str().as_bytes());
    head.extend_from_slice(b"\r\n");
}
