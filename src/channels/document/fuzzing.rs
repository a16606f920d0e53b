//! What must be true of every document that Mimir has, whoever wrote it.

use std::collections::BTreeSet;

use super::yaml::SECRET_KEYS;
use super::{MARKER, Observed, diff_texts};
use crate::yaml::{Kind, Node, quoted};

/// A configuration: of one that is not ours nothing is shown, and of one that was ours and was changed by
/// hand no value of a secret key, however it is written.
pub fn document(data: &[u8]) {
    let Ok(config) = std::str::from_utf8(data) else { return };
    let _ = Observed::parse(config);
    for config in [config.to_owned(), format!("{MARKER}\n{config}")] {
        let answer = format!("template_files: {{}}\nalertmanager_config: {}\n", quoted(&config));
        let observed = Observed::parse(&answer);
        assert!(observed.as_ref().is_ok_and(|observed| observed.config() == config), "{answer}");
        let Ok(observed) = observed else { return };
        let shown = observed.redacted();
        let (live, _) = diff_texts(Some(&observed), None);
        assert!(!format!("{observed:?}").contains("alertmanager_config"));
        if observed.is_foreign() {
            assert!(shown.is_empty() && live.is_empty());
            continue;
        }
        let Ok(documents) = Node::read_all(&config) else { continue };
        let (mut secrets, mut others) = (Texts::new(), Texts::new());
        for document in &documents {
            collect(document, false, &mut secrets, &mut others);
        }
        for secret in secrets.iter().filter(|secret| secret.len() >= 8 && !others.contains(*secret))
        {
            // Only what stands in the text once: a repetition may be a comment, or a part of something else.
            if config.matches(secret.as_str()).count() == 1
                && !"<old secret>".contains(secret.as_str())
            {
                assert!(!shown.contains(secret.as_str()), "{secret:?} of {config:?} in {shown:?}");
                assert!(!live.contains(secret.as_str()), "{secret:?} of {config:?} in {live:?}");
            }
        }
    }
}

type Texts = BTreeSet<String>;

/// The scalars below secret keys, and all others, keys included.
fn collect(node: &Node, is_secret: bool, secrets: &mut Texts, others: &mut Texts) {
    match &node.kind {
        Kind::Scalar(scalar) => {
            let texts = if is_secret { secrets } else { others };
            texts.insert(scalar.text.clone());
        }
        Kind::List(items) => {
            for item in items {
                collect(item, is_secret, secrets, others);
            }
        }
        Kind::Map(entries) => {
            for entry in entries {
                others.insert(entry.key.clone());
                let is_secret = is_secret || SECRET_KEYS.contains(&entry.key.as_str());
                collect(&entry.value, is_secret, secrets, others);
            }
        }
    }
}
