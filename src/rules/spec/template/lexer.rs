//! Splits a template into tokens as Go's `text/template/parse` does.

use super::Fault;

pub(super) const OPEN: &str = "{{";
const CLOSE: &str = "}}";

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// A keyword or a function.
    Word(&'a str),
    /// `.name`
    Field(&'a str),
    /// `.`
    Dot,
    /// `$` or `$name`, without the `$`.
    Variable(&'a str),
    /// A string, decoded.
    Text(String),
    /// A number or a character.
    Number,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    Pipe,
    Open,
    Close,
    Comma,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spanned<'a> {
    pub(super) token: Token<'a>,
    pub(super) at: usize,
    /// Whether white space precedes it: `.a.b` is one operand, `.a .b` are two.
    pub(super) spaced: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece<'a> {
    /// Plain text, by its length in bytes.
    Text(usize),
    /// The tokens between `{{` and `}}`.
    Action(Vec<Spanned<'a>>, usize),
}

/// Text that Go would trim counts as text.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece<'_>>, Fault> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find(OPEN) {
        if found > 0 {
            pieces.push(Piece::Text(found));
        }
        let begun = at + found;
        let mut lexer = Lexer { text, at: begun + OPEN.len() };
        // A trim marker is a `-` and white space: `{{-3}}` is a number.
        let mut rest = lexer.rest().bytes();
        if rest.next() == Some(b'-') && rest.next().is_some_and(is_space) {
            lexer.at += 1;
            let after =
                lexer.rest().trim_start_matches(|c: char| c.is_ascii() && is_space(c as u8));
            // Go looks for a comment after one space only; otherwise the `/` is refused there.
            if after.starts_with("/*") {
                lexer.at = text.len() - after.len();
            }
        }
        if lexer.rest().starts_with("/*") {
            at = lexer.comment(begun)?;
            continue;
        }
        let tokens = lexer.action(begun)?;
        at = lexer.at;
        pieces.push(Piece::Action(tokens, begun));
    }
    if at < text.len() {
        pieces.push(Piece::Text(text.len() - at));
    }
    Ok(pieces)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The position after the end of the action, if it ends here.
    fn close(&self) -> Option<usize> {
        let rest = self.rest();
        if rest.starts_with(CLOSE) {
            return Some(self.at + CLOSE.len());
        }
        let trimming = rest.bytes().next().is_some_and(is_space) && rest[1..].starts_with("-}}");
        trimming.then(|| self.at + "  }}".len())
    }

    fn comment(&mut self, begun: usize) -> Result<usize, Fault> {
        let end = self.rest().find("*/");
        self.at +=
            end.ok_or_else(|| Fault::new(begun, "the comment is not closed; write */}}"))? + 2;
        self.close()
            .ok_or_else(|| Fault::new(begun, "a comment must be the whole action: {{/* … */}}"))
    }

    fn action(&mut self, begun: usize) -> Result<Vec<Spanned<'a>>, Fault> {
        let mut tokens = Vec::new();
        let mut spaced = true;
        loop {
            if let Some(end) = self.close() {
                self.at = end;
                return Ok(tokens);
            }
            let at = self.at;
            let Some(c) = self.rest().chars().next() else {
                return Err(Fault::new(begun, "the action is not closed; write }}"));
            };
            if c.is_ascii() && is_space(c as u8) {
                self.at += 1;
                spaced = true;
                continue;
            }
            let token = self.token(c)?;
            tokens.push(Spanned { token, at, spaced });
            spaced = false;
        }
    }

    fn token(&mut self, c: char) -> Result<Token<'a>, Fault> {
        let begun = self.at;
        let next = self.rest()[c.len_utf8()..].chars().next();
        let single = match c {
            '|' => Some(Token::Pipe),
            '(' => Some(Token::Open),
            ')' => Some(Token::Close),
            ',' => Some(Token::Comma),
            '=' => Some(Token::Assign),
            _ => None,
        };
        if let Some(token) = single {
            self.at += 1;
            return Ok(token);
        }
        match c {
            ':' if next == Some('=') => {
                self.at += 2;
                Ok(Token::Declare)
            }
            '"' | '\'' => self.quoted(c),
            '`' => {
                let inside = &self.rest()[1..];
                let end = inside.find('`');
                let end = end.ok_or_else(|| Fault::new(begun, "the string is not closed"))?;
                self.at += end + 2;
                // As in Go source.
                Ok(Token::Text(inside[..end].replace('\r', "")))
            }
            '$' => {
                self.at += 1;
                Ok(Token::Variable(self.word()))
            }
            '.' if !next.is_some_and(|next| next.is_ascii_digit()) => {
                self.at += 1;
                let name = self.word();
                Ok(if name.is_empty() { Token::Dot } else { Token::Field(name) })
            }
            '.' | '+' | '-' | '0'..='9' => {
                self.number();
                Ok(Token::Number)
            }
            _ if is_word(c) => Ok(Token::Word(self.word())),
            _ => Err(Fault::new(begun, format!("the character {c:?} has no meaning in an action"))),
        }
    }

    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let word = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    /// Anything that looks like a number; Mimir checks it.
    fn number(&mut self) {
        let mut before = None;
        for c in self.rest().chars() {
            let sign =
                matches!(c, '+' | '-') && matches!(before, None | Some('e' | 'E' | 'p' | 'P'));
            if !(sign || is_word(c) || c == '.') {
                break;
            }
            self.at += c.len_utf8();
            before = Some(c);
        }
    }

    /// Reads a string or a character with Go's escapes.
    fn quoted(&mut self, quote: char) -> Result<Token<'a>, Fault> {
        let begun = self.at;
        self.at += 1;
        let mut decoded = Vec::new();
        loop {
            let c = match self.rest().chars().next() {
                Some(c) if c != '\n' => c,
                _ => return Err(Fault::new(begun, "the string is not closed on its line")),
            };
            self.at += c.len_utf8();
            if c == quote {
                break;
            }
            if c == '\\' {
                self.escape(&mut decoded).ok_or_else(|| {
                    Fault::new(
                        begun,
                        "the string has an invalid escape; write \\\\ for a backslash",
                    )
                })?;
            } else {
                decoded.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        if quote == '\'' {
            return Ok(Token::Number);
        }
        Ok(Token::Text(String::from_utf8_lossy(&decoded).into_owned()))
    }

    fn escape(&mut self, decoded: &mut Vec<u8>) -> Option<()> {
        let c = self.rest().chars().next()?;
        self.at += c.len_utf8();
        let plain = match c {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' | '\'' | '"' => u8::try_from(c).ok(),
            _ => None,
        };
        if let Some(plain) = plain {
            decoded.push(plain);
            return Some(());
        }
        let (digits, radix, first) = match c {
            'x' => (2, 16, self.at),
            'u' => (4, 16, self.at),
            'U' => (8, 16, self.at),
            '0'..='7' => (3, 8, self.at - 1),
            _ => return None,
        };
        let code = self.text.get(first..first + digits)?;
        let code = u32::from_str_radix(code, radix).ok()?;
        self.at = first + digits;
        if matches!(c, 'u' | 'U') {
            let c = char::from_u32(code)?;
            decoded.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            decoded.push(u8::try_from(code).ok()?);
        }
        Some(())
    }
}
