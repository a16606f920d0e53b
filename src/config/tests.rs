//! What is read of a configuration, section by section.

mod files;

use std::time::Duration;

use super::*;
use crate::tenancy::OrganisationId;

fn environment(vars: &[(&str, &str)]) -> Environment {
    Environment::from_vars(
        vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

fn read(text: &str) -> Result<Config, Faults> {
    Config::read(text, &Environment::default())
}

const MINIMAL: &str = r#"
    [auth]
    issuer = "https://ref.supabase.co/auth/v1"
    [upstream]
    urls = ["http://mimir.internal:8080"]
"#;

fn keys(faults: &Faults) -> Vec<&str> {
    faults.0.iter().map(|fault| fault.key.as_str()).collect()
}

#[test]
fn a_minimal_file_is_enough() {
    let config = read(MINIMAL).unwrap();
    let key_set = config.auth.key_set.unwrap();
    assert_eq!(key_set.url.as_str(), "https://ref.supabase.co/auth/v1/.well-known/jwks.json");
    assert!(key_set.refresh_interval.as_secs() <= 600);
    assert_eq!(config.upstream.upstreams[0].host, "mimir.internal");
    assert_eq!(config.upstream.upstreams[0].authority, "mimir.internal:8080");
}

#[test]
fn all_faults_are_reported_in_one_run() {
    let faults = read(
        r#"
        [listen]
        address = "8080"
        adress = "[::]:8080"
        [auth]
        organisation_claim = "user_metadata.org"
        hs256_secret = "short"
        leeway = 10
        [upstream]
        urls = ["ftp://mimir", "http://mimir/prefix"]
        pass_headers = ["X-Scope-OrgID"]
        [tenancy]
        tenant_template = "fixed"
        user_scopes = ["metrics:all"]
        [surprise]
        "#,
    )
    .unwrap_err();
    assert_eq!(
        keys(&faults),
        [
            "upstream.urls",
            "upstream.urls",
            "upstream.pass_headers",
            "listen.address",
            "listen.adress",
            "auth.issuer",
            "auth.hs256_secret",
            "auth.organisation_claim",
            "auth.leeway",
            "tenancy.tenant_template",
            "tenancy.user_scopes",
            "surprise",
        ]
    );
    for fault in &faults.0 {
        assert!(fault.problem.len() > 10, "{fault:?}");
    }
}

#[test]
fn the_environment_overrides_the_file() {
    let environment = environment(&[
        ("MTP__UPSTREAM__URLS", "http://a:1, http://b:2"),
        ("MTP__AUTH__ALLOW_ANONYMOUS", "true"),
        ("MTP__LISTEN__WORKERS", "3"),
        ("UNRELATED", "x"),
    ]);
    let config = Config::read(MINIMAL, &environment).unwrap();
    assert_eq!(config.upstream.upstreams.len(), 2);
    assert!(config.auth.tokens.allow_anonymous);
    assert_eq!(config.listen.workers, 3);
    for (written, count) in [("[\"http://a:1\", 'http://b:2']", Some(2)), ("[\"http://a:1\"", None)]
    {
        let environment = self::environment(&[("MTP__UPSTREAM__URLS", written)]);
        let config = Config::read(MINIMAL, &environment);
        assert_eq!(config.ok().map(|config| config.upstream.upstreams.len()), count);
    }
}

#[test]
fn unknown_variables_are_faults() {
    let environment = environment(&[("MTP__AUTH__ISSUR", "x"), ("MTP__NOWHERE__KEY", "x")]);
    let faults = Config::read(MINIMAL, &environment).unwrap_err();
    assert_eq!(keys(&faults), ["MTP__AUTH__ISSUR", "MTP__NOWHERE__…"]);
}

#[test]
fn a_secret_may_come_from_a_file_and_is_never_printed() {
    let file = std::env::temp_dir().join(format!("mtp-secret-{}", std::process::id()));
    let secret = "a-secret-of-more-than-thirty-two-bytes";
    std::fs::write(&file, format!("{secret}\n")).unwrap();
    let path = file.to_str().unwrap().to_owned();
    let config = Config::read(MINIMAL, &environment(&[("MTP__AUTH__HS256_SECRET_FILE", &path)]));
    std::fs::remove_file(&file).unwrap();
    let config = config.unwrap();
    assert_eq!(config.auth.hs256_secrets, [Secret::new(secret)]);
    assert!(!format!("{config:?}").contains(secret));
    let gone = Config::read(MINIMAL, &environment(&[("MTP__AUTH__HS256_SECRET_FILE", &path)]));
    assert_eq!(keys(&gone.unwrap_err()), ["MTP__AUTH__HS256_SECRET_FILE"]);
}

#[test]
fn a_key_set_over_plain_http_must_be_allowed() {
    let with = |line: &str| read(&MINIMAL.replace("[auth]", &format!("[auth]\n{line}")));
    let far = "jwks_url = \"http://kong:8000/jwks\"";
    assert_eq!(keys(&with(far).unwrap_err()), ["auth.jwks_url"]);
    assert!(with(&format!("{far}\njwks_allow_http = true")).is_ok());
    assert!(with("jwks_url = \"http://127.0.0.1:54321/jwks\"").is_ok());
    assert_eq!(keys(&with("jwks_url = \"\"").unwrap_err()), ["auth.jwks_url"]);
}

// A setting that is silently ignored is worse than none.
#[test]
fn settings_that_need_a_database_are_faults_without_one() {
    let with = |section: &str| read(&format!("{MINIMAL}\n{section}"));
    for off in [
        "[database]\nurl = \"\"",
        "[cors]\nallowed_origins = []",
        "[roles]",
        "[rules]\nenabled = false\nnamespace = \"alert_rule\"\nreconcile_interval = \"5m\"\nwebhook_secret = \"\"",
    ] {
        assert!(with(off).is_ok(), "{off}: {:?}", with(off));
    }
    assert_eq!(keys(&with("[rules]\nenabled = true").unwrap_err()), ["rules.enabled"]);
}

#[test]
fn rules_are_written_where_mimir_is_unless_another_ruler_is_named() {
    let rules = |lines: &str| {
        let text =
            format!("{MINIMAL}\n[database]\nurl = \"postgres://localhost/d\"\n[rules]\n{lines}");
        read(&text).map(|config| config.rules)
    };
    let read = rules("enabled = true").unwrap();
    assert_eq!((read.namespace.as_str(), read.urls.len()), ("alert_rule", 1));
    assert_eq!((read.max_rules_per_group, read.max_groups), (Some(20), Some(70)));
    assert!(read.webhook_secret.is_empty());
    let read =
        rules("urls = [\"http://ruler:8080\"]\nmax_groups = 0\nguard_tenant_share = 1").unwrap();
    assert_eq!((read.urls[0].host_str(), read.max_groups), (Some("ruler"), None));
    assert_eq!(read.guard.tenant_share.to_bits(), 1.0_f64.to_bits());
    for (wrong, key) in [
        ("namespace = \"a/b\"", "rules.namespace"),
        ("namespace = \"..\"", "rules.namespace"),
        ("namespace = \"\"", "rules.namespace"),
        ("webhook_secret = \"short\"", "rules.webhook_secret"),
        ("guard_tenant_share = 1.5", "rules.guard_tenant_share"),
        ("guard_missing_count = 0", "rules.guard_missing_count"),
        ("evaluation_interval = \"0s\"", "rules.evaluation_interval"),
        ("urls = []", "rules.urls"),
        ("urls = [\"http://ruler/path\"]", "rules.urls"),
        ("reconcile_interval = \"1ms\"", "rules.reconcile_interval"),
    ] {
        assert_eq!(keys(&rules(wrong).unwrap_err()), [key], "{wrong}");
    }
}

#[test]
fn channels_are_written_where_the_rules_are_unless_said_otherwise() {
    let rules = "[rules]\nenabled = true\nurls = [\"http://ruler.internal:8080\"]";
    let url = "url = \"postgres://localhost/d\"";
    let read = |lines: &str| with_database(&format!("{url}\n{rules}\n[channels]\n{lines}"));
    let channels = read("enabled = true").unwrap().channels;
    assert_eq!(channels.urls[0].as_str(), "http://ruler.internal:8080/");
    assert!(channels.email.is_none() && channels.dashboard_url.is_none());
    assert_eq!((channels.max_channels, channels.max_routes), (100, 200));
    assert_eq!(channels.min_group_interval, Duration::from_secs(10));
    let channels = read(
        "email_smarthost = \"relay:25\"\nemail_from = \"a@example.org\"\npagerduty_url = \"https://e.example/v2\"",
    );
    let channels = channels.unwrap().channels;
    assert_eq!(channels.email.unwrap().smarthost, "relay:25");
    assert_eq!(channels.pagerduty_url.unwrap().as_str(), "https://e.example/v2");
    for (lines, key) in [
        ("min_group_interval = \"0s\"", "channels.min_group_interval"),
        ("min_group_interval = \"2m\"", "channels.min_group_interval"),
        ("email_smarthost = \"relay\"", "channels.email_smarthost"),
        ("email_smarthost = \"relay:25\"", "channels.email_from"),
        ("email_from = \"a@example.org\"", "channels.email_from"),
        ("email_require_tls = true", "channels.email_require_tls"),
        ("dashboard_url = \"https://{organisation_id}.example.org\"", "channels.dashboard_url"),
        ("telegram_url = \"https://u:p@example.org\"", "channels.telegram_url"),
        ("urls = []", "channels.urls"),
        ("urls = [\"http://mimir/alertmanager\"]", "channels.urls"),
        ("reconcile_interval = \"0s\"", "channels.reconcile_interval"),
        ("max_channels = 0", "channels.max_channels"),
        ("dashbord_url = \"\"", "channels.dashbord_url"),
    ] {
        assert_eq!(keys(&read(lines).unwrap_err()), [key], "{lines}");
    }
    let faults = with_database(&format!("{url}\n[channels]\nenabled = true")).unwrap_err();
    assert_eq!(keys(&faults), ["channels.enabled"]);
}

// The secret stands in a URL, in a list that is separated by commas.
#[test]
fn alert_events_need_a_secret_that_can_stand_in_a_url_and_the_leader_of_rules() {
    let events = |lines: &str, rules: &str| {
        let database = "[database]\nurl = \"postgres://localhost/d\"";
        let text = format!("{MINIMAL}\n{database}\n[rules]\n{rules}\n[alert_events]\n{lines}");
        read(&text).map(|config| config.alert_events)
    };
    let on = "enabled = true\nsecret = \"0123456789-abcdef_~.\"";
    let config = events(on, "enabled = true").unwrap();
    assert_eq!((config.max_open, config.retention.as_secs()), (1000, 30 * 86_400));
    assert!(!events("", "").unwrap().enabled);
    assert_eq!(keys(&events(on, "").unwrap_err()), ["alert_events.enabled"]);
    for wrong in ["", "short", "0123456789abcde,", "0123456789abcdef@", "0123456789 abcdef"] {
        let faults = events(&format!("enabled = true\nsecret = {wrong:?}"), "enabled = true");
        let faults = faults.unwrap_err();
        assert_eq!(keys(&faults), ["alert_events.secret"], "{wrong}");
        assert!(wrong.is_empty() || !faults.to_string().contains(wrong), "{faults}");
    }
    for (wrong, key) in [
        ("max_open = 0", "alert_events.max_open"),
        ("retention = \"1m\"", "alert_events.retention"),
    ] {
        assert_eq!(keys(&events(wrong, "").unwrap_err()), [key], "{wrong}");
    }
}

fn with_database(lines: &str) -> Result<Config, Faults> {
    read(&format!("{MINIMAL}\n[database]\n{lines}"))
}

#[test]
fn a_remote_database_must_be_authenticated() {
    let tls = |lines: &str| with_database(lines).unwrap().database.unwrap().tls;
    let far = "url = \"postgres://u:secret@db.ref.supabase.co:5432/postgres\"";
    assert_eq!(tls(far), DatabaseTls::VerifyFull(None));
    assert_eq!(tls(&format!("{far}\ntls = \"off\"")), DatabaseTls::Off);
    for near in ["127.0.0.1", "[::1]", "localhost"] {
        assert_eq!(tls(&format!("url = \"postgres://u:secret@{near}/d\"")), DatabaseTls::Off);
    }
    let with_ca = format!("{far}\nca_file = {:?}", file!());
    assert_eq!(tls(&with_ca), DatabaseTls::VerifyFull(Some(file!().into())));
}

#[test]
fn an_unusable_database_is_a_fault_and_its_password_is_not_printed() {
    for (lines, key) in [
        ("url = \"postgres://u:secret@pooler.supabase.com:6543/postgres\"", "database.url"),
        ("url = \"postgres://u:secret@h:5432/d?sslmode=disable\"", "database.url"),
        ("url = \"mysql://u:secret@h/d\"", "database.url"),
        ("url = \"postgres:///d?host=db.example.com&password=secret\"", "database.url"),
        ("url = \"\"\nmembership_query = \"select $1\"", "database.url"),
        ("url = \"postgres://u:sec#ret@h:5432:1/d\"", "database.url"),
        ("url = \"postgres://u:secret@h/d\"\nca_file = \"no-such-file\"", "database.ca_file"),
        ("url = \"postgres://u:secret@h/d\"\nschema = \"a\\\"; drop table x\"", "database.schema"),
        ("url = \"postgres://u:secret@h/d\"\ntls = \"require\"", "database.tls"),
    ] {
        let faults = with_database(lines).unwrap_err();
        assert_eq!(keys(&faults), [key]);
        assert!(!faults.to_string().contains("secret"), "{faults}");
    }
}

#[test]
fn the_table_decides_where_there_is_one() {
    let url = "url = \"postgres://u:p@localhost/d\"";
    assert_eq!(read(MINIMAL).unwrap().tenancy.membership, MembershipPolicy::Claims);
    assert_eq!(with_database(url).unwrap().tenancy.membership, MembershipPolicy::Table);
    let both = format!("{url}\n[tenancy]\nmembership = \"claims_and_table\"");
    let both = with_database(&both).unwrap();
    assert_eq!(both.tenancy.membership, MembershipPolicy::ClaimsAndTable);
    let without = read(&format!("{MINIMAL}\n[tenancy]\nmembership = \"table\""));
    assert_eq!(keys(&without.unwrap_err()), ["tenancy.membership"]);
    let sessions = MINIMAL.replace("[auth]", "[auth]\ncheck_sessions = true");
    assert_eq!(keys(&read(&sessions).unwrap_err()), ["auth.check_sessions"]);
}

#[test]
fn roles_are_the_operators_to_name() {
    let roles = "[roles]\nviewer = []\nbilling = [\"rules:read\"]";
    let config = read(&format!("{MINIMAL}\n{roles}")).unwrap();
    let scopes = |role: &str| {
        let scopes = config.tenancy.roles.scopes_of(&crate::tenancy::Role::new(role));
        scopes.names().collect::<Vec<_>>().join(",")
    };
    assert_eq!(scopes("viewer"), "");
    assert_eq!(scopes("billing"), "rules:read");
    assert_eq!(scopes("editor"), "metrics:read,metrics:write,rules:read,alerts:read,alerts:write");
    let wrong = read(&format!("{MINIMAL}\n[roles]\nviewer = [\"everything\"]"));
    assert_eq!(keys(&wrong.unwrap_err()), ["roles.viewer"]);
}

#[test]
fn admin_keys_are_long_and_there_may_be_two() {
    let with =
        |keys: &str| read(&MINIMAL.replace("[auth]", &format!("[auth]\nadmin_key = {keys:?}")));
    let (old, new) = ("0".repeat(32), "1".repeat(64));
    assert_eq!(with(&format!("{old} {new}")).unwrap().auth.admin_keys.len(), 2);
    assert_eq!(with("").unwrap().auth.admin_keys.len(), 0);
    for wrong in ["short".to_owned(), format!("{old} short"), "\u{e9}".repeat(40)] {
        assert_eq!(keys(&with(&wrong).unwrap_err()), ["auth.admin_key"]);
    }
}

#[test]
fn invalid_toml_is_a_fault_with_its_line() {
    let faults = read("[auth]\nissuer = = 1").unwrap_err();
    assert!(faults.to_string().starts_with("line 2: "), "{faults}");
    assert_eq!(faults.0.len(), 1, "one mistake on one line: {faults}");
}

fn with_upstream(lines: &str) -> Result<Config, Faults> {
    read(&format!("[auth]\nissuer = \"https://ref.supabase.co/auth/v1\"\n[upstream]\n{lines}"))
}

#[test]
fn instances_come_from_names_or_consul() {
    let consul = "consul_url = \"http://127.0.0.1:8500\"\nconsul_service = \"mimir\"";
    let asked = with_upstream(consul).unwrap().upstream;
    assert!(asked.upstreams.is_empty());
    assert_eq!(asked.consul.unwrap().tag, None);
    let both = format!("urls = [\"http://a:1\"]\n{consul}\nconsul_token = \"secret-token\"");
    let both = with_upstream(&both).unwrap().upstream;
    assert_eq!((both.upstreams.len(), both.consul.is_some()), (1, true));
    assert!(!format!("{both:?}").contains("secret-token"));
    for (lines, wrong) in [
        ("urls = []", vec!["upstream.urls"]),
        ("urls = [\"http://a:1\"]\nconsul_service = \"mimir\"", vec!["upstream.consul_service"]),
        ("urls = [\"http://a:1\"]\nconsul_token = \"x\"", vec!["upstream.consul_token"]),
        ("consul_url = \"http://127.0.0.1:8500\"", vec!["upstream.consul_service"]),
        // Fly's FLY_CONSUL_URL as it is: the token has a key of its own.
        (
            "urls = [\"http://a:1\"]\nconsul_url = \"https://:token@consul.fly.io/prefix\"\nconsul_service = \"mimir\"",
            vec!["upstream.consul_url"],
        ),
    ] {
        let faults = with_upstream(lines).unwrap_err();
        assert_eq!(keys(&faults), wrong, "{lines}");
        assert!(!faults.to_string().contains("token@"), "{faults}");
    }
}

#[test]
fn bounds_of_upstreams_fit_each_other() {
    let urls = "urls = [\"http://a:1\"]";
    let defaults = with_upstream(urls).unwrap().upstream;
    assert!(defaults.health.probes());
    let off = with_upstream(&format!("{urls}\nready_interval = \"0s\"\nslow_start = \"0s\""));
    assert!(!off.unwrap().upstream.health.probes());
    for (lines, wrong) in [
        ("eject_min = \"10s\"\neject_max = \"5s\"", "upstream.eject_max"),
        (
            "replay_buffer_bytes = \"1MiB\"\nreplay_total_bytes = \"64KiB\"",
            "upstream.replay_total_bytes",
        ),
        ("panic_percent = 101", "upstream.panic_percent"),
        ("max_in_flight = 0", "upstream.max_in_flight"),
        ("eject_after = 0", "upstream.eject_after"),
        ("ready_interval = \"1ms\"", "upstream.ready_interval"),
    ] {
        let faults = with_upstream(&format!("{urls}\n{lines}")).unwrap_err();
        assert_eq!(keys(&faults), [wrong], "{lines}");
    }
}

#[test]
fn limits_of_one_organisation_override_the_general_ones() {
    let id = "0A0A0A0A-0a0a-4a0a-8a0a-0a0a0a0a0a0a";
    let limits = format!(
        "[limits]\npush_requests_per_second = 5\nmax_wait = \"0ms\"\n\
         [limits.organisations.{id}]\npush_in_flight = 7\notlp_bytes_per_second = \"1MiB\"\n"
    );
    let config = read(&format!("{MINIMAL}{limits}")).unwrap().limits.organisations;
    // UUIDs are normalised.
    let own = config.overrides[&OrganisationId::parse(&id.to_lowercase()).unwrap()];
    let (all, each) = (own.limits.all, config.each.limits.all);
    let in_flight = [all, each].map(|limits| limits.push.in_flight.unwrap().get());
    assert_eq!(in_flight, [7, 500]);
    assert_eq!(all.push.requests_per_second.unwrap().get(), 5);
    assert_eq!(all.otlp.bytes_per_second.unwrap().get(), 1 << 20);
    assert_eq!(each.otlp.bytes_per_second, None);
    // Which keys were set: the others are defaults.
    let set = |own: OwnLimits| LimitKeys::names().filter(|name| own.keys.has(name)).count();
    assert_eq!((set(own), set(config.each)), (3, 1));
    let inline = "{acme = {rules_in_flight = 1}}";
    let environment = environment(&[("MTP__LIMITS__ORGANISATIONS", inline)]);
    let config = Config::read(MINIMAL, &environment).unwrap().limits.organisations;
    let own = config.overrides[&OrganisationId::parse("acme").unwrap()];
    assert_eq!(own.limits.all.rules.in_flight.unwrap().get(), 1);
}

#[test]
fn limits_of_devices_are_off_and_tell_when_they_have_no_effect() {
    let each = read(MINIMAL).unwrap().limits.organisations.each.limits;
    let none = SurfaceLimits::default();
    assert_eq!((each.device.push, each.device.query), (none, none));
    let limits = "[limits]\ndevice_push_in_flight = 500\ndevice_query_in_flight = 9\n\
                  [limits.organisations.acme]\nquery_in_flight = 8\n";
    let config = read(&format!("{MINIMAL}{limits}")).unwrap();
    let warned: Vec<_> =
        config.warnings.iter().filter(|one| one.key.starts_with("limits.")).collect();
    let keys: Vec<_> = warned.iter().map(|one| one.key.as_str()).collect();
    assert_eq!(
        keys,
        ["limits.device_push_in_flight", "limits.organisations", "limits.organisations"]
    );
    assert!(
        warned[2].problem.contains("acme: device_query_in_flight = 9 has no effect"),
        "{warned:?}"
    );
}

#[test]
fn the_memory_is_a_size_or_a_word() {
    let memory = |value: &str| {
        read(&format!("{MINIMAL}[limits]\nmemory_bytes = {value}\n"))
            .map(|config| config.limits.memory)
    };
    assert_eq!(read(MINIMAL).unwrap().limits.memory, MemoryLimit::Automatic);
    assert_eq!(memory("\"auto\"").unwrap(), MemoryLimit::Automatic);
    assert_eq!(memory("\"off\"").unwrap(), MemoryLimit::Off);
    assert_eq!(memory("\"64MiB\"").unwrap(), MemoryLimit::Bytes(64 << 20));
    for wrong in ["0", "\"1MiB\"", "\"64MB\"", "true"] {
        assert!(memory(wrong).unwrap_err().to_string().contains("\"auto\" or \"off\""), "{wrong}");
    }
}

#[test]
fn limits_from_the_database_need_one() {
    let faults = read(&format!("{MINIMAL}[limits]\nfrom_database = true\n")).unwrap_err();
    assert_eq!(keys(&faults), ["limits.from_database"]);
    let database = "[database]\nurl = \"postgres://u@localhost/d\"\n";
    let is_read =
        |rest: &str| read(&format!("{MINIMAL}{database}{rest}")).unwrap().tables_read().limits;
    assert!(!is_read(""));
    assert!(is_read("[limits]\nfrom_database = true\n"));
    assert!(is_read("organisation_limit_query = \"select organisation_id, name, value from x\"\n"));
}

#[test]
fn all_wrong_limits_of_organisations_are_reported() {
    let wrong = r#"
        [limits]
        push_in_flight = 0
        [limits.organisations."a|b"]
        [limits.organisations.acme]
        push_in_flihgt = 1
        query_in_flight = "many"
        [limits.organisations.0a0a0a0a-0a0a-4a0a-8a0a-0a0a0a0a0a0a]
        [limits.organisations.0A0A0A0A-0a0a-4a0a-8a0a-0a0a0a0a0a0a]
    "#;
    let faults = read(&format!("{MINIMAL}{wrong}")).unwrap_err();
    assert_eq!(keys(&faults), ["limits.push_in_flight", "limits.organisations"]);
    let problem = &faults.0[1].problem;
    for part in
        ["a|b", "acme.push_in_flihgt is unknown", "acme.query_in_flight must be", "duplicate"]
    {
        assert!(problem.contains(part), "{part}: {problem}");
    }
    for wrong in ["organisations = 5", "organisations = {acme = 5}"] {
        assert!(read(&format!("{MINIMAL}[limits]\n{wrong}\n")).is_err(), "{wrong}");
    }
}

fn faults(text: &str) -> Vec<String> {
    let faults = read(text).unwrap_err();
    faults.0.iter().map(ToString::to_string).collect()
}

fn with_auth(lines: &str) -> Result<Config, Faults> {
    read(&format!("[auth]\n{lines}\n[upstream]\nurls = [\"http://m:8080\"]"))
}

// What depends on a file that could not be parsed is not reported.
#[test]
fn invalid_toml_causes_no_further_faults() {
    let text = "[auth]\nissuer = \"https://a.supabase.co/auth/v1\"\n[listen\nworkers = 1\n\n[log]\nformat = json\n";
    let broken = read(text).unwrap_err();
    let lines: Vec<Option<usize>> = broken.0.iter().map(|fault| fault.line).collect();
    assert!(broken.0.iter().all(|fault| fault.problem.starts_with("not TOML")), "{broken}");
    assert!(lines.contains(&Some(3)) && lines.contains(&Some(7)), "both are told: {broken}");
    // Faults of the environment are still reported.
    let broken = Config::read(
        "[auth",
        &environment(&[("MTP__LISTEN__WORKERS", "many"), ("MTP__CORS__ORIGINS", "x")]),
    );
    let broken = broken.unwrap_err();
    let all = keys(&broken);
    assert!(
        all.contains(&"MTP__LISTEN__WORKERS") && all.contains(&"MTP__CORS__ORIGINS"),
        "{all:?}"
    );
    assert!(!broken.to_string().contains("missing"), "{broken}");
    assert_eq!(faults("auth = 1\n[upstream]\nurls = [\"http://m\"]").len(), 1);
    assert!(faults("[auth]\nissuer = 1\nissuer = 2")[0].starts_with("line 3: "));
}

#[test]
fn faults_of_the_file_have_their_lines() {
    let text = "[auth]\n\nisuer = \"x\"\n[upstream]\nurls = [\n  \"http://a\",\n  \"b\",\n]\n[cors]\nmax_age = 1\n";
    let found = faults(text);
    for start in [
        "line 3: auth.isuer: unknown key; did you mean issuer?",
        "line 1: auth.issuer: is missing",
        "line 7: upstream.urls: item 2: ",
        "line 10: cors.max_age: must be a duration",
    ] {
        assert!(found.iter().any(|fault| fault.starts_with(start)), "{start}\n{found:#?}");
    }
    assert_eq!(found.len(), 4);
}

// One of four must not hide the others.
#[test]
fn every_item_of_a_list_is_judged() {
    let count = |section: &str| faults(&format!("{MINIMAL}\n{section}")).len();
    assert_eq!(
        count(
            "[cors]\nallowed_origins = [\"*\", \"https://a.b\", \"a.b\", \"https://a.b/\"]\nallowed_headers = [\"*\", \"a b\"]"
        ),
        5
    );
    assert_eq!(count("[tenancy]\nuser_scopes = [\"a\", \"admin\", \"b\"]"), 2);
    assert_eq!(count("[roles]\na = [\"x\", \"y\"]\nb = [\"z\"]"), 3);
    assert_eq!(count("[rules]\nurls = [\"a\", \"http://b/c\"]"), 2);
    let urls = "urls = [\"ftp://a\", \"http://b/c\", \"d\"]\npass_headers = [\"Cookie\", \"b c\"]";
    assert_eq!(with_upstream(urls).unwrap_err().0.len(), 5);
    let environment = environment(&[("MTP__CORS__ALLOWED_ORIGINS", "*, https://a.b, null")]);
    let faults = Config::read(MINIMAL, &environment).unwrap_err();
    assert_eq!(keys(&faults), ["MTP__CORS__ALLOWED_ORIGINS"; 2]);
}

// A variable that is set and not read is worse than none.
#[test]
fn a_variable_that_looks_like_ours_and_sets_nothing_is_a_fault() {
    let found = |name: &str| {
        let read = Config::read(MINIMAL, &environment(&[(name, "x")]));
        read.err().map(|faults| faults.to_string())
    };
    for (name, meant) in [
        ("MTP_AUTH_ISSUER", "MTP__AUTH__ISSUER?"),
        ("MTP__AUTH_ISSUER", "MTP__AUTH__ISSUER?"),
        ("MTP_AUTH__ISSUER", "MTP__AUTH__ISSUER?"),
        ("mtp__auth__issuer", "MTP__AUTH__ISSUER?"),
        ("MTP_DATABASE_URL_FILE", "MTP__DATABASE__URL?"),
        ("MTP_AUTH_ISUER", "MTP__AUTH__ISSUER?"),
        ("MTP__AUTH__ISUER", "did you mean issuer?"),
        ("MTP__ATUH__ISSUER", "did you mean [auth]?"),
        ("MTP__AUTH__ISSUER_FILE", "issuer is no secret"),
        ("MTP_ISSUER", "MTP__SECTION__KEY"),
        ("MTP__ISSUER", "MTP__SECTION__KEY"),
        ("MTP_", "MTP__SECTION__KEY"),
    ] {
        let problem = found(name).unwrap_or_default();
        assert!(problem.contains(meant), "{name}: {problem}");
    }
    // Those of the command line and the tests, and those that Kubernetes sets for a service called
    // `mtp`.
    for name in [
        "MTP_CONFIG",
        "MTP_BINARY",
        "MTP_SERVICE_HOST",
        "MTP_PORT",
        "MTP_PORT_8080_TCP_ADDR",
        "XMTP_AUTH_ISSUER",
    ] {
        assert_eq!(found(name), None, "{name}");
    }
    let of_database = DatabaseConfig::load(None, &environment(&[("MTP_DATABASE_URL", "x")]));
    assert!(of_database.unwrap_err().to_string().contains("did you mean MTP__DATABASE__URL?"));
}

// Compared with iss character by character: a slightly different issuer rejects every token.
#[test]
fn an_issuer_must_be_spelled_as_in_tokens() {
    let issuer = |text: &str| with_auth(&format!("issuer = {text:?}"));
    for wrong in [
        "https://ref.supabase.co/auth/v1/",
        "https://ref.supabase.co",
        "https://ref.supabase.co/",
        "https://ref.supabase.co/auth",
        "https://ref.supabase.co/auth/v1/.well-known/jwks.json",
        "http://ref.supabase.co/auth/v1",
        "https://REF.supabase.co/auth/v1",
        "https://auth.example.com:443/auth/v1",
        "https://auth.example.com/auth/v1/",
        " https://ref.supabase.co/auth/v1",
        "https://<ref>.supabase.co/auth/v1",
        "https://${REF}.supabase.co/auth/v1",
        "ref.supabase.co/auth/v1",
    ] {
        assert_eq!(keys(&issuer(wrong).unwrap_err()), ["auth.issuer"], "{wrong}");
    }
    for unusual in ["https://auth.example.com", "https://auth.example.com/", "http://127.0.0.1:1"] {
        let warnings = issuer(unusual).unwrap().warnings;
        assert_eq!((warnings.len(), warnings[0].key.as_str()), (1, "auth.issuer"), "{unusual}");
        assert_eq!(warnings[0].line, Some(2));
    }
    for right in ["http://127.0.0.1:54321/auth/v1", "https://a.b/auth/v1", "http://[::1]:1/auth/v1"]
    {
        assert!(issuer(right).unwrap().warnings.is_empty(), "{right}");
    }
}

// `postgres://postgres:2024#Spring@host` is the host `postgres`, port 2024, for every parser.
#[test]
fn an_unencoded_password_is_reported_and_not_printed() {
    for password in [
        "2024#Secret",
        "Secret@x",
        "Secret/x",
        "2024/Secret",
        "Secret?x",
        "2024?Secret",
        "Secret%x",
        "Secret x",
        "Secret:x",
        "Secret\\\\x",
        "[YOUR-Secret]",
        "<Secret>",
        "${Secret}",
    ] {
        let url = format!("url = \"postgres://postgres:{password}@db.example.com:5432/postgres\"");
        let problem = with_database(&url).unwrap_err();
        assert_eq!(keys(&problem), ["database.url"], "{password}");
        assert!(!problem.to_string().contains("Secret"), "{problem}");
    }
    let encoded =
        "url = \"postgres://postgres:2024%23S%40%2F%3F%25%20!$&'()*+,;=~@db.example.com/d\"";
    assert!(with_database(encoded).is_ok());
    for (key, text) in [
        ("jwks_url", "https://user:12#Secret@host/jwks"),
        ("jwks_url", "https://user:12/Secret@host/jwks"),
        ("issuer", "https://user:12?Secret@host/auth/v1"),
    ] {
        let lines = if key == "issuer" {
            String::new()
        } else {
            "issuer = \"https://a.b/auth/v1\"\n".to_owned()
        };
        let problem = with_auth(&format!("{lines}{key} = {text:?}")).unwrap_err();
        assert_eq!(keys(&problem), [format!("auth.{key}")]);
        assert!(!problem.to_string().contains("Secret"), "{problem}");
    }
    for urls in
        ["http://user:12#Secret@mimir", "http://user:12/Secret@mimir", "https://:Secret@mimir"]
    {
        let problem = with_upstream(&format!("urls = [{urls:?}]")).unwrap_err();
        assert!(!problem.to_string().contains("Secret"), "{problem}");
    }
}

// A value that could not be parsed causes one fault only.
#[test]
fn a_wrong_value_is_one_fault() {
    let url = "url = \"postgres://u:a@b@h/d\"";
    let rest = "[rules]\nenabled = true\n[tenancy]\nmembership = \"table\"";
    let found = read(&format!("{MINIMAL}\n[database]\n{url}\n{rest}")).unwrap_err();
    assert_eq!(keys(&found), ["database.url"]);
    let gone = environment(&[
        ("MTP__DATABASE__URL_FILE", "/nowhere"),
        ("MTP__AUTH__HS256_SECRET_FILE", "/nowhere"),
    ]);
    let text = MINIMAL.replace("[auth]", "[auth]\njwks_url = \"\"");
    let found = Config::read(&format!("{text}\n[database]\nmax_connections = 2\n{rest}"), &gone);
    assert_eq!(
        keys(&found.unwrap_err()),
        ["MTP__DATABASE__URL_FILE", "MTP__AUTH__HS256_SECRET_FILE"]
    );
    let found = with_upstream(
        "urls = [\"mimir\"]\n[database]\nurl = \"postgres://h/d\"\n[rules]\nenabled = true",
    );
    assert_eq!(keys(&found.unwrap_err()), ["upstream.urls"]);
}

#[test]
fn queries_have_the_parameters_that_they_get() {
    let url = "url = \"postgres://u:p@localhost/d\"";
    for key in ["membership_query", "device_key_query", "session_query", "alert_rule_query"] {
        for wrong in ["select 1", "select '$1'", "select $1, $2", "select 1 -- $1"] {
            let found = with_database(&format!("{url}\n{key} = \"{wrong}\"")).unwrap_err();
            assert_eq!(keys(&found), [format!("database.{key}")], "{wrong}");
        }
        assert!(with_database(&format!("{url}\n{key} = \"select 1 where any($1)\"")).is_ok());
    }
    for key in ["revocation_query", "organisation_query"] {
        let found = with_database(&format!("{url}\n{key} = \"select $1\"")).unwrap_err();
        assert_eq!(keys(&found), [format!("database.{key}")]);
    }
}

// The second could not be bound, which `serve` would report only when it starts.
#[test]
fn the_two_ports_must_differ() {
    let with = |public: &str, internal: &str| {
        read(&format!("{MINIMAL}\n[listen]\naddress = {public:?}\ninternal_address = {internal:?}"))
    };
    for (public, internal) in [
        ("[::]:8080", "[::]:8080"),
        ("0.0.0.0:8080", "127.0.0.1:8080"),
        ("127.0.0.1:9090", "[::]:9090"),
    ] {
        assert_eq!(keys(&with(public, internal).unwrap_err()), ["listen.internal_address"]);
    }
    assert!(with("127.0.0.1:8080", "127.0.0.2:8080").is_ok());
    assert!(with("127.0.0.1:0", "127.0.0.1:0").is_ok());
}

// A balancer that passes TCP on passes the client's headers on, too.
#[test]
fn a_header_with_the_clients_address_is_nobodys_behind_the_proxy_protocol() {
    let with = |more: &str| {
        read(&format!("{MINIMAL}\n[listen]\nproxy_protocol_from = [\"10.0.0.0/8\"]\n{more}"))
    };
    assert!(with("").is_ok());
    let header = "client_ip_header = \"X-Client\"\n";
    assert_eq!(keys(&with(header).unwrap_err()), ["listen.client_ip_header"]);
    let named = format!("{header}client_ip_header_from = [\"10.1.0.0/16\"]");
    assert!(with(&named).is_ok());
}

// Rotation: tokens of the old secret are valid until they expire.
#[test]
fn several_shared_secrets_are_a_list_or_separated_by_white_space() {
    let (new, old) = ("a-new-secret-of-more-than-32-bytes!", "an-old-secret-of-more-than-32-bytes");
    let secrets = |value: &str| {
        let text = MINIMAL.replace("[auth]", &format!("[auth]\nhs256_secret = {value}"));
        let config = Config::read(&text, &Environment::default());
        let secret = |one: &Secret| String::from_utf8(one.expose().to_vec()).unwrap();
        config.map(|config| config.auth.hs256_secrets.iter().map(secret).collect::<Vec<_>>())
    };
    assert_eq!(secrets(&format!("[{new:?}, {old:?}]")).unwrap(), [new, old]);
    let both = format!("{new} {old}");
    let read = secrets(&format!("{both:?}")).unwrap();
    assert!([new, old].iter().all(|one| read.iter().any(|secret| secret == one)), "{read:?}");
    // A passphrase is one secret; an empty list is none.
    let phrase = "a legacy secret of more than thirty-two bytes";
    assert_eq!(secrets(&format!("{phrase:?}")).unwrap(), [phrase]);
    assert_eq!(secrets("\"\"").unwrap(), [""; 0]);
    assert_eq!(secrets("[]").unwrap(), [""; 0]);
    for (wrong, says) in [
        (format!("[{new:?}, \"short\"]"), "5 bytes"),
        (format!("\"{new} OLD\""), "write several secrets as a list"),
        ("7".to_owned(), "list of strings"),
    ] {
        let faults = secrets(&wrong).unwrap_err();
        assert_eq!(keys(&faults), ["auth.hs256_secret"], "{wrong}");
        assert!(faults.to_string().contains(says), "{faults}");
        assert!(!faults.to_string().contains(new), "{faults}");
    }
    for value in [format!("[{new:?}, {old:?}]"), both.clone(), format!("{new}\n{old}\n")] {
        let config = Config::read(MINIMAL, &environment(&[("MTP__AUTH__HS256_SECRET", &value)]));
        let secrets = config.unwrap().auth.hs256_secrets;
        assert!([new, old].iter().all(|one| secrets.contains(&Secret::new(one))), "{value}");
    }
}

#[test]
fn roles_of_users_are_never_those_of_api_keys() {
    let roles = |value: &str| {
        let text = MINIMAL.replace("[auth]", &format!("[auth]\nuser_roles = {value}"));
        Config::read(&text, &Environment::default()).map(|config| config.auth.tokens.user_roles)
    };
    assert_eq!(roles("[\"authenticated\", \"tenant_admin\"]").unwrap().len(), 2);
    for wrong in [
        "[]",
        "[\"\"]",
        "[\"authenticated\", \"anon\"]",
        "[\"service_role\"]",
        "[\"supabase_admin\"]",
    ] {
        assert_eq!(keys(&roles(wrong).unwrap_err()), ["auth.user_roles"], "{wrong}");
    }
    let config = Config::read(MINIMAL, &Environment::default()).unwrap();
    assert_eq!(config.auth.tokens.user_roles, ["authenticated"]);
    assert_eq!(config.auth.tokens.leeway, Duration::from_secs(30));
}

#[test]
fn a_second_factor_is_required_only_where_that_is_written() {
    let levels = |lines: &str| {
        let text = MINIMAL.replace("[auth]", &format!("[auth]\n{lines}"));
        let read = Config::read(&text, &Environment::default());
        read.map(|read| (read.auth.tokens.required_aal, read.auth.admin_required_aal))
    };
    let (aal1, aal2) = (AssuranceLevel::Aal1, AssuranceLevel::Aal2);
    assert_eq!(levels("").unwrap(), (aal1, aal1));
    assert_eq!(levels("required_aal = \"aal2\"").unwrap(), (aal2, aal1));
    assert_eq!(levels("admin_required_aal = \"aal2\"").unwrap(), (aal1, aal2));
    for wrong in ["\"\"", "\"aal3\"", "\"AAL2\"", "2", "true"] {
        let faults = levels(&format!("required_aal = {wrong}")).unwrap_err();
        assert_eq!(keys(&faults), ["auth.required_aal"], "{wrong}");
    }
}

#[test]
fn organisations_of_a_token_have_one_of_three_forms() {
    let form = |lines: &str| {
        let text = MINIMAL.replace("[auth]", &format!("[auth]\n{lines}"));
        Config::read(&text, &Environment::default()).map(|read| read.auth.tokens.organisation_form)
    };
    assert_eq!(form("").unwrap(), OrganisationForm::Texts);
    assert_eq!(form("organisation_claim_form = \"keys\"").unwrap(), OrganisationForm::Keys);
    let objects = "organisation_claim_form = \"objects\"\norganisation_claim_field = \"org\"";
    let wanted = OrganisationForm::Objects { field: "org".to_owned() };
    assert_eq!(form(objects).unwrap(), wanted);
    let faults = form("organisation_claim_form = \"list\"").unwrap_err();
    assert_eq!(keys(&faults), ["auth.organisation_claim_form"]);
}

// Each of these passed check-config and then rejected every token.
#[test]
fn a_shared_secret_is_never_silently_misparsed() {
    let (new, old) = ("a-new-secret-of-more-than-32-bytes!", "an-old-secret-of-more-than-32-bytes");
    let file = std::env::temp_dir().join(format!("shared-secret-{}", std::process::id()));
    let path = file.to_str().unwrap().to_owned();
    // From the environment, and from a file that it names.
    let all = |text: &str| {
        std::fs::write(&file, text).unwrap();
        [("MTP__AUTH__HS256_SECRET", text), ("MTP__AUTH__HS256_SECRET_FILE", path.as_str())]
            .map(|(name, value)| Config::read(MINIMAL, &environment(&[(name, value)])))
    };
    for text in
        [format!("{new},{old}"), format!(" {new}, {old}\n"), format!("[{new:?}, {old:?}]\n")]
    {
        for config in all(&text) {
            let secrets = config.unwrap().auth.hs256_secrets;
            assert!([new, old].iter().all(|one| secrets.contains(&Secret::new(one))), "{text}");
        }
    }
    for config in all(&format!(" {new} \n")) {
        assert_eq!(config.unwrap().auth.hs256_secrets, [Secret::new(new)]);
    }
    for text in [format!("{new:?}"), format!("'{new}'"), format!("[{new}, {old}]")] {
        for config in all(&text) {
            let faults = config.unwrap_err();
            assert_eq!(faults.0.len(), 1, "{text}: {faults}");
            assert!(faults.0[0].key.starts_with("MTP__AUTH__HS256_SECRET"), "{faults}");
            assert!(!faults.to_string().contains(new), "{faults}");
        }
    }
    // One that may be meant as two.
    for config in all(&format!("{new},short")) {
        let config = config.unwrap();
        assert!(
            config.warnings[0].problem.contains("taken as one secret"),
            "{text:?}",
            text = config.warnings
        );
    }
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_parameter_or_a_user_that_the_driver_ignores_is_a_warning() {
    let warnings = |url: &str| {
        let text = format!("{MINIMAL}\n[database]\nurl = {url:?}\n");
        let config = Config::read(&text, &Environment::default()).unwrap();
        config.warnings.iter().map(|warning| warning.problem.clone()).collect::<Vec<_>>()
    };
    assert!(warnings("postgres://u:p@db.example:5432/d?foo=1")[0].ends_with("foo"));
    assert!(warnings("postgres://db.example:5432/d")[0].contains("names no user"));
    for right in
        ["postgres://u:p@db.example/d?application_name=x", "postgres:///d?host=/run/postgresql"]
    {
        assert_eq!(warnings(right), [""; 0], "{right}");
    }
}
