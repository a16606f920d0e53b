//! Devices that are known by their certificates.

use harness::{Mimir, samples};

use super::*;
use crate::support::identity::{IdentityFixture, command, identity_fixture};

/// A proxy with a database, and the authority of its devices.
struct Devices {
    identity: IdentityFixture,
    server: Authority,
    hubs: Authority,
    directory: TempDir,
}

async fn devices(upstream: &str, settings: &[(&str, &str)]) -> Devices {
    let (server, hubs) = (Authority::new("Proxy CA"), Authority::new("Hubs' CA"));
    let directory = TempDir::new().unwrap();
    let own = server.sign(Purpose::Server, &["localhost"]);
    let (certificate, key) = own.write(directory.path(), "own");
    let ca = directory.path().join("hubs.pem");
    std::fs::write(&ca, hubs.pem()).unwrap();
    let (certificate, key) = (listed(&[&certificate]), listed(&[&key]));
    let ca = format!("{:?}", ca.display().to_string());
    let mut all = vec![
        ("tls.certificate_files", certificate.as_str()),
        ("tls.key_files", key.as_str()),
        ("tls.client_ca_file", ca.as_str()),
    ];
    all.extend(settings);
    Devices { identity: identity_fixture(upstream, &all).await, server, hubs, directory }
}

impl Devices {
    /// A stock client, perhaps with a certificate.
    fn client(&self, own: Option<&KeyPairPem>) -> reqwest::Client {
        let authority = reqwest::Certificate::from_pem(self.server.pem().as_bytes()).unwrap();
        let builder = reqwest::Client::builder().tls_certs_only([authority]).no_proxy();
        let builder = match own {
            None => builder,
            Some(own) => {
                let both = format!("{}{}", own.certificate, own.key);
                builder.identity(reqwest::Identity::from_pem(both.as_bytes()).unwrap())
            }
        };
        builder.timeout(Duration::from_secs(20)).build().unwrap()
    }

    fn url(&self, path: &str) -> String {
        self.identity.proxy.url().replace("http://127.0.0.1", "https://localhost") + path
    }

    /// Pushes a sample: the status and what is said.
    async fn push(
        &self,
        client: &reqwest::Client,
        headers: &[(&str, &str)],
    ) -> Result<(u16, String), reqwest::Error> {
        let request = client
            .post(self.url(PUSH))
            .header("content-encoding", "snappy")
            .header("content-type", "application/x-protobuf")
            .body(samples::remote_write("by_certificate", &[], 1.0));
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Makes a device known by a certificate, or by a name in one.
    fn add(&self, organisation: &str, how: [&str; 2]) -> String {
        let arguments = ["device-key", "create", "--organisation", organisation, "--name", "hub"];
        let output = command(&self.identity.database, &[&arguments[..], &how].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn file(&self, pair: &KeyPairPem, name: &str) -> String {
        pair.write(self.directory.path(), name).0.display().to_string()
    }
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

// What `openssl x509 -fingerprint -sha256` prints is what is stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_known_by_its_certificates_fingerprint() {
    let mimir = Mimir::shared().await;
    let devices = devices(&mimir.url(), &[("tls.device_identity", "\"fingerprint\"")]).await;
    let organisation = devices.identity.organisation().await;
    let hub = devices.hubs.sign(Purpose::Client, &["hub-17.example"]);
    let file = devices.file(&hub, "hub");
    let printed = devices.add(&organisation, ["--certificate", &file]);
    let openssl = std::process::Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in", &file])
        .output()
        .unwrap();
    let openssl = String::from_utf8(openssl.stdout).unwrap().replace(':', "").to_lowercase();
    assert!(openssl.trim().ends_with(&printed), "{openssl} {printed}");
    let rows =
        devices.identity.database.query("select encode(key_hash, 'hex') from device_key").await;
    assert!(format!("{rows:?}").contains(&printed), "{rows:?}");

    let client = devices.client(Some(&hub));
    assert_eq!(devices.push(&client, &[]).await.unwrap().0, 200);
    let lines = devices.identity.log_of(PUSH).await;
    assert_eq!(
        (&lines[0]["principal.kind"], &lines[0]["tenant.id"]),
        (&"device".into(), &organisation.as_str().into())
    );
    // Only what a device key without scopes may: writing.
    let read = client.get(devices.url(QUERY)).send().await.unwrap();
    assert_eq!(read.status(), 403);
    // Another of the same name is another device; without one, a credential is asked for.
    let other = devices.hubs.sign(Purpose::Client, &["hub-17.example"]);
    let (status, said) = devices.push(&devices.client(Some(&other)), &[]).await.unwrap();
    assert!(
        status == 401 && said.contains("no device is known by the client's certificate"),
        "{said}"
    );
    let (status, said) = devices.push(&devices.client(None), &[]).await.unwrap();
    assert!(status == 401 && said.contains("no credential"), "{said}");
    // Revoked as any device, within a second, on the same connection.
    devices.identity.database.execute("update device_key set revoked_at = now()").await;
    wait_until("it is refused", Duration::from_secs(5), async || {
        devices.push(&client, &[]).await.unwrap().0 == 401
    })
    .await;
}

// A renewed certificate has the same name, and is the same device.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_known_by_a_name_in_its_certificates() {
    let mimir = Mimir::shared().await;
    let spiffe = "spiffe://example.org/hub/17";
    for (identity, name, names, others) in [
        (
            "\"uri\"",
            "uri:spiffe://example.org/hub/17",
            ["a.example", spiffe],
            ["a.example", "spiffe://example.org/hub/18"],
        ),
        ("\"dns\"", "dns:Hub-17.example", ["hub-17.example", spiffe], ["hub-18.example", spiffe]),
    ] {
        let devices = devices(&mimir.url(), &[("tls.device_identity", identity)]).await;
        let organisation = devices.identity.organisation().await;
        devices.add(&organisation, ["--certificate-name", name]);
        for _ in 0..2 {
            let hub = devices.hubs.sign(Purpose::Client, &names);
            assert_eq!(
                devices.push(&devices.client(Some(&hub)), &[]).await.unwrap().0,
                200,
                "{name}"
            );
        }
        let other = devices.hubs.sign(Purpose::Client, &others);
        assert_eq!(
            devices.push(&devices.client(Some(&other)), &[]).await.unwrap().0,
            401,
            "{name}"
        );
        // Two names of the kind are none.
        let both = [&names[..], &others[..]].concat();
        let both = devices.hubs.sign(Purpose::Client, &both);
        let status = devices.push(&devices.client(Some(&both)), &[]).await.unwrap().0;
        assert_eq!(status, 401, "{name}");
    }
}

// Whoever knows a certificate, or its name, has no key: neither is a secret.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_a_certificate_is_no_credential() {
    let upstream = Upstream::start(ok).await;
    for identity in ["\"fingerprint\"", "\"uri\""] {
        let devices = devices(&upstream.url(), &[("tls.device_identity", identity)]).await;
        let organisation = devices.identity.organisation().await;
        let hub = devices.hubs.sign(Purpose::Client, &["spiffe://example.org/hub/17"]);
        devices.add(&organisation, ["--certificate", &devices.file(&hub, "hub")]);
        devices.add(&organisation, ["--certificate-name", "uri:spiffe://example.org/hub/17"]);
        let client = devices.client(None);
        let basic = |password: &[u8]| {
            use base64::Engine as _;
            let encoded =
                base64::engine::general_purpose::STANDARD.encode([b"hub:", password].concat());
            format!("Basic {encoded}")
        };
        let fingerprint =
            hex_of(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &hub.der).as_ref());
        for authorization in [
            basic(&hub.der),
            basic(hub.certificate.as_bytes()),
            basic(b"uri:spiffe://example.org/hub/17"),
            "Bearer uri:spiffe://example.org/hub/17".to_owned(),
            format!("Bearer {fingerprint}"),
            basic(fingerprint.as_bytes()),
        ] {
            let (status, _) =
                devices.push(&client, &[("authorization", &authorization)]).await.unwrap();
            assert_eq!(status, 401, "{authorization}");
        }
        // Headers in which others pass on what they have verified.
        let escaped = hub.certificate.replace('\n', "%0A");
        for header in ["x-client-cert", "x-forwarded-client-cert", "ssl-client-cert", "client-cert"]
        {
            let (status, _) = devices.push(&client, &[(header, &escaped)]).await.unwrap();
            assert_eq!(status, 401, "{header}");
        }
    }
    assert!(upstream.heads().is_empty());
}

// The request's own credential goes first, also if it is wrong; a page does not borrow its reader's
// certificate.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_counts_only_beside_no_other_credential() {
    let upstream = Upstream::start(ok).await;
    let devices = devices(&upstream.url(), &[("tls.device_identity", "\"fingerprint\"")]).await;
    let (one, other) =
        (devices.identity.organisation().await, devices.identity.organisation().await);
    let hub = devices.hubs.sign(Purpose::Client, &["hub"]);
    devices.add(&one, ["--certificate", &devices.file(&hub, "hub")]);
    let arguments = ["device-key", "create", "--organisation", &other, "--name", "key"];
    let key = String::from_utf8(command(&devices.identity.database, &arguments).stdout).unwrap();
    let client = devices.client(Some(&hub));
    let key = format!("Bearer {}", key.trim());
    assert_eq!(devices.push(&client, &[("authorization", &key)]).await.unwrap().0, 200);
    assert_eq!(devices.push(&client, &[]).await.unwrap().0, 200);
    let tenants: Vec<String> = upstream
        .heads()
        .iter()
        .map(|head| head.headers["x-scope-orgid"].to_str().unwrap().to_owned())
        .collect();
    assert_eq!(tenants, [other, one]);
    for headers in [
        &[("authorization", "Bearer not.a.token")][..],
        &[("authorization", "Bearer mtpd_wrong")],
        &[("authorization", "")],
        &[("apikey", "anon")],
        &[("origin", "https://evil.example"), ("content-type", "text/plain")],
        &[("referer", "https://evil.example/")],
        &[("sec-fetch-mode", "no-cors")],
    ] {
        assert_eq!(devices.push(&client, headers).await.unwrap().0, 401, "{headers:?}");
    }
    assert_eq!(upstream.heads().len(), 2);
}

// No request is read from a client whose certificate is missing where it is required, foreign, expired, or a
// server's.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_certificate_ends_the_handshake() {
    let upstream = Upstream::start(ok).await;
    for (required, without) in [("\"optional\"", true), ("\"required\"", false)] {
        let devices = devices(&upstream.url(), &[("tls.client_certificates", required)]).await;
        let person = devices.identity.person();
        let token = format!("Bearer {}", person.token);
        let reached = async |own: Option<&KeyPairPem>| {
            devices.push(&devices.client(own), &[("authorization", &token)]).await.is_ok()
        };
        assert_eq!(reached(None).await, without, "{required}");
        assert!(reached(Some(&devices.hubs.sign(Purpose::Client, &["hub"]))).await);
        for wrong in [
            Authority::new("Hubs' CA").sign(Purpose::Client, &["hub"]),
            devices.hubs.sign_until(Purpose::Client, &["hub"], 2020),
            devices.hubs.sign(Purpose::Server, &["hub"]),
            devices.server.sign(Purpose::Client, &["hub"]),
        ] {
            assert!(!reached(Some(&wrong)).await, "{required}");
        }
        // A certificate lets in, and says nothing of who asks.
        let hub = devices.hubs.sign(Purpose::Client, &["hub"]);
        let (status, said) = devices.push(&devices.client(Some(&hub)), &[]).await.unwrap();
        assert!(status == 401 && said.contains("no credential"), "{said}");
        let failed = "mimir_tenant_proxy_tls_handshakes_total{outcome=\"client_certificate\"}";
        assert!(devices.identity.proxy.metric(failed).await >= 4.0);
        let resumed = "mimir_tenant_proxy_tls_handshakes_total{outcome=\"resumed\"}";
        assert_eq!(devices.identity.proxy.metric(resumed).await, 0.0);
    }
    assert!(upstream.heads().is_empty());
}

// An authority that is removed counts no more for new connections.
#[tokio::test(flavor = "multi_thread")]
async fn authorities_of_clients_are_reloaded() {
    let upstream = Upstream::start(ok).await;
    let settings =
        [("reload.watch_interval", "\"200ms\""), ("tls.client_certificates", "\"required\"")];
    let devices = devices(&upstream.url(), &settings).await;
    let old = devices.hubs.sign(Purpose::Client, &["hub"]);
    let next = Authority::new("Next CA");
    let new = next.sign(Purpose::Client, &["hub"]);
    let reached =
        async |own: &KeyPairPem| devices.push(&devices.client(Some(own)), &[]).await.is_ok();
    assert!(reached(&old).await && !reached(&new).await);
    std::fs::write(devices.directory.path().join("hubs.pem"), next.pem()).unwrap();
    wait_until("it is trusted", Duration::from_secs(20), async || reached(&new).await).await;
    assert!(!reached(&old).await);
}
