//! Counting an expression byte by byte, with the tokens of Prometheus' lexer (`promql/parser/lex.go`).

use super::{Excess, ExpressionLimits, Measure};

/// Where in the text the scanner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between tokens.
    Plain,
    /// In a name, a number or a keyword.
    Word,
    /// In a string that this byte ends; a backslash takes the next byte with it.
    Quoted(u8),
    /// After a backslash in such a string.
    Escaped(u8),
    /// In a string in backquotes.
    Raw,
    /// From `#` to the end of the line.
    Comment,
}

/// What is between two parentheses.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// Subqueries inside one another in what was read last: what a `[1h:1m]` would apply to.
    operand: u8,
    /// The most so far.
    most: u8,
}

const LEVELS: usize = ExpressionLimits::MOST_DEPTH + 1;

/// The longest operator that is a word, `unless`.
const WORD: usize = 6;

/// Reads one expression.
pub struct Scanner {
    limits: ExpressionLimits,
    state: State,
    bytes: usize,
    operators: usize,
    nested_terms: usize,
    levels: [Level; LEVELS],
    /// Open parentheses.
    parentheses: usize,
    /// Signs in a row, which nest as parentheses do.
    signs: usize,
    in_braces: bool,
    in_brackets: bool,
    /// Whether a `-` here would be an operator between two operands and not a sign.
    after_operand: bool,
    /// The operator before this byte, for those of two bytes.
    operator: bool,
    /// The word that is being read, in lower case, if it is short.
    word: [u8; WORD],
    word_bytes: usize,
}

impl Scanner {
    /// At the beginning of an expression.
    pub fn new(limits: &ExpressionLimits) -> Self {
        Self {
            limits: *limits,
            state: State::Plain,
            bytes: 0,
            operators: 0,
            nested_terms: 0,
            levels: [Level::default(); LEVELS],
            parentheses: 0,
            signs: 0,
            in_braces: false,
            in_brackets: false,
            after_operand: false,
            operator: false,
            word: [0; WORD],
            word_bytes: 0,
        }
    }

    /// Begins another expression.
    pub fn reset(&mut self) {
        *self = Self::new(&self.limits);
    }

    /// Reads another byte.
    pub fn push(&mut self, byte: u8) -> Result<(), Excess> {
        self.bytes += 1;
        if self.bytes > self.limits.bytes {
            return Err(self.excess(Measure::Bytes));
        }
        match self.state {
            State::Quoted(quote) if byte == b'\\' => self.state = State::Escaped(quote),
            State::Quoted(quote) if byte == quote => self.state = State::Plain,
            State::Raw if byte == b'`' => self.state = State::Plain,
            State::Escaped(quote) => self.state = State::Quoted(quote),
            State::Comment if matches!(byte, b'\n' | b'\r') => self.state = State::Plain,
            State::Quoted(_) | State::Raw | State::Comment => {}
            State::Word if self.continues_word(byte) => self.keep(byte),
            State::Word => {
                self.end_word()?;
                self.token(byte)?;
            }
            State::Plain => self.token(byte)?,
        }
        Ok(())
    }

    /// Whether what comes next stands in no string and no comment.
    pub fn is_outside_strings(&self) -> bool {
        matches!(self.state, State::Plain | State::Word)
    }

    /// Ends the expression.
    pub fn end(&mut self) -> Result<(), Excess> {
        if self.state == State::Word { self.end_word() } else { Ok(()) }
    }

    /// `:` belongs to the names of recording rules, and separates in `[1h:1m]`; `.` and the sign of
    /// an exponent belong to numbers, where a sign too many is counted rather than missed.
    fn continues_word(&self, byte: u8) -> bool {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'_' | b'.')
            || !byte.is_ascii()
            || (byte == b':' && !self.in_brackets)
    }

    fn keep(&mut self, byte: u8) {
        if let Some(place) = self.word.get_mut(self.word_bytes) {
            *place = byte.to_ascii_lowercase();
        }
        self.word_bytes += 1;
    }

    fn end_word(&mut self) -> Result<(), Excess> {
        self.state = State::Plain;
        let word = self.word.get(..self.word_bytes).unwrap_or_default();
        let (is_set, is_offset) =
            (matches!(word, b"and" | b"or" | b"unless" | b"atan2"), word == b"offset");
        self.word_bytes = 0;
        if self.in_braces || !(is_set || is_offset) {
            return Ok(());
        }
        let operand = self.level().operand;
        self.count_operator()?;
        if is_offset {
            self.level().operand = operand;
        }
        Ok(())
    }

    /// The first byte of a token.
    fn token(&mut self, byte: u8) -> Result<(), Excess> {
        let second_of_two = std::mem::take(&mut self.operator);
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => Ok(()),
            b'#' => {
                self.state = State::Comment;
                Ok(())
            }
            b'"' | b'\'' => self.operand(State::Quoted(byte)),
            b'`' => self.operand(State::Raw),
            b'(' => self.open(),
            b')' => {
                self.close();
                Ok(())
            }
            b'{' => {
                self.in_braces = true;
                self.check_depth(1)?;
                self.count_term()
            }
            b'}' => {
                self.in_braces = false;
                self.end_operand();
                Ok(())
            }
            b'[' => {
                self.in_brackets = true;
                self.check_depth(1)
            }
            b']' => {
                self.in_brackets = false;
                self.end_operand();
                Ok(())
            }
            b',' => {
                self.next_operand();
                Ok(())
            }
            b':' if self.in_brackets => self.subquery(),
            b'+' | b'-' if !self.after_operand && !self.in_braces => self.sign(),
            // Of `>=`, `!=` and `==` the second byte is the first one's operator.
            b'=' | b'/' if second_of_two => Ok(()),
            b'+' | b'-' | b'*' | b'/' | b'%' | b'^' | b'=' | b'!' | b'<' | b'>' | b'~' | b'@' => {
                self.operator = true;
                if self.in_braces {
                    return Ok(());
                }
                // What comes after `@` belongs to the operand before it.
                let operand = self.level().operand;
                self.count_operator()?;
                if byte == b'@' {
                    self.level().operand = operand;
                }
                Ok(())
            }
            _ => {
                self.word_bytes = 0;
                self.keep(byte);
                self.operand(State::Word)
            }
        }
    }

    fn operand(&mut self, state: State) -> Result<(), Excess> {
        self.state = state;
        self.end_operand();
        if self.in_braces { Ok(()) } else { self.count_term() }
    }

    fn end_operand(&mut self) {
        self.after_operand = true;
        self.signs = 0;
    }

    fn open(&mut self) -> Result<(), Excess> {
        self.parentheses += 1;
        self.after_operand = false;
        self.check_depth(0)?;
        *self.level() = Level::default();
        Ok(())
    }

    fn close(&mut self) {
        let inside = self.level().most;
        self.parentheses = self.parentheses.saturating_sub(1);
        let level = self.level();
        level.operand = level.operand.max(inside);
        level.most = level.most.max(inside);
        self.end_operand();
    }

    fn subquery(&mut self) -> Result<(), Excess> {
        let level = self.level();
        level.operand = level.operand.saturating_add(1);
        level.most = level.most.max(level.operand);
        if usize::from(level.operand) > self.limits.subqueries {
            return Err(self.excess(Measure::Subqueries));
        }
        Ok(())
    }

    fn sign(&mut self) -> Result<(), Excess> {
        self.signs += 1;
        self.check_depth(0)?;
        self.operators += 1;
        if self.operators > self.limits.operators {
            return Err(self.excess(Measure::Operators));
        }
        Ok(())
    }

    /// Between two operands. A duration in brackets may be calculated, and is none.
    fn next_operand(&mut self) {
        self.after_operand = false;
        self.signs = 0;
        if !self.in_brackets {
            self.level().operand = 0;
        }
    }

    fn count_operator(&mut self) -> Result<(), Excess> {
        self.next_operand();
        self.operators += 1;
        if self.operators > self.limits.operators {
            return Err(self.excess(Measure::Operators));
        }
        Ok(())
    }

    fn count_term(&mut self) -> Result<(), Excess> {
        self.nested_terms += self.parentheses;
        if self.nested_terms > self.limits.nested_terms {
            return Err(self.excess(Measure::NestedTerms));
        }
        Ok(())
    }

    fn check_depth(&self, more: usize) -> Result<(), Excess> {
        if self.parentheses + self.signs + more > self.limits.depth {
            return Err(self.excess(Measure::Depth));
        }
        Ok(())
    }

    fn level(&mut self) -> &mut Level {
        let at = self.parentheses.min(LEVELS - 1);
        &mut self.levels[at]
    }

    fn excess(&self, measure: Measure) -> Excess {
        let limits = &self.limits;
        let most = match measure {
            Measure::Bytes => limits.bytes,
            Measure::Depth => limits.depth,
            Measure::Subqueries => limits.subqueries,
            Measure::Operators => limits.operators,
            Measure::NestedTerms => limits.nested_terms,
        };
        Excess { measure, most, at: self.bytes }
    }
}
