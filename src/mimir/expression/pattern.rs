//! The cost of a regular expression beyond its length: Go expands counted repetitions.

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
    last: u8,
    count: Option<Count>,
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
    /// The weight of a whole pattern: its length and what repetitions add.
    pub fn weight(pattern: &str) -> u64 {
        let mut read = Self::default();
        for byte in pattern.bytes() {
            read.push(byte);
        }
        read.bytes.saturating_add(read.added)
    }

    /// Reads another byte and returns what it adds to the weight, without its own length.
    pub fn push(&mut self, byte: u8) -> u64 {
        let added = self.adds(byte);
        self.bytes += 1;
        self.added = self.added.saturating_add(added);
        self.last = byte;
        added
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
            let weight = Pattern::weight(pattern);
            assert!((at_least..=at_most).contains(&weight), "{pattern}: {weight}");
        }
    }
}
