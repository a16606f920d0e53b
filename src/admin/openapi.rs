//! `/admin` as `OpenAPI`, made of the route table. Paths, methods, path parameters and summaries are the
//! table's, and the schemas are those of the structs that are read and written; what else there is to
//! say of an endpoint, [`describe`] says. It is an exhaustive match: an endpoint that is not described
//! does not compile.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use super::all_rules::{AllSyncAnswer, Status};
use super::answer::{Answer, Success};
use super::channel_views::{AllChannels, ChannelDiffView, ChannelList, ChannelSyncAnswer};
use super::device_keys::{self, CreatedDeviceKey, DeviceKeyList};
use super::limits::{LimitsView, OrganisationUseView};
use super::organisations::{MemberPage, OrganisationPage};
use super::paging;
use super::refusals::{MOST, RefusalList};
use super::revocations::{AddedRevocation, RemovedRevocation, RevocationList, RevocationRequest};
use super::rule_views::{DiffView, RuleList, SyncAnswer, SyncProgress};
use super::rules::Confirmation;
use super::system::{ConfigView, KeysView, StatusView, UpstreamList};
use super::webhook::AcceptedTrigger;
use super::whoami::Whoami;
use crate::authz::CallerGrant;
use crate::channels::TestReport;
use crate::key_management::{DeviceKeyRequest, DeviceKeyView};
use crate::route::{
    Access, AdminEndpoint, CallerEndpoint, OperatorEndpoint, OrganisationEndpoint, ROUTES,
    WebhookEndpoint,
};

const DESCRIPTION: &str = "Errors have the form of Prometheus' API: \
    {\"status\": \"error\", \"errorType\", \"error\"}. \
    401: the credential is missing or refused. \
    403: the caller may not do this, or the organisation does not exist. \
    503 with Retry-After: temporarily unavailable; retry later.";

const DONE: &str = "done";
const RUNNING: &str = "still running; its progress is shown at `poll`";
const NO_LEADER: &str = "not done yet; ask again";
const TESTED: &str = "what became of the test; it takes up to a minute";
const DONE_OR_DRY: &str = "done; with dry_run, what would change";

const LIMIT: (&str, &str) = ("limit", "how many at most; 100 by default");
const REASON: (&str, &str) = ("reason", "only those of this reason");
const ORGANISATION: (&str, &str) =
    ("organisation", "only those of this organisation, granted or asked for");

/// What is said of an endpoint beside its route.
struct Operation<'a> {
    schemas: &'a mut Schemas,
    tag: &'static str,
    body: Option<Value>,
    responses: Map<String, Value>,
    has_dry_run: bool,
    filters: Vec<Value>,
    paging: &'static [&'static str],
    /// The length of a page that is not said.
    page: usize,
}

/// The schemas that the document refers to, by name.
#[derive(Default)]
struct Schemas(BTreeMap<String, RefOr<Schema>>);

/// Made once: every caller may ask for it, and it takes a while.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document().to_string().into());

pub(super) fn show(_: &CallerGrant) -> Answer {
    Answer::written(Ok(DOCUMENT.clone()))
}

fn document() -> Value {
    let mut schemas = Schemas::default();
    let mut paths = Map::new();
    for route in &ROUTES {
        let Access::Admin(endpoint) = route.access else { continue };
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        for method in route.methods {
            item[method.as_str().to_lowercase()] = describe(endpoint, &mut schemas).value(endpoint);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "mimir-tenant-proxy: /admin",
            "description": DESCRIPTION,
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas.0,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "a Supabase access token, a device key, or auth.admin_key",
                },
                "webhook": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "rules.webhook_secret, which opens nothing else",
                },
                "webhook_header": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-Webhook-Secret",
                },
            },
        },
        "security": [{ "bearer": [] }],
    })
}

fn describe(endpoint: AdminEndpoint, schemas: &mut Schemas) -> Operation<'_> {
    use Success::{Accepted, Created, Done};
    match endpoint {
        AdminEndpoint::Caller(endpoint) => {
            use CallerEndpoint as E;
            let operation = Operation::new("about", schemas);
            match endpoint {
                E::Whoami => operation.answers::<Whoami<'_>>(Done, DONE),
                E::OpenApi => operation.answers_with(Done, DONE, &json!({ "type": "object" })),
            }
        }
        AdminEndpoint::Organisation(endpoint) => {
            use OrganisationEndpoint as E;
            match endpoint {
                E::ListDeviceKeys => Operation::new("device keys", schemas)
                    .with_paging(&["limit", "after", "filter"])
                    .with_pages_of(device_keys::PAGE)
                    .answers::<DeviceKeyList>(Done, DONE),
                E::CreateDeviceKey => Operation::new("device keys", schemas)
                    .takes::<DeviceKeyRequest>()
                    .answers::<CreatedDeviceKey<'_>>(Created, "created"),
                E::ShowDeviceKey | E::RevokeDeviceKey => {
                    Operation::new("device keys", schemas).answers::<DeviceKeyView>(Done, DONE)
                }
                E::ListRules => Operation::new("rules", schemas).answers::<RuleList>(Done, DONE),
                E::DiffRules => Operation::new("rules", schemas).answers::<DiffView>(Done, DONE),
                E::SyncRules => Operation::new("rules", schemas)
                    .with_dry_run()
                    .answers::<SyncAnswer>(Done, DONE_OR_DRY)
                    .answers::<SyncProgress>(Accepted, RUNNING),
                E::SyncProgress => {
                    Operation::new("rules", schemas).answers::<SyncProgress>(Done, DONE)
                }
                E::ConfirmDeletion => Operation::new("rules", schemas).confirms(),
                E::ListChannels => {
                    Operation::new("channels", schemas).answers::<ChannelList>(Done, DONE)
                }
                E::DiffChannels => {
                    Operation::new("channels", schemas).answers::<ChannelDiffView>(Done, DONE)
                }
                E::SyncChannels => Operation::new("channels", schemas)
                    .answers::<ChannelSyncAnswer>(Done, DONE)
                    .answers::<ChannelSyncAnswer>(Accepted, NO_LEADER),
                E::TestChannel => {
                    Operation::new("channels", schemas).answers::<TestReport>(Done, TESTED)
                }
                E::ConfirmChannels => {
                    Operation::new("channels", schemas).confirms_with::<ChannelSyncAnswer>()
                }
                E::ListMembers => Operation::new("organisations", schemas)
                    .with_paging(&["limit", "after", "filter"])
                    .answers::<MemberPage<'_>>(Done, DONE),
                E::ShowLimits => Operation::new("organisations", schemas)
                    .answers::<OrganisationUseView>(Done, DONE),
            }
        }
        AdminEndpoint::Operator(endpoint) => describe_for_operators(endpoint, schemas),
        AdminEndpoint::Webhook(WebhookEndpoint::AlertRuleChanged) => {
            Operation::new("webhooks", schemas)
                .takes_any_object()
                .answers::<AcceptedTrigger<'_>>(Accepted, "accepted; the rules are reconciled")
        }
    }
}

fn describe_for_operators(endpoint: OperatorEndpoint, schemas: &mut Schemas) -> Operation<'_> {
    use OperatorEndpoint as E;
    use Success::{Accepted, Created, Done};
    match endpoint {
        E::ListRevocations => {
            Operation::new("revocations", schemas).answers::<RevocationList<'_>>(Done, DONE)
        }
        E::AddRevocation => Operation::new("revocations", schemas)
            .takes::<RevocationRequest>()
            .answers::<AddedRevocation<'_>>(Created, "added"),
        E::RemoveRevocation => {
            Operation::new("revocations", schemas).answers::<RemovedRevocation>(Done, DONE)
        }
        E::RulesStatus => Operation::new("all rules", schemas).answers::<Status>(Done, DONE),
        E::SyncAllRules => Operation::new("all rules", schemas)
            .with_dry_run()
            .answers::<AllSyncAnswer>(Done, DONE_OR_DRY)
            .answers::<SyncProgress>(Accepted, RUNNING),
        E::SyncAllProgress => {
            Operation::new("all rules", schemas).answers::<SyncProgress>(Done, DONE)
        }
        E::ConfirmAllDeletions => Operation::new("all rules", schemas).confirms(),
        E::ChannelsStatus => {
            Operation::new("all channels", schemas).answers::<AllChannels>(Done, DONE)
        }
        E::ListRefusals => Operation::new("refusals", schemas)
            .filtered_by(json!({ "type": "integer", "minimum": 1, "maximum": MOST }), LIMIT)
            .filtered_by(json!({ "type": "string" }), REASON)
            .filtered_by(json!({ "type": "string" }), ORGANISATION)
            .answers::<RefusalList>(Done, DONE),
        E::ListOrganisations => Operation::new("organisations", schemas)
            .with_paging(&["limit", "after", "filter", "problems"])
            .answers::<OrganisationPage>(Done, DONE),
        E::ShowStatus => Operation::new("system", schemas).answers::<StatusView>(Done, DONE),
        E::ListUpstreams => Operation::new("system", schemas).answers::<UpstreamList>(Done, DONE),
        E::ShowKeys => Operation::new("system", schemas).answers::<KeysView>(Done, DONE),
        E::ListLimits => Operation::new("system", schemas)
            .with_paging(&["limit"])
            .answers::<LimitsView>(Done, DONE),
        E::ShowConfig => Operation::new("system", schemas).answers::<ConfigView<'_>>(Done, DONE),
    }
}

impl<'a> Operation<'a> {
    fn new(tag: &'static str, schemas: &'a mut Schemas) -> Self {
        Self {
            schemas,
            tag,
            body: None,
            responses: Map::new(),
            has_dry_run: false,
            filters: vec![],
            paging: &[],
            page: paging::LIMIT,
        }
    }

    fn takes<T: ToSchema>(mut self) -> Self {
        self.body = Some(self.schemas.reference::<T>());
        self
    }

    fn takes_any_object(mut self) -> Self {
        self.body = Some(json!({ "type": "object" }));
        self
    }

    fn with_dry_run(mut self) -> Self {
        self.has_dry_run = true;
        self
    }

    fn filtered_by(mut self, schema: Value, (name, description): (&str, &str)) -> Self {
        self.filters.push(json!({
            "name": name,
            "in": "query",
            "description": description,
            "schema": schema,
        }));
        self
    }

    /// Takes these parameters of a list.
    fn with_paging(mut self, names: &'static [&'static str]) -> Self {
        self.paging = names;
        self
    }

    fn with_pages_of(mut self, page: usize) -> Self {
        self.page = page;
        self
    }

    fn answers<T: ToSchema>(self, success: Success, description: &str) -> Self {
        let schema = self.schemas.reference::<T>();
        self.answers_with(success, description, &schema)
    }

    fn answers_with(self, success: Success, description: &str, schema: &Value) -> Self {
        let content = json!({ "application/json": { "schema": schema } });
        self.responds(success.status(), json!({ "description": description, "content": content }))
    }

    fn confirms(self) -> Self {
        self.confirms_with::<SyncProgress>()
    }

    fn confirms_with<T: ToSchema>(self) -> Self {
        self.takes::<Confirmation>()
            .answers::<T>(Success::Done, DONE)
            .answers::<T>(Success::Accepted, RUNNING)
            .responds(NO_SUCH_HOLD, json!({ "description": "no such deletion is held back" }))
            .responds(
                STALE_HOLD,
                json!({ "description": "the deletion is not held back any more, or more rules \
                        would be deleted by now: the text names them and the deletion that is \
                        held back instead" }),
            )
    }

    fn responds(mut self, status: StatusCode, response: Value) -> Self {
        self.responses.insert(status.as_str().to_owned(), response);
        self
    }

    fn value(self, endpoint: AdminEndpoint) -> Value {
        let mut parameters = Vec::new();
        for segment in endpoint.path().split('/') {
            let (name, schema) = match segment {
                "{organisation}" => ("organisation", json!({ "type": "string" })),
                "{id}" => ("id", json!({ "type": "string", "format": "uuid" })),
                _ => continue,
            };
            parameters
                .push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
        }
        if self.has_dry_run {
            parameters.push(json!({
                "name": "dry_run",
                "in": "query",
                "description": "only show what would change",
                "schema": { "type": "boolean" },
            }));
        }
        parameters.extend(self.filters);
        for name in self.paging {
            let (description, schema) = match *name {
                "limit" => (
                    "how many at most",
                    json!({
                        "type": "integer",
                        "minimum": 1,
                        "maximum": paging::MOST,
                        "default": self.page,
                    }),
                ),
                "after" => ("`next` of the page before", json!({ "type": "string" })),
                "problems" => ("only those with a problem", json!({ "type": "boolean" })),
                _ => ("a part of what is looked for", json!({ "type": "string" })),
            };
            parameters.push(json!({
                "name": name, "in": "query", "description": description, "schema": schema,
            }));
        }
        let mut value = json!({
            "operationId": endpoint.name(),
            "tags": [self.tag],
            "summary": endpoint.summary(),
            "parameters": parameters,
            "responses": self.responses,
        });
        if let Some(schema) = self.body {
            value["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
        }
        if let AdminEndpoint::Webhook(_) = endpoint {
            value["security"] = json!([{ "webhook": [] }, { "webhook_header": [] }]);
        }
        value
    }
}

/// For the description only: `rejection` decides on the statuses of errors, and a test compares.
const NO_SUCH_HOLD: StatusCode = StatusCode::NOT_FOUND;
const STALE_HOLD: StatusCode = StatusCode::CONFLICT;

impl Schemas {
    /// A reference to the schema of a type, which is added with all that it refers to.
    fn reference<T: ToSchema>(&mut self) -> Value {
        let name = T::name().into_owned();
        let mut inner = Vec::new();
        T::schemas(&mut inner);
        self.0.extend(inner);
        let reference = format!("#/components/schemas/{name}");
        self.0.insert(name, T::schema());
        json!({ "$ref": reference })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::admin::AdminError;
    use crate::rejection::{Audience, Rejection};

    #[test]
    fn every_admin_route_is_described_and_nothing_else() {
        let document = document();
        let described: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().unwrap().keys();
                methods.map(move |method| (method.to_uppercase(), path.clone()))
            })
            .collect();
        let served: BTreeSet<(String, String)> = ROUTES
            .iter()
            .filter(|route| matches!(route.access, Access::Admin(_)))
            .flat_map(|route| {
                route.methods.iter().map(|method| (method.to_string(), route.path.to_owned()))
            })
            .collect();
        assert_eq!(described, served);
    }

    #[test]
    fn every_reference_and_every_parameter_of_a_path_is_described() {
        let document = document();
        let text = document.to_string();
        for reference in text.split("\"#/components/").skip(1) {
            let pointer = format!("/components/{}", reference.split('"').next().unwrap());
            assert!(document.pointer(&pointer).is_some(), "{pointer}");
        }
        for route in &ROUTES {
            let Access::Admin(endpoint) = route.access else { continue };
            assert_eq!(route.path, endpoint.path());
            let method = route.methods[0].as_str().to_lowercase();
            let operation = &document["paths"][route.path][method];
            let parameters = operation["parameters"].as_array().unwrap();
            let described: BTreeSet<String> = parameters
                .iter()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| format!("{{{}}}", parameter["name"].as_str().unwrap()))
                .collect();
            let named: BTreeSet<String> = route
                .path
                .split('/')
                .filter(|segment| segment.starts_with('{'))
                .map(str::to_owned)
                .collect();
            assert_eq!(described, named, "{}", route.path);
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{}", route.path);
        }
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let endpoints = ROUTES.iter().filter_map(|route| match route.access {
            Access::Admin(endpoint) => Some(endpoint.name()),
            Access::Tenant(_) | Access::Anyone(_) => None,
        });
        let names: Vec<&str> = endpoints.collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    }

    #[test]
    fn the_statuses_of_a_refused_confirmation_are_those_of_its_errors() {
        let status = |error| Rejection::Admin(error).status(Audience::Reader);
        assert_eq!(status(AdminError::Missing("deletion")), NO_SUCH_HOLD);
        assert_eq!(status(AdminError::Stale(String::new())), STALE_HOLD);
    }
}
