//! The structure of JSON (RFC 8259).
//!
//! Strict where Mimir's decoder may not be: it reads on after some faults, so what nests is sure only in a text
//! without any. Names, numbers and escapes are Mimir's to check.

use super::{MOST_DEPTH, MOST_PARTS, OtlpFault};

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Value,
    /// Or the end of the list that has just begun.
    FirstValue,
    Key,
    /// Or the end of the object that has just begun.
    FirstKey,
    Colon,
    /// A comma, or the end of what is open.
    Next,
    /// White space.
    Nothing,
}

/// A value that goes over several bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    None,
    Text,
    /// Behind a backslash.
    Escape,
    /// A number, or `true`, `false` or `null`.
    Word,
}

/// The lists and objects that are open, and what comes next.
pub(super) struct Json {
    /// Whether each of them is an object.
    open: Vec<bool>,
    expect: Expect,
    within: Within,
    parts: u32,
}

impl Json {
    pub(super) fn new() -> Self {
        Self { open: Vec::new(), expect: Expect::Value, within: Within::None, parts: 0 }
    }

    pub(super) fn follow(&mut self, mut piece: &[u8]) -> Result<(), OtlpFault> {
        loop {
            if self.within == Within::Text {
                let Some(end) = memchr::memchr2(b'"', b'\\', piece) else { return Ok(()) };
                self.within = if piece[end] == b'"' { Within::None } else { Within::Escape };
                piece = &piece[end + 1..];
            }
            let Some((byte, rest)) = piece.split_first() else { return Ok(()) };
            piece = rest;
            self.take(*byte)?;
        }
    }

    fn take(&mut self, byte: u8) -> Result<(), OtlpFault> {
        match self.within {
            Within::Escape => {
                self.within = Within::Text;
                return Ok(());
            }
            Within::Word if is_of_word(byte) => return Ok(()),
            Within::Word | Within::None | Within::Text => self.within = Within::None,
        }
        let is_object = self.open.last().copied();
        match (self.expect, byte) {
            (_, b' ' | b'\t' | b'\r' | b'\n') => {}
            (Expect::Value | Expect::FirstValue, b'{') => self.enter(true, Expect::FirstKey)?,
            (Expect::Value | Expect::FirstValue, b'[') => self.enter(false, Expect::FirstValue)?,
            (Expect::Value | Expect::FirstValue, b'"') => {
                (self.within, self.expect) = (Within::Text, self.after_value());
            }
            (Expect::Value | Expect::FirstValue, word) if is_of_word(word) => {
                (self.within, self.expect) = (Within::Word, self.after_value());
            }
            (Expect::Key | Expect::FirstKey, b'"') => {
                (self.within, self.expect) = (Within::Text, Expect::Colon);
            }
            (Expect::Colon, b':') => self.expect = Expect::Value,
            (Expect::Next, b',') if is_object == Some(true) => self.expect = Expect::Key,
            (Expect::Next, b',') => self.expect = Expect::Value,
            (Expect::FirstKey | Expect::Next, b'}') if is_object == Some(true) => self.leave(),
            (Expect::FirstValue | Expect::Next, b']') if is_object == Some(false) => self.leave(),
            _ => return Err(OtlpFault::NotJson),
        }
        Ok(())
    }

    fn enter(&mut self, is_object: bool, expect: Expect) -> Result<(), OtlpFault> {
        self.parts += 1;
        if self.parts > MOST_PARTS {
            return Err(OtlpFault::TooManyParts);
        }
        if self.open.len() >= MOST_DEPTH {
            return Err(OtlpFault::TooDeep);
        }
        self.open.push(is_object);
        self.expect = expect;
        Ok(())
    }

    fn leave(&mut self) {
        self.open.pop();
        self.expect = self.after_value();
    }

    fn after_value(&self) -> Expect {
        if self.open.is_empty() { Expect::Nothing } else { Expect::Next }
    }
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}
