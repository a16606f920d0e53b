//! Splits the listing of all tenants into one listing per tenant while it is received.
//!
//! Mimir writes one mapping of tenants to what a listing of each would be, indented. A key in the
//! first column begins another tenant, so a tenant's part can be cut out, unindented and parsed by
//! itself, and only one part is held at a time.

use bytes::Bytes;

use super::line_breaks::{Document, ends_with_old_break, is_blank, lines};
use super::node::Reader;
use super::{RawListing, RulerError};
use crate::mimir::ExchangeError;
use crate::tenancy::TenantId;

const INDENT: &str = "    ";

/// Bytes received and not yet returned.
#[derive(Default)]
pub(super) struct TenantSplitter {
    buffer: Vec<u8>,
    /// Where the first entry that was not returned begins.
    taken: usize,
    /// No entry begins between `taken` and here.
    searched: usize,
    /// The tenant before the current one. It is only returned once the next one has a different
    /// key: half of its groups would look like all.
    held: Option<Tenant>,
}

type Tenant = (TenantId, RawListing);

/// One tenant's part, with its line ends.
struct Entry(Vec<u8>);

impl TenantSplitter {
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.buffer.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        self.buffer.extend_from_slice(piece);
    }

    /// The next tenant that was received completely.
    pub(super) fn next_tenant(&mut self) -> Option<Tenant> {
        while let Some(entry) = self.next_entry() {
            let tenant = entry.read();
            let is_known = tenant.is_some();
            let before = std::mem::replace(&mut self.held, tenant);
            if is_known && before.is_some() {
                return before;
            }
        }
        None
    }

    fn next_entry(&mut self) -> Option<Entry> {
        let from = self.searched.max(self.taken + 1);
        // A tenant's ID is ASCII; `:` follows a key that was too long for its line.
        let begins = |pair: &[u8]| {
            pair[0] == b'\n' && pair[1].is_ascii() && !matches!(pair[1], b' ' | b'\n' | b':')
        };
        let Some(at) = self.buffer.get(from - 1..)?.windows(2).position(begins) else {
            self.searched = self.buffer.len().max(from);
            return None;
        };
        let end = from + at;
        let entry = Entry(self.buffer[self.taken..end].to_vec());
        (self.taken, self.searched) = (end, end);
        Some(entry)
    }

    /// The number of bytes that wait for the end of their entry.
    pub(super) fn waiting(&self) -> usize {
        self.buffer.len() - self.taken
    }

    /// The last tenants, when the input has ended. An error if it ends within a line.
    pub(super) fn finish(self) -> Result<impl Iterator<Item = Tenant>, RulerError> {
        let last = match &self.buffer[self.taken..] {
            [] => return Ok([self.held, None].into_iter().flatten()),
            entry @ ([.., b'\n'] | [.., 0xe2, 0x80, 0xa8 | 0xa9]) => Entry(entry.to_vec()).read(),
            _ => return Err(ExchangeError::Unreadable("it is cut off".to_owned()).into()),
        };
        let held = self.held.filter(|_| last.is_some());
        Ok([held, last].into_iter().flatten())
    }
}

impl Entry {
    /// The tenant and its listing. `None` if the format is not as expected: the tenant's listing
    /// must then be requested separately.
    fn read(self) -> Option<Tenant> {
        let text = std::str::from_utf8(&self.0).ok()?;
        let name = Reader::open(&Document::new(text)).ok()?.key().ok()??;
        let tenant = TenantId::parse(&name).ok()?;
        let (first, rest) = text.split_once('\n')?;
        if first.ends_with(": {}") && rest.is_empty() {
            return Some((tenant, RawListing::empty()));
        }
        if !first.ends_with(':') || rest.is_empty() {
            return None;
        }
        let mut listing = String::with_capacity(rest.len());
        let mut is_after_old_break = false;
        for line in lines(rest) {
            match line.strip_prefix(INDENT) {
                Some(moved) => listing.push_str(moved),
                // A break is not indented, nor is a quote directly after a break of YAML 1.1.
                None if is_blank(line) || is_after_old_break => {
                    listing.push_str(line);
                }
                None => return None,
            }
            is_after_old_break = ends_with_old_break(line);
        }
        Some((tenant, RawListing::new(Bytes::from(listing))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Read = Vec<(String, String)>;

    fn read((tenant, listing): Tenant) -> (String, String) {
        (tenant.as_str().to_owned(), String::from_utf8(listing.body().to_vec()).unwrap())
    }

    fn read_in_pieces(text: &str, length: usize) -> Result<Read, RulerError> {
        let (mut tenants, mut found) = (TenantSplitter::default(), Vec::new());
        for piece in text.as_bytes().chunks(length) {
            tenants.push(piece);
            while let Some(tenant) = tenants.next_tenant() {
                found.push(read(tenant));
            }
        }
        found.extend(tenants.finish()?.map(read));
        Ok(found)
    }

    const TEXT: &str = "a:
    ours:
        - name: g
          rules:
            - alert: A
              expr: |
                b

                # no tenant:
'b':
    \"2\": []
\"3\": {}
d: 5
e: {}
? fffff
: ours: []
g h: {}
i: {}
";

    fn expected() -> Read {
        let entry = |tenant: &str, listing: &str| (tenant.to_owned(), listing.to_owned());
        let first = "ours:
    - name: g
      rules:
        - alert: A
          expr: |
            b

            # no tenant:
";
        // What precedes an unexpected entry may be incomplete: 3, e.
        vec![entry("a", first), entry("b", "\"2\": []\n"), entry("i", "{}\n")]
    }

    #[test]
    fn an_entry_is_an_indented_listing() {
        assert_eq!(read_in_pieces(TEXT, TEXT.len()), Ok(expected()));
        assert_eq!(read_in_pieces("", 1), Ok(Vec::new()));
    }

    #[test]
    fn the_last_entry_must_end_with_its_line() {
        let cut = read_in_pieces("a: {}\nb:\n    ours:\n        - na", 5);
        assert!(matches!(cut, Err(RulerError::Exchange(ExchangeError::Unreadable(_)))), "{cut:?}");
    }

    proptest! {
        #[test]
        fn any_split_into_pieces_gives_the_same_tenants(length in 1..60_usize) {
            prop_assert_eq!(read_in_pieces(TEXT, length), Ok(expected()));
        }

        #[test]
        fn no_text_panics(text in "[a: {}\n\"-]{0,40}|\\PC{0,20}", length in 1..9_usize) {
            let _ = read_in_pieces(&text, length);
        }
    }
}
