use super::*;
use proptest::prelude::*;

fn outcome(method: &Method, path: &str, query: Option<&str>) -> Result<&'static str, String> {
    find_path(method, path, query).map(|route| route.path).map_err(|error| error.to_string())
}

fn no_such_path() -> Result<&'static str, String> {
    Err("no such path".to_owned())
}

/// The outcome without the hint that may follow.
fn plain(method: &Method, path: &str) -> Result<&'static str, String> {
    outcome(method, path, None)
        .map_err(|text| text.split(';').next().unwrap_or_default().to_owned())
}

const ID: &str = "00000000-0000-4000-8000-000000000000";

#[test]
fn an_admin_path_names_one_organisation_and_one_thing() {
    let keys = "/admin/organisations/org-a/device-keys";
    let route = find_path(&Method::GET, keys, None).unwrap();
    assert_eq!(route.organisation_in(keys).unwrap().as_str(), "org-a");
    let key = format!("{keys}/{ID}");
    let route = find_path(&Method::DELETE, &key, None).unwrap();
    assert_eq!(route.id_in(&key).unwrap().to_string(), ID);
    assert_eq!(route.organisation_in(&key).unwrap().as_str(), "org-a");
    for path in [
        "/admin",
        "/admin/",
        "/admin/organisations//device-keys",
        "/admin/organisations/a|b/device-keys",
        "/admin/organisations/a%2Fb/device-keys",
        "/admin/organisations/org-a/device-keys/",
        "/admin/organisations/org-a/device-keys/1",
        "/admin/organisations/org-a/device-keys/00000000000040008000000000000000",
        "/admin/revocations/x",
    ] {
        assert_eq!(plain(&Method::GET, path), no_such_path(), "{path}");
    }
    let text = outcome(&Method::PUT, keys, None).unwrap_err();
    assert!(text.contains("GET and POST"), "{text}");
}

// An organisation's endpoint gets its organisation from the path, and must not be without one.
#[test]
fn endpoints_of_an_organisation_and_no_others_name_one_in_their_path() {
    for route in &ROUTES {
        let Access::Admin(endpoint) = route.access else { continue };
        let is_of_one = matches!(endpoint, AdminEndpoint::Organisation(_));
        assert_eq!(is_of_one, route.path.contains("{organisation}"), "{}", route.path);
        assert_eq!(route.path, endpoint.path());
        assert!(route.path.starts_with("/admin/") && route.surface == Surface::Admin);
        assert!(endpoint.summary().ends_with('.'), "{}", endpoint.summary());
    }
}

#[test]
fn every_route_is_found_by_its_own_path() {
    for route in ROUTES {
        let path = route.path.replace("{label}", "job").replace("{name}", "team%2Frules");
        let path = path.replace("{organisation}", "org-a").replace("{id}", ID);
        let path = path.replace("{silence}", ID);
        for method in route.methods {
            assert_eq!(outcome(method, &path, Some("query=up")), Ok(route.path));
        }
        assert!(matches!(find_path(&Method::PUT, &path, None), Err(RouteError::Method(_))));
        let deletes = route.surface == Surface::Admin || route.path.ends_with("{silence}");
        assert!(deletes || find_path(&Method::DELETE, &path, None).is_err());
    }
}

// What belongs to Mimir's operators, or writes configuration.
#[test]
fn operator_paths_have_no_route() {
    for path in [
        "/",
        "/compactor/ring",
        "/ruler/rule_groups",
        "/ruler/delete_tenant_config",
        "/ingester/flush",
        "/ingester/shutdown",
        "/distributor/ring",
        "/all_user_stats",
        "/distributor/all_user_stats",
        "/store-gateway/tenants",
        "/memberlist",
        "/config",
        "/multitenant_alertmanager/configs",
        "/multitenant_alertmanager/status",
        "/multitenant_alertmanager/ring",
        "/multitenant_alertmanager/delete_tenant_config",
        "/alertmanager",
        "/alertmanager/",
        "/alertmanager/metrics",
        "/alertmanager/-/reload",
        "/alertmanager/-/healthy",
        "/alertmanager/debug/pprof/",
        "/alertmanager/script.js",
        "/alertmanager/api/v1/alerts",
        "/alertmanager/api/v1/silences",
        "/alertmanager/api/v1/status/buildinfo",
        "/alertmanager/api/v2",
        "/alertmanager/api/v2/",
        "/alertmanager/api/v2/silence",
        "/alertmanager/api/v2/silence/",
        "/alertmanager/api/v2/config",
        "/api/v1/grafana/config",
        "/runtime_config",
        "/services",
        "/metrics",
        "/debug/pprof/",
        "/debug/fgprof",
        "/ready",
        "/api/v1/alerts",
        "/api/v1/rules",
        "/api/v1/upload/block/x/start",
        "/prometheus/rules",
        "/api/v1/push/",
        "/API/v1/push",
        "/prometheus/api/v1/admin/tsdb/delete_series",
    ] {
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
            match find_path(&method, path, None) {
                Err(RouteError::Write) => assert_ne!(method, Method::GET, "{path}"),
                other => assert!(matches!(other, Err(RouteError::Path(_))), "{path}: {other:?}"),
            }
        }
    }
}

// mimirtool takes a 404 in answer to DELETE for "it is gone already", whatever prefix it is given.
#[test]
fn a_deletion_on_an_unknown_path_is_no_404() {
    for path in [
        "/api/v1/alerts",
        "/api/v1/rules/ns/g",
        "/prometheus/prometheus/config/v1/rules/ns/g",
        "/elsewhere/prometheus/config/v1/rules/ns",
        "/no/such/path",
    ] {
        let unroutable = find_path(&Method::DELETE, path, None).unwrap_err();
        assert!(matches!(unroutable, RouteError::Write), "{path}: {unroutable:?}");
        assert_eq!(unroutable.allowed().as_deref(), Some(""));
    }
    // There a 404 means that it is gone.
    let key = find_path(&Method::DELETE, "/admin/revocations/x", None).unwrap_err();
    assert!(matches!(key, RouteError::Path(_)), "{key:?}");
}

// CVE-2019-9901, CVE-2021-29492.
#[test]
fn path_tricks_have_no_route() {
    for path in [
        "/api/v1/../v1/push",
        "/api/v1/push/..",
        "//api/v1/push",
        "/api//v1/push",
        "/api/v1/push//",
        "/api/v1%2Fpush",
        "/api/v1/%70ush",
        "/api/v1/push%00",
        "/api/v1/push\\",
        "/api\\v1\\push",
        "/api/v1/push;a=b",
        "/api/v1/push%3Bx",
        "/./api/v1/push",
        "/%2e/api/v1/push",
        "/api/v1/push/%2e%2e/ingester/shutdown",
        "/prometheus/api/v1/label//values",
    ] {
        for method in [Method::GET, Method::POST] {
            assert_eq!(plain(&method, path), no_such_path(), "{path}");
        }
    }
}

// What Mimir refuses, or what it or anything before it might take for another path.
#[test]
fn a_label_that_is_no_name_is_a_fault_of_the_request() {
    for name in [
        "..",
        ".",
        "%2e%2e",
        "a%2F..%2Fb",
        "a%2Fb",
        "%2f",
        "a%00b",
        "a%5Cb",
        "a\\b",
        "%ff",
        "a%2",
        "a;b",
        "a b",
        "a\nb",
    ] {
        for method in [Method::GET, Method::POST] {
            let unroutable =
                find_path(&method, &format!("{LABEL}{name}/values"), None).unwrap_err();
            assert!(matches!(unroutable, RouteError::Name(_)), "{name}: {unroutable:?}");
        }
    }
}

// Alertmanager's own are UUIDs, and no other name is worth a question.
#[test]
fn a_silence_is_named_by_its_id_and_by_nothing_else() {
    let path = |name: &str| format!("/alertmanager/api/v2/silence/{name}");
    for method in [Method::GET, Method::DELETE] {
        let route = find_path(&method, &path(ID), None).unwrap();
        assert_eq!(route.silence_in(&path(ID)), Some(ID));
        for name in ["..", ".", "%2e%2e", "1", "00000000000040008000000000000000", "a%2Fb", "a b"] {
            let unroutable = find_path(&method, &path(name), None).unwrap_err();
            assert!(matches!(unroutable, RouteError::Name(_)), "{name}: {unroutable:?}");
            assert!(unroutable.to_string().contains("UUID"), "{unroutable}");
        }
        for name in ["", "../alerts", &format!("{ID}/"), &format!("{ID}/x")] {
            assert!(find_path(&method, &path(name), None).is_err(), "{name}");
        }
    }
    // Alerts come from the ruler alone.
    let forged = find_path(&Method::POST, "/alertmanager/api/v2/alerts", None).unwrap_err();
    assert_eq!(forged.allowed().as_deref(), Some("GET"));
}

#[test]
fn rule_names_are_percent_encoded_segments() {
    let rules = |name: &str| find_path(&Method::GET, &format!("{RULES}{name}"), None);
    for name in [
        "..",
        ".",
        "%2e%2e",
        "a%2F..%2Fb",
        "%2F",
        "a%2F",
        "a%00",
        "a%5Cb",
        "a%",
        "a%2",
        "a%zz",
        "%ff",
        "a;b",
        "a\\b",
        "ns/..",
        "ns/%2e",
    ] {
        assert!(matches!(rules(name), Err(RouteError::Name(_))), "{name}");
    }
    for name in ["", "ns/", "ns/group/more"] {
        assert!(matches!(rules(name), Err(RouteError::Path(_))), "{name}");
    }
    for name in [
        "alert_rule",
        "team%2Frules.yaml",
        "%C3%A9",
        "é",
        "a+b",
        "a%20b",
        "a%0Ab",
        "a.b",
        "ns/group",
    ] {
        assert!(rules(name).is_ok(), "{name}");
    }
}

// Mimir takes every UTF-8 label name, as it is, percent-encoded and escaped (`U__`).
#[test]
fn label_names_are_utf8() {
    for name in [
        "job",
        "k8s.pod.name",
        "service%2Ename",
        "http-method",
        "a%20b",
        "a:b",
        "%C3%A9t%C3%A9",
        "été",
        "a%0Ab",
        "a%7Fb",
        "a|b",
        "1st",
        "U__k8s_2e_pod_2e_name",
        "...",
    ] {
        let path = format!("{LABEL}{name}/values");
        let found = plain(&Method::GET, &path);
        assert_eq!(found, Ok("/prometheus/api/v1/label/{label}/values"), "{name}");
    }
}

// RFC 9110, 15.5.6: every method that a path takes, whichever was asked for.
#[test]
fn another_method_is_told_which_ones_a_path_takes() {
    for route in ROUTES {
        let path = route.path.replace("{label}", "job").replace("{name}", "rules");
        let path = path.replace("{organisation}", "org-a").replace("{id}", ID);
        let path = path.replace("{silence}", ID);
        let methods = [Method::PUT, Method::PATCH, Method::HEAD, Method::OPTIONS, Method::TRACE];
        for method in methods.into_iter().filter(|method| !route.methods.contains(method)) {
            let unroutable = find_path(&method, &path, None).unwrap_err();
            let allowed = unroutable.allowed().unwrap();
            let all: Vec<&str> = allowed.split(", ").collect();
            for own in route.methods {
                assert!(all.contains(&own.as_str()), "{method} {path}: {allowed}");
            }
            assert!(unroutable.to_string().contains(all[0]), "{unroutable}");
        }
    }
    let keys = format!("/admin/organisations/a/device-keys/{ID}");
    let unroutable = find_path(&Method::PUT, &keys, None).unwrap_err();
    assert_eq!(unroutable.allowed().as_deref(), Some("GET, DELETE"));
    assert_eq!(find_path(&Method::GET, "/nowhere", None).unwrap_err().allowed(), None);
}

#[test]
fn only_origin_form_has_a_route() {
    let find = |uri: &str| {
        let (parts, ()) = http::Request::builder().uri(uri).body(()).unwrap().into_parts();
        find(&parts).map(|route| route.path).map_err(|error| error.to_string())
    };
    let wrong_form = Err(RouteError::Form.to_string());
    assert!(find("/prometheus/api/v1/query?query=up").is_ok());
    assert_eq!(find("http://mimir/prometheus/api/v1/query"), wrong_form);
    assert_eq!(find("mimir:8080"), wrong_form);
    assert_eq!(find("*"), wrong_form);
}

// RFC 9112, 3.2, 6.1 and 7: the roots of request smuggling.
#[test]
fn a_head_that_others_may_read_otherwise_is_refused() {
    let check = |version, headers: &[(&str, &str)]| {
        let mut request = http::Request::builder().version(version).uri("/api/v1/push");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        check_head(&parts).err().map(|error| format!("{error:?}"))
    };
    let (one, two, old) = (Version::HTTP_11, Version::HTTP_2, Version::HTTP_10);
    let host = ("host", "mimir.example.com:8080");
    for (version, headers) in [
        (one, vec![host]),
        (one, vec![("host", "")]),
        (one, vec![("host", "[::1]:8080")]),
        (old, vec![]),
        (two, vec![]),
        (one, vec![host, ("transfer-encoding", "Chunked")]),
    ] {
        assert_eq!(check(version, &headers), None, "{version:?} {headers:?}");
    }
    for headers in [
        vec![],
        vec![host, host],
        vec![("host", "a, b")],
        vec![("host", "a b")],
        vec![("host", "user@a")],
        vec![("host", "a/b")],
    ] {
        assert_eq!(check(one, &headers).as_deref(), Some("Host"), "{headers:?}");
    }
    assert_eq!(check(old, &[host, host]).as_deref(), Some("Host"));
    assert_eq!(check(two, &[host, host]).as_deref(), Some("Host"));
    for codings in [
        &["gzip, chunked"][..],
        &["gzip", "chunked"],
        &["chunked, chunked"],
        &["chunked", "chunked"],
        &["identity"],
        &["xchunked"],
        &[""],
    ] {
        let codings = codings.iter().map(|coding| ("transfer-encoding", *coding));
        let headers: Vec<_> = std::iter::once(host).chain(codings).collect();
        assert_eq!(check(one, &headers).as_deref(), Some("TransferCoding"), "{headers:?}");
    }
}

// Go drops a parameter with ';', older parsers split at it: nobody may rely on either.
#[test]
fn semicolons_do_not_separate_parameters() {
    let query = |query| outcome(&Method::GET, "/prometheus/api/v1/query", Some(query));
    assert_eq!(query("query=up;time=1"), Err(RouteError::Semicolon.to_string()));
    assert!(query("query=up%3Btime=1").is_ok());
}

fn is_routed(path: &str) -> bool {
    [Method::GET, Method::POST].iter().any(|method| find_path(method, path, None).is_ok())
}

const LABEL: &str = "/prometheus/api/v1/label/";
const RULES: &str = "/prometheus/config/v1/rules/";

proptest! {
    #[test]
    fn every_plain_host_is_an_authority(host in "[a-zA-Z0-9.-]{0,12}(:[0-9:a]{0,6})?") {
        let is_authority = http::uri::Authority::try_from(host.as_bytes()).is_ok();
        prop_assert!(!is_plain_host(host.as_bytes()) || is_authority, "{}", host);
    }

    // A real route's path, damaged at random: whatever still has a route is harmless.
    #[test]
    fn a_damaged_path_has_no_route_or_is_harmless(
        at in 0usize..ROUTES.len(),
        position in 0usize..60,
        damage in "[.%/;\\\\a-zA-Z0-9_\0]{1,6}",
        replaced in 0usize..4,
    ) {
        let path = ROUTES[at].path.replace("{label}", "job").replace("{name}", "rules");
        let from = position.min(path.len());
        let to = (from + replaced).min(path.len());
        let damaged = format!("{}{damage}{}", &path[..from], &path[to..]);
        if is_routed(&damaged) {
            prop_assert!(!damaged.contains("//") && !damaged.contains(['\\', ';', '\0']));
            prop_assert!(damaged.split('/').all(|segment| segment != ".." && segment != "."));
            let is_name = damaged.starts_with(RULES) || damaged.starts_with(LABEL);
            prop_assert!(!damaged.contains('%') || is_name);
        }
    }

    #[test]
    fn arbitrary_text_is_matched_without_panic(name in "\\PC{0,30}", query in "\\PC{0,30}") {
        let _ = outcome(&Method::GET, &name, Some(&query));
        let _ = outcome(&Method::GET, &format!("{RULES}{name}"), Some(&query));
    }

    #[test]
    fn encoded_names_hold_no_traversal(name in "([a-z.]|%2[eEfF]|%25|%5c|%00){1,10}") {
        if is_routed(&format!("{RULES}{name}")) {
            let decoded = name.to_lowercase().replace("%2e", ".").replace("%2f", "/");
            prop_assert!(decoded.split('/').all(|part| !matches!(part, "" | "." | "..")));
            prop_assert!(!decoded.contains("%5c") && !decoded.contains("%00"));
        }
    }
}

#[test]
fn all_reads_and_all_pushes_with_times_may_be_done_twice() {
    let forwarded = ROUTES.iter().filter(|route| matches!(route.access, Access::Tenant(_)));
    let not: Vec<&str> =
        forwarded.filter(|route| !route.is_repeatable()).map(|route| route.path).collect();
    assert_eq!(not, ["/api/v1/push/influx/write", "/alertmanager/api/v2/silences"]);
    let ends = find_path(&Method::DELETE, &format!("/alertmanager/api/v2/silence/{ID}"), None);
    assert!(ends.unwrap().is_repeatable());
}
