//! A real SMTP server, Debian's Exim, as the operator's relay: it takes mail for any address on
//! loopback and delivers each to a file of its own. The local part `refused` is no mailbox (550).

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::certificates::Certificates;
use crate::parts::part;
use crate::process::{Process, free_port, wait_until};
use crate::scratch::Scratch;
use crate::user;

/// A running SMTP server.
pub struct Smtp {
    process: Process,
    port: u16,
    ca: Option<PathBuf>,
    directory: Scratch,
}

/// A mail as it was delivered, once for each recipient.
#[derive(Clone, Debug)]
pub struct Mail {
    /// The recipient of the envelope, which headers need not name.
    pub to: String,
    /// The headers in their order, unfolded and decoded (RFC 2047).
    pub headers: Vec<(String, String)>,
    /// All parts of the body, decoded (quoted-printable).
    pub text: String,
    /// The mail as it is in the file.
    pub raw: String,
}

impl Smtp {
    /// Starts one that offers no encryption.
    pub async fn start() -> Self {
        Self::start_as(false).await
    }

    /// Starts one that offers STARTTLS, with a certificate of [`Smtp::ca_file`]'s authority.
    pub async fn start_with_tls() -> Self {
        Self::start_as(true).await
    }

    async fn start_as(tls: bool) -> Self {
        let (directory, port) = (Scratch::with_prefix("smtp-"), free_port());
        let files = tls.then(|| Certificates::make(directory.path()));
        for name in ["spool", "mail"] {
            std::fs::create_dir(directory.path().join(name)).expect("directory");
        }
        // As a user without rights: Exim as root delivers nothing to root, and refuses a file
        // that others may write.
        user::give(directory.path());
        let file = directory.path().join("exim.conf");
        let text = configuration(directory.path(), port, files.as_ref());
        std::fs::write(&file, text).expect("configuration");
        // Exim is set-user-ID, and such a program does not die with its parent.
        let privileges = [user::options(), &["--no-new-privs", "--pdeathsig", "KILL"]].concat();
        let process =
            Process::start_with("exim", &privileges, &part("exim4"), directory.path(), |command| {
                command.arg("-C").arg(&file).arg("-bdf").current_dir("/");
            });
        let mut smtp = Self { process, port, ca: files.map(|files| files.ca), directory };
        let process = &mut smtp.process;
        wait_until("Exim takes connections", Duration::from_secs(20), async || {
            assert!(process.is_running(), "Exim does not start\n{}", process.log());
            TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        smtp
    }

    /// Its host and port, as `channels.email_smarthost` wants them.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The authority (PEM) that signed its certificate.
    ///
    /// # Panics
    /// If it was started without encryption.
    pub fn ca_file(&self) -> &Path {
        self.ca.as_deref().expect("started with TLS")
    }

    /// All mails that were delivered so far, in the order of their arrival.
    pub fn mails(&self) -> Vec<Mail> {
        let folder = self.directory.path().join("mail/new");
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a mail").path()).collect();
        files.sort();
        files.iter().map(|file| parse(&std::fs::read(file).expect("a mail"))).collect()
    }

    /// Waits for a mail, and panics with what arrived if it does not come.
    pub async fn mail(&self, patience: Duration, is_it: impl Fn(&Mail) -> bool) -> Mail {
        let deadline = std::time::Instant::now() + patience;
        loop {
            let mails = self.mails();
            if let Some(mail) = mails.iter().find(|mail| is_it(mail)) {
                return mail.clone();
            }
            let is_late = std::time::Instant::now() > deadline;
            assert!(!is_late, "no such mail within {patience:?}: {mails:#?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it has logged: arrivals, deliveries and refusals.
    pub fn log(&self) -> String {
        let main = std::fs::read_to_string(self.directory.path().join("mainlog"));
        main.unwrap_or_default() + &self.process.log()
    }
}

impl Mail {
    /// The first header of a name; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }
}

fn configuration(directory: &Path, port: u16, files: Option<&Certificates>) -> String {
    let directory = directory.display();
    let (user, group) = user::ids();
    let tls = files.map_or("tls_advertise_hosts =".to_owned(), |files| {
        format!(
            "tls_advertise_hosts = *\ntls_certificate = {}\ntls_privatekey = {}",
            files.certificate.display(),
            files.key.display()
        )
    });
    format!(
        "primary_hostname = relay.test
spool_directory = {directory}/spool
log_file_path = {directory}/%slog
pid_file_path = {directory}/exim.pid
exim_user = {user}
exim_group = {group}
deliver_drop_privilege = true
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
{tls}
keep_environment =
disable_ipv6 = true
host_lookup =
rfc1413_query_timeout = 0s
smtp_accept_max = 100
acl_smtp_rcpt = recipient
acl_smtp_data = accept

begin acl
recipient:
  deny message = mailbox unavailable
       local_parts = refused
  accept

begin routers
all:
  driver = accept
  transport = files

begin transports
files:
  driver = appendfile
  directory = {directory}/mail
  maildir_format
  create_directory
  envelope_to_add
  user = {user}
  group = {group}

begin retry
* * F,1h,1s
"
    )
}

fn parse(bytes: &[u8]) -> Mail {
    let raw = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let (head, body) = raw.split_once("\n\n").unwrap_or((&raw, ""));
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in head.lines() {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = headers.last_mut() {
                value.push(' ');
                value.push_str(line.trim_start());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }
    for (_, value) in &mut headers {
        *value = words(value);
    }
    let to = headers.iter().find(|(name, _)| name == "Envelope-to");
    let to = to.map(|(_, value)| value.clone()).unwrap_or_default();
    Mail { to, headers, text: quoted_printable(&body.replace("=\n", "")), raw: raw.clone() }
}

/// Decodes `=?utf-8?q?…?=`, the only form that Go writes for text of which most is ASCII.
fn words(text: &str) -> String {
    let (mut decoded, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("=?utf-8?q?") {
        let Some((word, after)) = after.split_once("?=") else { break };
        // White space between two encoded words is none (RFC 2047, section 6.2).
        if !before.trim().is_empty() || decoded.is_empty() {
            decoded.push_str(before);
        }
        decoded.push_str(&quoted_printable(&word.replace('_', " ")));
        rest = after;
    }
    decoded + rest
}

fn quoted_printable(text: &str) -> String {
    let (mut decoded, bytes) = (Vec::with_capacity(text.len()), text.as_bytes());
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 3).and_then(|code| std::str::from_utf8(code).ok());
        let code = code.filter(|_| bytes[at] == b'=');
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            decoded.push(byte);
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_decoded() {
        let mail = parse(
            b"Envelope-to: a@b.test\nSubject: =?utf-8?q?[FIRING:1]_H=C3=BCb?=\n =?utf-8?q?_off?=\n\n\
              Content-Transfer-Encoding: quoted-printable\n\nload =3D 7=\n.5\n",
        );
        assert_eq!((mail.to.as_str(), mail.header("subject")), ("a@b.test", "[FIRING:1] Hüb off"));
        assert!(mail.text.contains("load = 7.5"), "{}", mail.text);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn exim_delivers_to_files_and_refuses_one_mailbox() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let smtp = Smtp::start().await;
        let mut socket = TcpStream::connect(smtp.address()).await.unwrap();
        let mut answers = String::new();
        for line in [
            "EHLO test",
            "MAIL FROM:<alerts@a.test>",
            "RCPT TO:<refused@b.test>",
            "RCPT TO:<on-call@b.test>",
            "DATA",
            "Subject: hub\r\n\r\noff\r\n.",
            "QUIT",
        ] {
            socket.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
            // One command at a time: the server refuses pipelining before it offered it.
            let mut buffer = [0; 4096];
            let length = socket.read(&mut buffer).await.unwrap();
            answers.push_str(&String::from_utf8_lossy(&buffer[..length]));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mail = smtp.mail(Duration::from_secs(10), |mail| mail.to == "on-call@b.test").await;
        assert_eq!((mail.header("subject"), mail.text.trim()), ("hub", "off"));
        assert!(answers.contains("550 mailbox unavailable"), "{answers}");
        assert_eq!(smtp.mails().len(), 1, "{}", smtp.log());
    }
}
