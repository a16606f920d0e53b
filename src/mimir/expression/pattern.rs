//! The cost of a regular expression beyond its length: Go expands counted repetitions, and where groups capture it keeps
//! the positions of all of them for each state of the matcher.

/// Unicode classes (`\pL`) have hundreds of ranges.
const CLASS: u64 = 128;

/// The largest count that Go accepts; it rejects patterns with a larger one.
const MOST_COUNT: u64 = 1_000;

/// Reads a regular expression byte by byte. It does not know classes and quoting, so nothing can be
/// hidden in them; it may count repetitions that are none, but misses none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pattern {
    bytes: u64,
    added: u64,
    groups: u64,
    last: u8,
    is_escaped: bool,
    opening: Opening,
    count: Option<Count>,
}

/// What a parenthesis has opened, so far.
#[derive(Clone, Copy, Debug, Default)]
enum Opening {
    #[default]
    None,
    /// `(`
    Group,
    /// `(?`
    Special,
}

/// Between `{` and `}`.
#[derive(Clone, Copy, Debug)]
struct Count {
    /// The previous byte.
    of: u8,
    most: u64,
    number: u64,
}

impl Pattern {
    /// Reads a whole pattern.
    pub fn of(pattern: &[u8]) -> Self {
        let mut read = Self::default();
        for byte in pattern {
            read.push(*byte);
        }
        read
    }

    /// What repetitions add to its length.
    pub fn added(&self) -> u64 {
        self.added
    }

    /// Its weight: its length and what repetitions add.
    pub fn weight(&self) -> u64 {
        self.bytes.saturating_add(self.added)
    }

    /// Reads another byte and returns what it adds to the weight, without its own length.
    pub fn push(&mut self, byte: u8) -> u64 {
        let added = self.adds(byte);
        self.bytes += 1;
        self.added = self.added.saturating_add(added);
        self.opening = match (self.opening, byte) {
            // A parenthesis itself. (Where a backslash is one, so is the parenthesis behind it: between `\Q` and `\E`.)
            (_, b'(') if !self.is_escaped => {
                self.groups += 1;
                Opening::Group
            }
            // `(?:` and flags capture nothing, `(?P<name>` and `(?<name>` do.
            (Opening::Group, b'?') => {
                self.groups -= 1;
                Opening::Special
            }
            (Opening::Special, b'P' | b'<') => {
                self.groups += 1;
                Opening::None
            }
            _ => Opening::None,
        };
        self.is_escaped = byte == b'\\' && !self.is_escaped;
        self.last = byte;
        added
    }

    /// The positions that Go keeps where a text is searched for what groups match: groups times states, with counted
    /// repetitions written out. Each takes 16 bytes, which are copied for each character of the text.
    pub fn captures(&self) -> u64 {
        self.groups.saturating_mul(self.weight())
    }

    fn adds(&mut self, byte: u8) -> u64 {
        match (self.count.take(), byte) {
            (_, b'{') => {
                self.count = Some(Count { of: self.last, most: 0, number: 0 });
                0
            }
            (Some(count), b'0'..=b'9') => {
                let number = count.number.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
                self.count = Some(Count { number, ..count });
                0
            }
            (Some(count), b',') => {
                self.count = Some(Count { most: count.most.max(count.number), number: 0, ..count });
                0
            }
            (Some(count), b'}') => {
                let times = count.most.max(count.number);
                // A closing parenthesis closes at most all that was read so far.
                let is_one = !matches!(count.of, b')' | b'}' | b'*' | b'+' | b'?');
                let what = if is_one { 1 } else { self.bytes.saturating_add(self.added) };
                if times > MOST_COUNT { 0 } else { what.saturating_mul(times.saturating_sub(1)) }
            }
            (_, b'p' | b'P') if self.last == b'\\' => CLASS,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn repetitions_are_written_out() {
        for (pattern, at_least, at_most) in [
            ("", 0, 0),
            ("abc.*|[a-z]+", 12, 12),
            (".{1000}", 1_000, 1_010),
            ("[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", 30, 200),
            ("(.{100}){10}", 1_000, 1_200),
            ("([(]a{90}){10}", 900, 1_300),
            ("(\\Q(\\Ea{90}){10}", 900, 1_500),
            ("a{3,500}", 500, 510),
            ("a{500,}", 500, 510),
            ("/path/{2000}", 12, 12),
            ("x{", 2, 2),
            ("\\pL\\p{Greek}", 256, 300),
        ] {
            let weight = Pattern::of(pattern.as_bytes()).weight();
            assert!((at_least..=at_most).contains(&weight), "{pattern}: {weight}");
        }
    }

    #[test]
    fn groups_that_capture_are_counted() {
        for (pattern, groups) in [
            ("", 0),
            ("a|b", 0),
            ("(a)(b)", 2),
            ("((a)b)", 2),
            ("(?:a)(?i)(?s-i:b)", 0),
            ("(?P<a>b)(?<c>d)", 2),
            ("(?:(a))", 1),
            ("(a)?(b)*", 2),
            ("(?", 0),
            ("?(<)", 1),
            ("\\(a\\)|\\(?b", 0),
            ("\\\\(a)", 1),
            ("\\\\\\(a(?:b)", 0),
            ("\\Q\\E(a)", 1),
        ] {
            let read = Pattern::of(pattern.as_bytes());
            assert_eq!(read.captures(), groups * pattern.len() as u64, "{pattern}");
        }
        assert_eq!(Pattern::of(b"(.{100})").captures(), 8 + 99);
        assert_eq!(Pattern::of("(.?)".repeat(1_000).as_bytes()).captures(), 4_000_000);
    }
}
