//! What is asked: a pure table on method and *raw* path.
//!
//! Nothing is decoded, cleaned or case-folded, so Mimir sees exactly the bytes that were matched
//! and there is no second opinion about what a path means (CVE-2019-9901, CVE-2021-29492). What
//! is not in the table is refused before any credential is looked at.

mod console;
mod endpoint;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod near_miss;
mod priority;
mod segment;
mod table;

use std::cmp::Reverse;
use std::fmt;

use http::request::Parts;
use http::{HeaderValue, Method, Version, header};
use strum::{EnumCount, IntoStaticStr, VariantArray, VariantNames};

use crate::reason::{HasReason, Reason};
use crate::tenancy::{OrganisationId, Scope};
pub use console::ConsoleFile;
pub use endpoint::{
    AdminEndpoint, CallerEndpoint, OperatorEndpoint, OrganisationEndpoint, WebhookEndpoint,
};
pub use priority::Priority;
use segment::Match;
pub use table::ROUTES;

/// A method and a path that are served.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The methods that it takes.
    pub methods: &'static [Method],
    /// The path, with a segment in braces for each that varies: `{label}`, `{name}`,
    /// `{organisation}`, `{id}`, `{silence}`.
    pub path: &'static str,
    /// Which part of the product it belongs to.
    pub surface: Surface,
    /// What the caller must be allowed to do, and where.
    pub access: Access,
    /// What its body may be.
    pub body: BodyPolicy,
    /// Whether it comes before others when not all can be served.
    pub priority: Priority,
}

/// What a caller must be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// This, in the tenant that the request is for: it is forwarded to Mimir.
    Tenant(Scope),
    /// What the grant of this endpoint of ours needs.
    Admin(AdminEndpoint),
    /// Nothing: a file of the console, the same for everybody.
    Anyone(ConsoleFile),
}

/// A part of the product, with limits and metrics of its own.
#[derive(
    Clone, Copy, Debug, EnumCount, Eq, Hash, IntoStaticStr, PartialEq, VariantArray, VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum Surface {
    /// Remote write.
    Push,
    /// OTLP export.
    Otlp,
    /// `PromQL` and metadata.
    Query,
    /// Rules, and the alerts that they evaluate to.
    Rules,
    /// The Alertmanager: alerts that it received, and silences.
    Alerts,
    /// What we answer ourselves.
    Admin,
}

impl Surface {
    /// Every surface.
    pub const ALL: &[Self] = <Self as VariantArray>::VARIANTS;

    /// The name in metrics and logs.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// What a request's body may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPolicy {
    /// None at all.
    Empty,
    /// Query parameters.
    Form,
    /// A remote read request.
    RemoteRead,
    /// Samples by remote write, each with its own time.
    Push,
    /// Lines of Influx, which need not have a time.
    Influx,
    /// Samples by OTLP.
    Otlp,
    /// A silence in JSON; the proxy sets its author.
    Silence,
    /// JSON for us.
    Admin,
    /// A row before and after its change, in JSON.
    Webhook,
}

/// Why nothing in the table fits.
#[derive(Clone, Copy, Debug)]
pub enum RouteError {
    /// The target is not a path: absolute-form, authority-form or asterisk-form (RFC 9112, 3.2).
    Form,
    /// No route has this path; the one that was probably meant.
    Path(Option<Hint>),
    /// A route has this path, but not this method.
    Method(&'static Route),
    /// A route has this path, but for a name in it that cannot be one.
    Name(&'static Route),
    /// A write to Mimir, or a deletion, on a path that is not there.
    Write,
    /// The query string separates parameters with `;`, about which parsers disagree.
    Semicolon,
    /// HTTP/1.1 without `Host`, several of them, or one that is no host (RFC 9112, 3.2).
    Host,
    /// A transfer coding besides `chunked` (RFC 9112, 6.1).
    TransferCoding,
}

/// What a request for a path that is not there probably meant. Nothing of the request is in it: these
/// texts go to unknown callers, and into their terminals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// This path of the table.
    Path(&'static str),
    /// Something else, in words.
    Words(&'static str),
}

impl RouteError {
    /// The value of `Allow`: the methods that a path takes, none for one that is not there
    /// (RFC 9110, 10.2.1).
    pub fn allowed(&self) -> Option<String> {
        match self {
            Self::Method(route) => Some(methods_of(route).join(", ")),
            Self::Write => Some(String::new()),
            _ => None,
        }
    }

    /// The route that was probably meant.
    pub fn meant(&self) -> Option<&'static Route> {
        match self {
            Self::Method(route) | Self::Name(route) => Some(*route),
            Self::Path(Some(Hint::Path(path))) => ROUTES.iter().find(|route| route.path == *path),
            _ => None,
        }
    }
}

/// Every method of a path. A path may have one route a method.
fn methods_of(route: &Route) -> Vec<&'static str> {
    let same_path = ROUTES.iter().filter(|other| other.path == route.path);
    same_path.flat_map(|route| route.methods).map(Method::as_str).collect()
}

impl Route {
    /// Whether doing a request twice is doing it once. Reads are, and so are pushes of samples with
    /// their own times, of which Mimir keeps one (and which every sender itself repeats after a
    /// 5xx). A line of Influx without a time gets that of its arrival, so it is not. Posting
    /// a silence twice creates two; expiring one twice is harmless, and Mimir answers 200 both times.
    pub fn is_repeatable(&self) -> bool {
        match self.body {
            BodyPolicy::Empty | BodyPolicy::Form | BodyPolicy::RemoteRead => {
                self.surface != Surface::Admin
            }
            BodyPolicy::Push | BodyPolicy::Otlp => true,
            BodyPolicy::Influx | BodyPolicy::Silence | BodyPolicy::Admin | BodyPolicy::Webhook => {
                false
            }
        }
    }

    /// Whether Mimir's answer contains the tenant's Alertmanager configuration, which no caller may
    /// read.
    pub fn answers_configuration(&self) -> bool {
        self.path == table::ALERTMANAGER_STATUS
    }

    /// The silence that a path of this route names.
    pub fn silence_in<'a>(&self, path: &'a str) -> Option<&'a str> {
        self.segment_in("{silence}", path)
    }

    /// The organisation that a path of this route names.
    pub fn organisation_in(&self, path: &str) -> Option<OrganisationId> {
        self.segment_in("{organisation}", path).and_then(|name| OrganisationId::parse(name).ok())
    }

    /// The identifier that a path of this route names.
    pub fn id_in(&self, path: &str) -> Option<uuid::Uuid> {
        self.segment_in("{id}", path).and_then(|id| uuid::Uuid::try_parse(id).ok())
    }

    fn segment_in<'a>(&self, wanted: &str, path: &'a str) -> Option<&'a str> {
        let mut segments = self.path.split('/').zip(path.split('/'));
        segments.find(|(segment, _)| *segment == wanted).map(|(_, given)| given)
    }
}

/// Refuses a head that others on the way may read in another way than we do, before anything else is
/// made of it. hyper has decided where the body ends: by `chunked` wherever that stands last, and the
/// codings before it are lost when the body is sent on.
pub fn check_head(parts: &Parts) -> Result<(), RouteError> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let is_host = match (hosts.next(), hosts.next()) {
        (None, _) => parts.version != Version::HTTP_11,
        (Some(host), None) => is_host(host.as_bytes()),
        (Some(_), Some(_)) => false,
    };
    let mut codings = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    match (codings.next(), codings.next()) {
        (None, _) => {}
        (Some(coding), None) if is_chunked(coding) => {}
        _ => return Err(RouteError::TransferCoding),
    }
    if is_host { Ok(()) } else { Err(RouteError::Host) }
}

/// Empty is one, too: a client may have no name for us (RFC 9110, 7.2).
fn is_host(host: &[u8]) -> bool {
    if host.is_empty() || is_plain_host(host) {
        return true;
    }
    !host.contains(&b'@') && http::uri::Authority::try_from(host).is_ok()
}

/// Whether it is a name or an IPv4 address, perhaps with a port, as nearly all are: an `Authority`
/// copies what it parses.
fn is_plain_host(host: &[u8]) -> bool {
    let port = host.iter().rposition(|byte| *byte == b':');
    let (name, port) = port.map_or((host, &b"0"[..]), |at| (&host[..at], &host[at + 1..]));
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    !name.is_empty()
        && name.iter().all(is_plain)
        && !port.is_empty()
        && port.iter().all(u8::is_ascii_digit)
}

/// The surface of the route that has the most first segments in common with a path, and one at least; of several the
/// first.
pub fn surface_near(path: &str) -> Option<Surface> {
    let common = |route: &Route| {
        let pairs = route.path.split('/').skip(1).zip(path.split('/').skip(1));
        pairs.take_while(|(one, other)| one == other).count()
    };
    let nearest = ROUTES.iter().min_by_key(|route| Reverse(common(route)));
    nearest.filter(|route| common(route) > 0).map(|route| route.surface)
}

/// Finds the route of a request.
pub fn find(parts: &Parts) -> Result<&'static Route, RouteError> {
    let uri = &parts.uri;
    // Every HTTP/2 target carries scheme and authority; in HTTP/1 they mean absolute-form.
    let is_http2 = parts.version == Version::HTTP_2;
    if !is_http2 && (uri.scheme().is_some() || uri.authority().is_some()) {
        return Err(RouteError::Form);
    }
    if !uri.path().starts_with('/') {
        return Err(RouteError::Form);
    }
    find_path(&parts.method, uri.path(), uri.query())
}

/// Finds the route of a method, a raw path and a raw query string.
pub fn find_path(
    method: &Method,
    path: &str,
    query: Option<&str>,
) -> Result<&'static Route, RouteError> {
    let (mut other_method, mut unreadable) = (None, None);
    for route in &ROUTES {
        match segment::compare(route.path, path) {
            Match::Yes => {}
            Match::No => continue,
            Match::Unreadable => {
                unreadable = Some(route);
                continue;
            }
        }
        if !route.methods.contains(method) {
            other_method = Some(route);
            continue;
        }
        if query.is_some_and(|query| query.contains(';')) {
            return Err(RouteError::Semicolon);
        }
        return Ok(route);
    }
    Err(match (other_method, unreadable) {
        (Some(route), _) => RouteError::Method(route),
        (None, Some(route)) => RouteError::Name(route),
        (None, None) if near_miss::is_write(method, path) => RouteError::Write,
        (None, None) => RouteError::Path(near_miss::hint(path)),
    })
}

impl HasReason for RouteError {
    fn reason(&self) -> Reason {
        match self {
            Self::Path(_) => Reason::NoRoute,
            Self::Method(_) | Self::Write => Reason::MethodNotAllowed,
            Self::Form | Self::Semicolon | Self::Name(_) => Reason::MalformedTarget,
            Self::Host | Self::TransferCoding => Reason::MalformedRequest,
        }
    }
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("the request target must be a path, such as /api/v1/push"),
            Self::Path(None) => f.write_str(
                "no such path; Mimir's paths for users are served unchanged, such as /api/v1/push, \
                 /otlp/v1/metrics and /prometheus/api/v1/query",
            ),
            Self::Path(Some(Hint::Path(path))) => write!(f, "no such path; did you mean {path}"),
            Self::Path(Some(Hint::Words(words))) => write!(f, "no such path; {words}"),
            Self::Method(route) => {
                write!(f, "{} takes only {}", route.path, methods_of(route).join(" and "))?;
                let is_rules = route.path.starts_with("/prometheus/config/v1/rules");
                f.write_str(if is_rules {
                    "; rules are written as alert_rule rows, or with mimirtool against Mimir itself"
                } else {
                    ""
                })
            }
            Self::Name(route) if route.path.contains("{label}") => f.write_str(
                "the label name in the path must be percent-encoded UTF-8 without slash, backslash \
                 and NUL; every other name has an escaped form, such as U__a_2f_b for a/b",
            ),
            Self::Name(route) if route.path.contains("{silence}") => {
                f.write_str("a silence is named by its id, a UUID, which ends the path")
            }
            Self::Name(_) => f.write_str(
                "a name in the path must be percent-encoded UTF-8 without backslash, NUL and parts \
                 that are empty, '.' or '..'",
            ),
            Self::Write => f.write_str(
                "nothing can be written or deleted on this path; rules are written as alert_rule \
                 rows, or with mimirtool against Mimir itself, and so is the Alertmanager's \
                 configuration",
            ),
            Self::Host => f.write_str("the request must have one Host header that names one host"),
            Self::TransferCoding => {
                f.write_str("the only Transfer-Encoding that is taken is chunked, once")
            }
            Self::Semicolon => {
                f.write_str("the query string must separate parameters with '&'; write ';' as %3B")
            }
        }
    }
}

#[cfg(test)]
mod tests;
