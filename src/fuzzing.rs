//! The parsers that read what others wrote, each behind a function of bytes: the targets of `fuzz/`.
//!
//! A target asserts what must be true of every input, and not only that nothing panics. It stands beside
//! its parser, in a file `fuzzing.rs`, so that nothing becomes public for its sake. The tests below run all
//! targets over the inputs in `fuzz/corpus`, without instrumentation; `scripts/fuzz` looks for new ones.

/// A target: its name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Names the targets for `fuzz/` and for the tests.
macro_rules! targets {
    ($($name:ident = $($path:ident)::+,)+) => {
        $( pub use crate::$($path)::+; )+

        /// Every target.
        pub const TARGETS: &[Target] = &[$( (stringify!($name), $name), )+];
    };
}

targets! {
    path = route::fuzzing::path,
    credential = authn::fuzzing::credential,
    token = authn::fuzzing::token,
    key_set = authn::fuzzing::key_set,
    selector = authz::fuzzing::selector,
    admin_request = admin::fuzzing::admin_request,
    framing = listener::fuzzing::framing,
    answer = forward::fuzzing::answer,
    upload = forward::fuzzing::upload,
    traceparent = trace::fuzzing::traceparent,
    form = mimir::fuzzing::form,
    expression = mimir::fuzzing::expression,
    silence = mimir::fuzzing::silence,
    alerts = alert_events::fuzzing::alerts,
    alert_rule = rules::fuzzing::alert_rule,
    template = rules::fuzzing::template,
    promql = rules::fuzzing::promql,
    rule_file = command::fuzzing::rule_file,
    channels = channels::fuzzing::channels,
    matcher = channels::fuzzing::matcher,
    address = channels::fuzzing::address,
    document = channels::document::fuzzing::document,
    listing = mimir::ruler::fuzzing::listing,
    refusal = mimir::ruler::fuzzing::refusal,
    ruler_answer = mimir::ruler::fuzzing::ruler_answer,
    alertmanager_page = mimir::alertmanager::fuzzing::alertmanager_page,
    redactor = mimir::alertmanager::fuzzing::redactor,
    profile = mimir_profile::fuzzing::profile,
    config = config::fuzzing::config,
}

/// What separates the fields of an input that has several. It is in no text that a parser takes raw.
const FIELD: u8 = 0x1e;

/// The fields of an input, empty ones in place of those that are missing. The last one has the rest.
pub(crate) fn fields<const COUNT: usize>(data: &[u8]) -> [&[u8]; COUNT] {
    let mut parts = data.splitn(COUNT, |byte| *byte == FIELD);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// The same, as texts. What is no UTF-8 is replaced: a database and a JSON parser do not let it in.
pub(crate) fn texts<const COUNT: usize>(data: &[u8]) -> [String; COUNT] {
    fields(data).map(|field| String::from_utf8_lossy(field).into_owned())
}

/// As columns of a row: one that is empty may also not be there.
pub(crate) fn columns<const COUNT: usize>(data: &[u8]) -> [Option<String>; COUNT] {
    texts(data).map(|text| (!text.is_empty()).then_some(text))
}

/// Cuts bytes into pieces whose lengths are those of a list, again and again.
pub(crate) fn pieces<'a>(bytes: &'a [u8], lengths: &[u8]) -> Vec<&'a [u8]> {
    let mut lengths = lengths.iter().map(|length| usize::from(*length % 61) + 1).cycle();
    let (mut rest, mut pieces) = (bytes, Vec::new());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(lengths.next().unwrap_or(rest.len()).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// Ends a target whose property does not hold, where an assertion does not say it.
#[expect(clippy::panic, reason = "a target says by a panic that it has found something")]
pub(crate) fn broken(what: impl std::fmt::Display) -> ! {
    panic!("{what}")
}

#[cfg(test)]
mod tests;
