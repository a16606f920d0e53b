//! Keys that name files: certificates, their keys, and authorities.

use tempfile::TempDir;

use super::*;

fn made_certificate(name: &str, year: i32) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// Writes a file into a folder, and gives its path in TOML.
fn written(folder: &TempDir, name: &str, text: &str) -> String {
    let file = folder.path().join(name);
    std::fs::write(&file, text).unwrap();
    format!("{:?}", file.display().to_string())
}

// The operator is told which file is wrong, and how. Nothing of a key is repeated.
#[test]
fn what_is_wrong_with_a_certificate_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| written(&folder, name, text);
    let ((one, its_key), (two, other_key)) =
        (made_certificate("a.example", 4096), made_certificate("b.example", 2020));
    let (certificate, key) = (write("one.pem", &one), write("one.key", &its_key));
    let both = write("both.pem", &format!("{one}{its_key}"));
    let (old, old_key) = (write("old.pem", &two), write("old.key", &other_key));
    let (empty, ca) = (write("empty.pem", ""), write("ca.pem", &one));
    let half = write("half.key", &its_key[..its_key.len() / 2]);
    let tls = |lines: &str| read(&format!("{MINIMAL}\n[tls]\n{lines}"));
    let served = |lines: &str| tls(lines).unwrap().listen.tls.unwrap().certificates;
    assert!(read(MINIMAL).unwrap().listen.tls.is_none());
    let alone = served(&format!("certificate_files = [{both}]"));
    assert_eq!(alone[0].names, ["a.example"]);
    let two = format!("certificate_files = [{certificate}, {old}]\nkey_files = [{key}, {old_key}]");
    assert_eq!(served(&two).len(), 2);
    let warnings = tls(&two).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].problem.contains("expired at 2020-01-01"));
    let mutual = "client_certificates = \"required\"";
    served(&format!("certificate_files = [{both}]\nclient_ca_file = {ca}\n{mutual}"));
    for (lines, key, words) in [
        (format!("certificate_files = [{certificate}]"), "tls.certificate_files", "no private key"),
        (format!("certificate_files = [{key}]"), "tls.certificate_files", "holds no certificate"),
        (format!("certificate_files = [{empty}]"), "tls.certificate_files", "holds no certificate"),
        (
            "certificate_files = [\"no-such-file\"]".to_owned(),
            "tls.certificate_files",
            "cannot be read",
        ),
        (
            format!("certificate_files = [{certificate}]\nkey_files = [{old_key}]"),
            "tls.certificate_files",
            "not that of the certificate",
        ),
        (
            format!("certificate_files = [{certificate}]\nkey_files = [{half}]"),
            "tls.key_files",
            "not a PEM file",
        ),
        (
            format!("certificate_files = [{certificate}, {old}]\nkey_files = [{key}]"),
            "tls.key_files",
            "names 1 files for 2",
        ),
        (format!("certificate_files = [{both}]\nmin_version = \"1.1\""), "tls.min_version", "1.2"),
        (format!("certificate_files = [{both}]\nhttp2 = \"no\""), "tls.http2", "true or false"),
        ("http2 = false".to_owned(), "tls.http2", "no effect"),
        (
            format!("certificate_files = [{both}]\nclient_ca_file = {empty}"),
            "tls.client_ca_file",
            "no certificate",
        ),
        (
            format!("certificate_files = [{both}]\n{mutual}"),
            "tls.client_certificates",
            "tls.client_ca_file",
        ),
        (format!("client_ca_file = {ca}"), "tls.client_ca_file", "no effect"),
    ] {
        let faults = tls(&lines).unwrap_err();
        assert!(faults.0.iter().any(|fault| fault.key == key), "{lines}: {faults}");
        assert!(faults.to_string().contains(words), "{lines}: {faults}");
        let secret = its_key.lines().nth(1).unwrap();
        assert!(!faults.to_string().contains(&secret[..20]), "{faults}");
    }
}

// A renewed certificate has the same path.
#[test]
fn another_content_of_a_file_is_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("both.pem");
    let text = format!("{MINIMAL}\n[tls]\ncertificate_files = [{file:?}]");
    let load = || {
        let (certificate, key) = made_certificate("a.example", 4096);
        std::fs::write(&file, format!("{certificate}{key}")).unwrap();
        read(&text).unwrap()
    };
    let (before, after) = (load(), load());
    assert_eq!(before.changes_to(&after)[0].key, "tls.certificate_files");
    assert!(after.changes_to(&read(&text).unwrap()).is_empty());
}

#[test]
fn the_files_that_a_configuration_names_are_known_though_it_is_faulty() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proxy.toml");
    let text = "listen.workers = \"none\"\n[tls]\ncertificate_files = [\"a.pem\", \"b.pem\"]\n\
                client_ca_file = \"ca.pem\"\n[auth";
    std::fs::write(&file, text).unwrap();
    let variables = [
        ("MTP__AUTH__ADMIN_KEY_FILE", "key"),
        ("MTP__TLS__KEY_FILES", "a.key, b.key"),
        ("MTP__TLS__MIN_VERSION", "1.3"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut named = named_files(Some(&file), &Environment::from_vars(variables));
    named.sort();
    let mut wanted: Vec<PathBuf> =
        ["a.pem", "b.pem", "ca.pem", "key", "a.key", "b.key"].map(Into::into).into();
    wanted.push(file);
    wanted.sort();
    assert_eq!(named, wanted);
}

#[test]
fn https_to_mimir_says_whom_to_trust() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| written(&folder, name, text);
    let (certificate, private) = made_certificate("mimir.internal", 4096);
    let (ca, key) = (write("ca.pem", &certificate), write("own.key", &private));
    let tls = |lines: &str| with_upstream(lines).map(|config| config.upstream.tls);
    assert!(tls("urls = [\"http://m\"]").unwrap().is_none());
    let https = "urls = [\"https://m\", \"https://n:8443\"]";
    let config = with_upstream(&format!("{https}\nca_file = {ca}")).unwrap();
    let ports: Vec<u16> = config.upstream.upstreams.iter().map(|one| one.port).collect();
    assert_eq!(ports, [443, 8443]);
    assert!(
        config.upstream.health.tls.is_some() && config.upstream.health.tls == config.upstream.tls
    );
    assert_eq!(config.rules.urls[1].as_str(), "https://n:8443/");
    let other = tls(&format!("{https}\nca_file = {ca}\nserver_name = \"m.example\"")).unwrap();
    assert!(other.is_some() && other != config.upstream.tls);
    let own = format!("client_certificate_file = {ca}\nclient_key_file = {key}");
    assert!(tls(&format!("{https}\nca_file = {ca}\n{own}")).unwrap().is_some());
    let consul = "urls = []\nconsul_url = \"http://c:8500\"\nconsul_service = \"mimir\"";
    assert!(tls(consul).unwrap().is_none());
    let named = format!("{consul}\nca_file = {ca}\nserver_name = \"mimir.internal\"");
    assert!(tls(&named).unwrap().is_some());
    // The authorities of Consul are not those of Mimir.
    let secured = consul.replace("http://c", "https://c");
    let trusting = with_upstream(&format!("{secured}\nconsul_ca_file = {ca}")).unwrap().upstream;
    assert!(trusting.tls.is_none() && trusting.consul.as_ref().unwrap().tls.is_some());
    assert_ne!(trusting.consul, with_upstream(&secured).unwrap().upstream.consul);
    for (lines, key) in [
        (https.to_owned(), "upstream.ca_file"),
        (format!("{https}\nca_file = {key}"), "upstream.ca_file"),
        (format!("{https}\nca_file = \"no-such-file\""), "upstream.ca_file"),
        (format!("urls = [\"https://m\", \"http://n\"]\nca_file = {ca}"), "upstream.urls"),
        (format!("urls = [\"http://m\"]\nca_file = {ca}"), "upstream.ca_file"),
        (format!("{https}\nca_file = {ca}\nserver_name = \"a b\""), "upstream.server_name"),
        (format!("{https}\nca_file = {ca}\nclient_key_file = {key}"), "upstream.client_key_file"),
        (
            format!("{https}\nca_file = {ca}\nclient_certificate_file = {ca}"),
            "upstream.client_certificate_file",
        ),
        (format!("{consul}\nca_file = {ca}"), "upstream.server_name"),
        (format!("{consul}\nconsul_ca_file = {ca}"), "upstream.consul_ca_file"),
        (format!("{secured}\nconsul_ca_file = {key}"), "upstream.consul_ca_file"),
        (format!("{secured}\nconsul_ca_file = \"no-such-file\""), "upstream.consul_ca_file"),
        (format!("urls = [\"http://m\"]\nconsul_ca_file = {ca}"), "upstream.consul_ca_file"),
    ] {
        assert_eq!(keys(&tls(&lines).unwrap_err()), [key], "{lines}");
    }
}
