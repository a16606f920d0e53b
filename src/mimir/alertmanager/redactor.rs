//! Takes secrets out of texts that others wrote.

use std::collections::BTreeSet;

use percent_encoding::percent_decode_str;
use url::Url;

/// What stands in place of a secret, as in Alertmanager's own answers.
pub const MASK: &str = "<secret>";

/// What stands in place of a text that still holds a part of one.
const NOT_SHOWN: &str = "(not shown: it repeats a part of a secret)";

/// So many characters in a row of a secret give it away. Mimir's YAML errors quote the first seven.
const TELLING: usize = 6;

/// Shorter ones are no secrets, and to mask them would only garble the text.
const SHORTEST: usize = 4;

/// Bytes of all secrets together that are looked for. Each of their pieces is: of megabytes that would take seconds.
const MOST_BYTES: usize = 128 << 10;
/// What stands in place of every text if there are more.
const TOO_MANY: &str = "(not shown: the secrets are too large to be looked for in it)";

/// Words of Alertmanager's own messages: a secret that shares one of them is not given away by it.
const COMMON: &str = "webhook_configs email_configs slack_configs pagerduty_configs opsgenie_configs \
    telegram_configs discord_configs msteams_configs msteamsv2_configs receivers receiver route routes \
    matchers matcher alertmanager alerts alert config configuration validating template templates \
    notification notifications notify unmarshal unmarshaling unsupported scheme missing host required \
    invalid cannot not found in type already contains mute_time_intervals time_intervals interval \
    intervals group_by group_wait group_interval repeat_interval global services service channel \
    channels token password webhook_url api_url api_key routing_key service_key bot_token chat_id \
    undefined expected error field line integer string number prometheus monitoring integrations \
    incoming outgoing messages message workflows workflow trigger triggers";

/// Secrets, in order to find them. It shows itself nowhere.
#[derive(Clone, Default)]
pub struct Redactor {
    /// What is replaced, the longest first.
    needles: Vec<String>,
    /// Pieces that must not be left.
    pieces: BTreeSet<String>,
    /// There are more than can be looked for.
    is_too_much: bool,
}

impl Redactor {
    /// Of a secret that is an address only what follows the host is one: the host helps its author.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut needles = BTreeSet::new();
        let mut pieces = BTreeSet::new();
        let mut bytes = 0;
        for secret in secrets {
            bytes += secret.len();
            if bytes > MOST_BYTES {
                return Self { is_too_much: true, ..Self::default() };
            }
            let parts = parts(secret);
            for part in &parts {
                let letters: Vec<char> = part.to_lowercase().chars().collect();
                let windows = letters.windows(TELLING.min(letters.len()).max(1));
                pieces.extend(windows.map(String::from_iter));
            }
            needles.insert(secret.to_owned());
            needles.extend(parts);
        }
        needles.retain(|needle| needle.chars().count() >= SHORTEST);
        pieces.retain(|piece| piece.chars().count() >= SHORTEST && !COMMON.contains(piece));
        let escaped: Vec<String> =
            needles.iter().map(|text| text.escape_debug().to_string()).collect();
        needles.extend(escaped);
        let mut needles: Vec<String> = needles.into_iter().collect();
        needles.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
        Self { needles, pieces, is_too_much: false }
    }

    /// A text without any of the secrets: each is masked, and a text that holds a part of one even so
    /// is not shown at all.
    pub fn redact(&self, text: &str) -> String {
        if self.is_too_much {
            return TOO_MANY.to_owned();
        }
        let mut shown = text.to_owned();
        for needle in &self.needles {
            if shown.contains(needle.as_str()) {
                shown = shown.replace(needle.as_str(), MASK);
            }
        }
        let plain = shown.replace(MASK, "\0").to_lowercase();
        let decoded = percent_decode_str(&plain).decode_utf8_lossy();
        if self.pieces.iter().any(|piece| plain.contains(piece) || decoded.contains(piece)) {
            return NOT_SHOWN.to_owned();
        }
        shown
    }
}

/// The parts of a secret that must not be shown: all of it, or of an address its user information,
/// path, query and fragment.
fn parts(secret: &str) -> Vec<String> {
    let address = Url::parse(secret).ok().filter(Url::has_host);
    let Some(address) = address else { return vec![secret.to_owned()] };
    let mut parts = Vec::new();
    let path = address.path().trim_matches('/');
    let texts = [
        Some(path),
        address.query(),
        address.fragment(),
        address.password(),
        Some(address.username()),
    ];
    for text in texts.into_iter().flatten().filter(|text| !text.is_empty()) {
        parts.push(text.to_owned());
        let decoded = percent_decode_str(text).decode_utf8_lossy();
        if decoded != text {
            parts.push(decoded.into_owned());
        }
    }
    parts
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // A channel whose address shares words with the refusal is told why it was refused.
    #[test]
    fn words_of_alertmanagers_own_are_told() {
        let redactor = Redactor::new(["https://e.example/webhook/alerts/template"]);
        let told = "unsupported template in webhook_configs of receiver alerts";
        assert!(redactor.redact(told).starts_with("unsupported "), "{}", redactor.redact(told));
    }

    #[test]
    fn a_secret_is_masked_and_the_rest_is_told() {
        let redactor =
            Redactor::new(["https://hooks.example.com/services/T0/B0/abcdefgh", "xoxb-1234567890"]);
        let told = redactor.redact(
            r#"unsupported scheme for "https://hooks.example.com/services/T0/B0/abcdefgh" (token xoxb-1234567890)"#,
        );
        assert_eq!(told, r#"unsupported scheme for "<secret>" (token <secret>)"#);
        assert_eq!(
            redactor.redact("dial hooks.example.com: refused"),
            "dial hooks.example.com: refused"
        );
    }

    // gopkg.in/yaml.v3 quotes the first seven letters of what it cannot read.
    #[test]
    fn a_text_with_a_part_of_a_secret_is_not_shown() {
        let redactor =
            Redactor::new(["xoxb-1234567890", "https://e.example/p%61th-of-it?key=value"]);
        for text in [
            "cannot unmarshal !!str `xoxb-12...` into int",
            "cannot unmarshal !!str `XOXB-12...` into int",
            "bad %70ath-of-it",
        ] {
            assert_eq!(redactor.redact(text), NOT_SHOWN, "{text}");
        }
        assert_eq!(redactor.redact("bad path-of-it"), "bad <secret>");
        assert!(!format!("{redactor:?}").contains("xoxb"));
    }

    proptest! {
        #[test]
        fn no_six_letters_of_a_secret_get_through(
            secret in "[a-zA-Z0-9]{8,40}", before in "[ -~]{0,20}", after in "[ -~]{0,20}",
            from in 0..8_usize, length in 6..40_usize,
        ) {
            let redactor = Redactor::new([secret.as_str()]);
            let part: String = secret.chars().skip(from).take(length).collect();
            let told = redactor.redact(&format!("{before}{part}{after}")).to_lowercase();
            let letters: Vec<char> = secret.to_lowercase().chars().collect();
            for window in letters.windows(TELLING) {
                let window: String = window.iter().collect();
                prop_assert!(!told.replace(MASK, "").contains(&window) || NOT_SHOWN.contains(&window));
            }
        }
    }
}
