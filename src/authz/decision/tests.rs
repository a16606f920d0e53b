use super::super::access::access_set;
use super::*;
use crate::authn::samples::{
    device, ids, principal, user_of, with_default, with_role, with_second_factor,
};
use crate::authn::{ClaimedOrganisations, Identity, Service, User};
use crate::config::{MembershipPolicy, TenancyConfig};
use crate::route;
use crate::tenancy::{Membership, Role, RoleMap, Scopes};
use http::Method;
use proptest::prelude::*;

fn config(membership: MembershipPolicy) -> TenancyConfig {
    TenancyConfig {
        template: TenantTemplate::default(),
        membership,
        roles: RoleMap::default(),
        user_scopes: Scope::DATA.into_iter().collect(),
        service_scopes: Scope::ALL.into_iter().collect(),
        federation: Some(16),
    }
}

fn id(name: &str) -> OrganisationId {
    OrganisationId::parse(name).unwrap()
}

fn one(name: &str) -> Selector {
    Selector::One(id(name))
}

fn several(names: &[&str]) -> Selector {
    Selector::Several(ids(names))
}

fn claims(names: &[&str]) -> User {
    user_of(ClaimedOrganisations::Listed(ids(names)))
}

fn member(organisation: &str, role: &str) -> Membership {
    Membership { organisation: id(organisation), role: Role::new(role), is_default: false }
}

const QUERY: &str = "/prometheus/api/v1/query";
const PUSH: &str = "/api/v1/push";
const RULES: &str = "/prometheus/api/v1/rules";

struct Request {
    policy: MembershipPolicy,
    identity: Identity,
    table: Vec<Membership>,
}

impl Request {
    fn by_claims(user: User) -> Self {
        Self { policy: MembershipPolicy::Claims, identity: Identity::User(user), table: vec![] }
    }

    fn by_table(table: &[Membership]) -> Self {
        let identity = Identity::User(user_of(ClaimedOrganisations::Missing));
        Self { policy: MembershipPolicy::Table, identity, table: table.to_vec() }
    }

    fn ask(self, path: &str, selector: &Selector) -> Result<String, Denial> {
        let method = if path == PUSH { Method::POST } else { Method::GET };
        let route = route::find_path(&method, path, None).unwrap();
        let route::Access::Tenant(scope) = route.access else { panic!("{path}") };
        let (config, principal) = (config(self.policy), principal(self.identity));
        let access = access_set(&config, &principal, &self.table)?;
        let grant = decide(&config.template, &principal, &access, route, scope, selector)?;
        Ok(grant.tenants().as_str().to_owned())
    }
}

#[expect(clippy::unnecessary_wraps, reason = "what an answer is compared with")]
fn granted(tenants: &str) -> Result<String, Denial> {
    Ok(tenants.to_owned())
}

#[test]
fn a_member_of_one_needs_no_selector() {
    assert_eq!(Request::by_claims(claims(&["a"])).ask(QUERY, &Selector::None), granted("a"));
    assert_eq!(Request::by_claims(claims(&["a"])).ask(QUERY, &one("a")), granted("a"));
    let member = [member("a", "viewer")];
    assert_eq!(Request::by_table(&member).ask(QUERY, &Selector::None), granted("a"));
}

#[test]
fn a_member_of_several_names_one_or_has_a_default() {
    let both = || claims(&["a", "b"]);
    assert_eq!(Request::by_claims(both()).ask(QUERY, &one("b")), granted("b"));
    let denied = Err(Denial::NameOne(ids(&["a", "b"])));
    assert_eq!(Request::by_claims(both()).ask(QUERY, &Selector::None), denied);
    let with_b = || with_default(both(), "b");
    assert_eq!(Request::by_claims(with_b()).ask(QUERY, &Selector::None), granted("b"));
    assert_eq!(Request::by_claims(with_b()).ask(QUERY, &one("a")), granted("a"));
    // A default that is not theirs is none.
    let foreign = with_default(both(), "c");
    assert_eq!(Request::by_claims(foreign).ask(QUERY, &Selector::None), denied);
    let table = [member("a", "viewer"), Membership { is_default: true, ..member("b", "viewer") }];
    assert_eq!(Request::by_table(&table).ask(QUERY, &Selector::None), granted("b"));
}

#[test]
fn foreign_unknown_and_impossible_organisations_look_the_same() {
    for selector in
        [one("b"), one("no-such-organisation"), Selector::Impossible, several(&["a", "b"])]
    {
        let by_claims = Request::by_claims(claims(&["a"]));
        assert_eq!(by_claims.ask(QUERY, &selector), Err(Denial::NotAMember), "{selector:?}");
        let by_table = Request::by_table(&[member("a", "owner")]);
        assert_eq!(by_table.ask(QUERY, &selector), Err(Denial::NotAMember), "{selector:?}");
        let identity = Identity::Device(device("a", Scope::DEVICE.into_iter().collect()));
        let by_key = Request { policy: MembershipPolicy::Table, identity, table: vec![] };
        assert_eq!(by_key.ask(QUERY, &selector), Err(Denial::NotAMember), "{selector:?}");
    }
}

#[test]
fn a_role_decides_what_a_member_may_do() {
    for (role, may_push) in [("owner", true), ("admin", true), ("editor", true), ("viewer", false)]
    {
        let denied = Err(Denial::Scope(Scope::MetricsWrite, Some(Role::new(role))));
        let wanted = if may_push { granted("a") } else { denied };
        assert_eq!(
            Request::by_table(&[member("a", role)]).ask(PUSH, &Selector::None),
            wanted,
            "{role}"
        );
        let user = with_role(claims(&["a"]), role);
        assert_eq!(Request::by_claims(user).ask(PUSH, &Selector::None), wanted, "{role}");
    }
    let nobody = Request::by_table(&[member("a", "no-such-role")]);
    let role = Some(Role::new("no-such-role"));
    let denied = Err(Denial::Scope(Scope::MetricsRead, role));
    assert_eq!(nobody.ask(QUERY, &Selector::None), denied);
}

#[test]
fn claims_that_the_table_checks_take_both() {
    let ask = |claimed: &[&str], table: &[Membership], selector: &Selector| {
        let identity = Identity::User(claims(claimed));
        let policy = MembershipPolicy::ClaimsAndTable;
        Request { policy, identity, table: table.to_vec() }.ask(QUERY, selector)
    };
    assert_eq!(ask(&["a"], &[member("a", "viewer")], &Selector::None), granted("a"));
    assert_eq!(ask(&["a"], &[], &Selector::None), Err(Denial::NoOrganisation));
    assert_eq!(ask(&["a"], &[member("b", "owner")], &one("b")), Err(Denial::NotAMember));
    assert_eq!(ask(&["a"], &[member("b", "owner")], &one("a")), Err(Denial::NotAMember));
}

#[test]
fn a_federated_read_needs_the_scope_in_each_and_is_a_read() {
    let table = [member("b", "viewer"), member("a", "viewer"), member("c", "no-role")];
    assert_eq!(Request::by_table(&table).ask(QUERY, &several(&["b", "a"])), granted("a|b"));
    let denied = Err(Denial::Scope(Scope::MetricsRead, Some(Role::new("no-role"))));
    assert_eq!(Request::by_table(&table).ask(QUERY, &several(&["a", "c"])), denied);
    let only_one = Err(Denial::Selector(SelectorFault::OnlyOne));
    for path in [PUSH, RULES] {
        assert_eq!(Request::by_table(&table).ask(path, &several(&["a", "b"])), only_one, "{path}");
    }
}

#[test]
fn a_service_names_the_organisation_and_a_device_has_one() {
    let service = || Request {
        policy: MembershipPolicy::Table,
        identity: Identity::Service(Service::AdminKey),
        table: vec![],
    };
    assert_eq!(service().ask(QUERY, &Selector::None), Err(Denial::NameAny));
    assert_eq!(service().ask(PUSH, &one("anything")), granted("anything"));
    assert_eq!(service().ask(QUERY, &Selector::Impossible), Err(Denial::NotAMember));
    let write: Scopes = [Scope::MetricsWrite].into_iter().collect();
    let device = || Request {
        policy: MembershipPolicy::Claims,
        identity: Identity::Device(device("a", write)),
        table: vec![],
    };
    assert_eq!(device().ask(PUSH, &Selector::None), granted("a"));
    assert_eq!(device().ask(QUERY, &Selector::None), Err(Denial::Scope(Scope::MetricsRead, None)));
}

#[test]
fn an_admin_administers_only_their_own_organisation_and_a_service_all() {
    let config = config(MembershipPolicy::Table);
    let user = || principal(Identity::User(user_of(ClaimedOrganisations::Missing)));
    let ask = |principal: Arc<Principal>, table: &[Membership], organisation: &str| {
        let access = access_set(&config, &principal, table)?;
        let grant =
            decide_organisation(&principal, &access, &id(organisation), AssuranceLevel::Aal1)?;
        assert_eq!(grant.organisation(), &id(organisation));
        Ok(())
    };
    let table = [member("a", "admin"), member("v", "viewer")];
    assert_eq!(ask(user(), &table, "a"), Ok(()));
    let viewer = Some(Role::new("viewer"));
    assert_eq!(ask(user(), &table, "v"), Err(Denial::Scope(Scope::Admin, viewer)));
    assert_eq!(ask(user(), &table, "b"), Err(Denial::NotAMember));
    let all: Scopes = Scope::ALL.into_iter().collect();
    let device = || {
        principal(Identity::Device(device(
            "a",
            all.intersection(Scope::DEVICE.into_iter().collect()),
        )))
    };
    assert_eq!(ask(device(), &[], "a"), Err(Denial::Scope(Scope::Admin, None)));
    let service = || principal(Identity::Service(Service::ServiceRole));
    assert_eq!(ask(service(), &[], "b"), Ok(()));
    let operate = |principal: Arc<Principal>, table: &[Membership]| {
        let access = access_set(&config, &principal, table)?;
        decide_operator(&principal, &access).map(|_| ())
    };
    assert_eq!(operate(user(), &table), Err(Denial::ServiceOnly));
    assert_eq!(operate(device(), &[]), Err(Denial::ServiceOnly));
    assert_eq!(operate(service(), &[]), Ok(()));
}

// Whoever has only an administrator's password must not make keys that outlive the session.
#[test]
fn to_administer_may_require_a_second_factor_of_users() {
    let config = config(MembershipPolicy::Table);
    let ask = |identity: Identity, role: &str, level: AssuranceLevel| {
        let (principal, table) = (principal(identity), [member("a", role)]);
        let access = access_set(&config, &principal, &table)?;
        decide_organisation(&principal, &access, &id("a"), level).map(|_| ())
    };
    let user = || Identity::User(user_of(ClaimedOrganisations::Missing));
    let second = || Identity::User(with_second_factor(user_of(ClaimedOrganisations::Missing)));
    let (aal1, aal2) = (AssuranceLevel::Aal1, AssuranceLevel::Aal2);
    assert_eq!(ask(user(), "admin", aal1), Ok(()));
    assert_eq!(ask(user(), "admin", aal2), Err(Denial::SecondFactor));
    assert_eq!(ask(second(), "admin", aal2), Ok(()));
    // Signing in once more would not help a viewer.
    let viewer = Err(Denial::Scope(Scope::Admin, Some(Role::new("viewer"))));
    assert_eq!(ask(user(), "viewer", aal2), viewer);
    assert_eq!(ask(Identity::Service(Service::AdminKey), "viewer", aal2), Ok(()));
}

// The secret of the webhooks is in a database that its owner administers: it must not be worth more
// than a trigger, whatever it is shown to.
#[test]
fn the_webhooks_secret_opens_the_webhook_and_nothing_else() {
    let config = config(MembershipPolicy::Table);
    let webhook = principal(Identity::Service(Service::Webhook));
    assert!(decide_webhook(&webhook).is_ok());
    let access = access_set(&config, &webhook, &[]).unwrap();
    let on_one = decide_organisation(&webhook, &access, &id("a"), AssuranceLevel::Aal1);
    assert_eq!(on_one.err(), Some(Denial::NotAMember));
    assert_eq!(decide_operator(&webhook, &access).err(), Some(Denial::ServiceOnly));
    for other in [
        Identity::Service(Service::AdminKey),
        Identity::Service(Service::ServiceRole),
        Identity::Device(device("a", Scope::DEVICE.into_iter().collect())),
        Identity::User(claims(&["a"])),
    ] {
        assert_eq!(decide_webhook(&principal(other)).err(), Some(Denial::ServiceOnly));
    }
}

proptest! {
    // The one property that the product exists for.
    #[test]
    fn nobody_is_granted_what_is_not_theirs(
        claimed in proptest::collection::vec("[a-d]{1,2}", 0..4),
        table in proptest::collection::vec(("[a-d]{1,2}", "owner|editor|viewer|nothing"), 0..4),
        wanted in proptest::collection::vec("[a-d]{1,2}", 0..3),
        policy in prop::sample::select(vec![
            MembershipPolicy::Claims, MembershipPolicy::Table, MembershipPolicy::ClaimsAndTable,
        ]),
        path in prop::sample::select(vec![QUERY, PUSH, RULES]),
    ) {
        let names: Vec<&str> = claimed.iter().map(String::as_str).collect();
        let selector = match wanted.as_slice() {
            [] => Selector::None,
            [only] => one(only),
            some => several(&some.iter().map(String::as_str).collect::<Vec<_>>()),
        };
        let rows = table.iter().map(|(name, role)| member(name, role)).collect();
        let asked = Request { policy, identity: Identity::User(claims(&names)), table: rows };
        if let Ok(granted) = asked.ask(path, &selector) {
            for tenant in granted.split('|') {
                let in_claims = claimed.iter().any(|name| name == tenant);
                let in_table = table.iter().any(|(name, role)| name == tenant && role != "nothing");
                let theirs = match policy {
                    MembershipPolicy::Claims => in_claims,
                    MembershipPolicy::Table => in_table,
                    MembershipPolicy::ClaimsAndTable => in_claims && in_table,
                };
                prop_assert!(theirs);
                prop_assert!(wanted.is_empty() || wanted.iter().any(|name| name == tenant));
            }
            prop_assert!(path == QUERY || !granted.contains('|'));
        }
    }
}
