//! The texts of notifications, as Go templates.
//!
//! Alertmanager's own link to themselves (`.ExternalURL`) and to where the alert was evaluated
//! (`.GeneratorURL`). Both are addresses of Mimir's, which lead nowhere for the organisation. So the file
//! defines those of Alertmanager's templates again that hold a link, and what else we use: with links to the
//! organisation's own dashboard, or without any. The annotation `alert_rule_id` is for machines and not shown.
//!
//! Nothing of a row stands in it. It is the same for every organisation but for its dashboard's address.

use std::collections::BTreeMap;

/// The file's name.
pub(super) const FILE: &str = "mimir-tenant-proxy.tmpl";

/// Alertmanager's own one line.
pub(super) const SUBJECT: &str = "__subject";
/// The dashboard's address, or nothing.
pub(super) const LINK: &str = "__alertmanagerURL";
/// All alerts as plain text.
pub(super) const TEXT: &str = "mimir_tenant_proxy.text";
/// The same in Markdown.
pub(super) const MARKDOWN: &str = "mimir_tenant_proxy.markdown";
/// Alerts that fire, as plain text.
pub(super) const FIRING: &str = "mimir_tenant_proxy.firing";
pub(super) const RESOLVED: &str = "mimir_tenant_proxy.resolved";
pub(super) const EMAIL_SUBJECT: &str = SUBJECT;
pub(super) const EMAIL_TEXT: &str = TEXT;
pub(super) const EMAIL_HTML: &str = "mimir_tenant_proxy.html";
pub(super) const SLACK_TITLE: &str = "slack.default.title";
pub(super) const SLACK_TEXT: &str = "mimir_tenant_proxy.slack";
pub(super) const PAGERDUTY_SEVERITY: &str = "mimir_tenant_proxy.severity";

const PLACEHOLDER: &str = "DASHBOARD_URL";
const HTML_LINK: &str = "LINK_HTML";
const TEMPLATES: &str = include_str!("templates/notification.tmpl");

/// The call of a template.
pub(super) fn call(name: &str) -> String {
    format!("{{{{ template \"{name}\" . }}}}")
}

/// The files, for a dashboard at this address. An address holds neither braces nor quotes
/// ([`DashboardUrl`](crate::config::DashboardUrl)).
pub(super) fn files(dashboard: Option<&str>) -> BTreeMap<String, String> {
    let link = dashboard.map(|url| {
        let url = url.replace('&', "&amp;");
        format!("<p><a href=\"{url}\">Open the dashboard</a></p>")
    });
    let text = TEMPLATES
        .replace(PLACEHOLDER, dashboard.unwrap_or_default())
        .replace(HTML_LINK, &link.unwrap_or_default());
    BTreeMap::from([(FILE.to_owned(), text)])
}
