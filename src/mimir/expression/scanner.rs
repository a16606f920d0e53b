//! Counts the tokens of an expression byte by byte, as Prometheus' lexer reads them
//! (`promql/parser/lex.go`).

use super::pattern::Pattern;
use super::{
    Excess, ExpressionLimits, LABEL, MOST_CAPTURES, MOST_PATTERN_WEIGHT, Measure, subquery,
};

/// The position in the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between tokens.
    Plain,
    /// In a name, a number or a keyword.
    Word,
    /// In a string that ends with this byte; a backslash escapes the next byte.
    Quoted(u8),
    /// After a backslash in such a string.
    Escaped(u8),
    /// In the digits of an escape: `\x24`, `\044`, `\u0024`.
    Code { quote: u8, base: u8, left: u8, value: u32 },
    /// In a string in backquotes.
    Raw,
    /// From `#` to the end of the line.
    Comment,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Call {
    /// Only parentheses.
    #[default]
    Plain,
    Replace,
    Join,
    Other,
}

/// The contents of one pair of parentheses.
#[derive(Clone, Copy, Debug)]
struct Level {
    call: Call,
    /// How deep subqueries nest in the last operand: a following `[1h:1m]` would apply to it.
    operand: u8,
    /// The deepest so far.
    most: u8,
    /// Points of the subqueries in the last operand.
    points: u64,
    /// And in the operands before it.
    points_before: u64,
    arguments_before: u64,
    /// `$` in the texts of this argument,
    references: u64,
    /// and in those of the third, which `label_replace` writes.
    replacement: u64,
    /// Bytes of all texts.
    text: u64,
    /// The longest value that a label can have.
    longest: u64,
    /// Bytes that `label_replace` and `label_join` can have written to one series.
    written: u64,
}

impl Default for Level {
    fn default() -> Self {
        Self {
            call: Call::Plain,
            operand: 0,
            most: 0,
            points: 0,
            points_before: 0,
            arguments_before: 0,
            references: 0,
            replacement: 0,
            text: 0,
            longest: LABEL,
            written: 0,
        }
    }
}

impl Level {
    fn end_argument(&mut self) {
        let references = std::mem::take(&mut self.references);
        if self.arguments_before == 2 {
            self.replacement = references;
        }
        self.arguments_before += 1;
    }

    /// The longest value that the call writes to a label.
    fn writes(&self) -> u64 {
        match self.call {
            Call::Replace => {
                self.replacement.saturating_mul(self.longest).saturating_add(self.text)
            }
            Call::Join => {
                let sources = self.arguments_before.saturating_sub(3);
                sources.saturating_mul(self.longest.saturating_add(self.text))
            }
            Call::Plain | Call::Other => 0,
        }
    }
}

const LEVELS: usize = ExpressionLimits::MOST_DEPTH + 1;

/// The longest word that matters, `label_replace`.
const WORD: usize = 13;

/// The contents of brackets: two durations.
const BRACKETS: usize = 48;

pub struct Scanner {
    limits: ExpressionLimits,
    state: State,
    /// Expressions that were begun by [`Scanner::begin_another`].
    begun: usize,
    bytes: usize,
    operators: usize,
    nested_terms: usize,
    /// One more than the most parentheses that were open at the same time.
    levels: Vec<Level>,
    parentheses: usize,
    /// Consecutive signs, which nest as parentheses do.
    signs: usize,
    in_braces: bool,
    in_brackets: bool,
    /// Whether a `-` here is an operator between two operands, not a sign.
    after_operand: bool,
    /// Whether the previous byte was an operator, for those of two bytes.
    operator: bool,
    /// The current word in lower case, if it is short.
    word: [u8; WORD],
    word_bytes: usize,
    called: Call,
    /// The contents of the brackets, without white space.
    brackets: [u8; BRACKETS],
    bracket_bytes: usize,
    has_colon: bool,
    /// Whether the last operator in braces was `=`.
    is_equal: bool,
    /// Bytes of the current text.
    text_bytes: u64,
    /// The current text as a regular expression.
    pattern: Pattern,
    /// What counted repetitions add to all texts.
    pattern_weight: u64,
    /// What groups of the texts before this one capture, outside of braces and inside.
    captures: [u64; 2],
    /// Those of this one.
    text_captures: [u64; 2],
}

impl Scanner {
    pub fn new(limits: &ExpressionLimits) -> Self {
        Self {
            limits: *limits,
            state: State::Plain,
            begun: 0,
            bytes: 0,
            operators: 0,
            nested_terms: 0,
            levels: vec![Level::default()],
            parentheses: 0,
            signs: 0,
            in_braces: false,
            in_brackets: false,
            after_operand: false,
            operator: false,
            word: [0; WORD],
            word_bytes: 0,
            called: Call::Plain,
            brackets: [0; BRACKETS],
            bracket_bytes: 0,
            has_colon: false,
            is_equal: false,
            text_bytes: 0,
            pattern: Pattern::default(),
            pattern_weight: 0,
            captures: [0; 2],
            text_captures: [0; 2],
        }
    }

    /// Begins another expression of the same request. What patterns cost adds up.
    pub fn begin_another(&mut self) -> Result<(), Excess> {
        let begun = self.begun + 1;
        if begun > self.limits.count {
            return Err(self.excess(Measure::Count));
        }
        let pattern_weight = self.pattern_weight;
        self.end_captures();
        let captures = self.captures;
        *self = Self { begun, pattern_weight, captures, ..Self::new(&self.limits) };
        Ok(())
    }

    fn end_captures(&mut self) {
        for (all, text) in self.captures.iter_mut().zip(std::mem::take(&mut self.text_captures)) {
            *all = all.saturating_add(text);
        }
    }

    pub fn push(&mut self, byte: u8) -> Result<(), Excess> {
        self.bytes += 1;
        if self.bytes > self.limits.bytes {
            return Err(self.excess(Measure::Bytes));
        }
        let is_content = !(is_space(byte) || matches!(byte, b']' | b'#'));
        if self.in_brackets && self.is_outside_strings() && is_content {
            if let Some(place) = self.brackets.get_mut(self.bracket_bytes) {
                *place = byte;
            }
            self.bracket_bytes += 1;
        }
        match self.state {
            State::Quoted(quote) => self.quoted(quote, byte),
            State::Escaped(quote) => self.escaped(quote, byte),
            State::Code { quote, base, left, value } => self.code(quote, base, left, value, byte),
            State::Raw if byte == b'`' => {
                self.state = State::Plain;
                Ok(())
            }
            State::Raw => self.text(byte),
            State::Comment => {
                if matches!(byte, b'\n' | b'\r') {
                    self.state = State::Plain;
                }
                Ok(())
            }
            State::Word if self.continues_word(byte) => {
                self.keep(byte);
                Ok(())
            }
            State::Word => {
                self.end_word()?;
                self.token(byte)
            }
            State::Plain => self.token(byte),
        }
    }

    fn quoted(&mut self, quote: u8, byte: u8) -> Result<(), Excess> {
        if byte == b'\\' {
            self.state = State::Escaped(quote);
        } else if byte == quote {
            self.state = State::Plain;
        } else {
            return self.text(byte);
        }
        Ok(())
    }

    fn escaped(&mut self, quote: u8, byte: u8) -> Result<(), Excess> {
        let code = |base, left, value| State::Code { quote, base, left, value };
        self.state = match byte {
            b'x' => code(16, 2, 0),
            b'u' => code(16, 4, 0),
            b'U' => code(16, 8, 0),
            b'0'..=b'7' => code(8, 2, u32::from(byte - b'0')),
            _ => State::Quoted(quote),
        };
        match (self.state, byte) {
            (State::Code { .. }, _) => Ok(()),
            (_, b'\\' | b'"' | b'\'') => self.text(byte),
            _ => self.text(b'\n'),
        }
    }

    /// Mimir ends the string at a byte that is not a digit; here the byte is read as it is.
    fn code(&mut self, quote: u8, base: u8, left: u8, value: u32, byte: u8) -> Result<(), Excess> {
        let Some(digit) = char::from(byte).to_digit(u32::from(base)) else {
            self.state = State::Quoted(quote);
            return self.quoted(quote, byte);
        };
        let value = value.wrapping_mul(u32::from(base)).wrapping_add(digit);
        if left > 1 {
            self.state = State::Code { quote, base, left: left - 1, value };
            return Ok(());
        }
        self.state = State::Quoted(quote);
        self.text(u8::try_from(value).unwrap_or(u8::MAX))
    }

    /// Counts a byte of a string, after decoding escapes. The string may be a pattern or a
    /// replacement.
    fn text(&mut self, byte: u8) -> Result<(), Excess> {
        self.text_bytes += 1;
        let (in_braces, is_equal, bytes) = (self.in_braces, self.is_equal, self.text_bytes);
        let level = self.level();
        if !in_braces {
            level.text += 1;
            level.references += u64::from(byte == b'$');
        } else if is_equal {
            // `absent` makes labels of them.
            level.longest = level.longest.max(bytes);
        }
        self.pattern_weight = self.pattern_weight.saturating_add(self.pattern.push(byte));
        if self.pattern_weight > MOST_PATTERN_WEIGHT {
            return Err(self.excess(Measure::Patterns));
        }
        let place = usize::from(in_braces);
        self.text_captures[place] = self.pattern.captures();
        let captures = self.captures[place].saturating_add(self.text_captures[place]);
        if captures > MOST_CAPTURES[place] {
            return Err(self.excess(Measure::Captures));
        }
        Ok(())
    }

    /// Whether the next byte is outside strings and comments.
    pub fn is_outside_strings(&self) -> bool {
        matches!(self.state, State::Plain | State::Word)
    }

    /// Ends the expression.
    pub fn end(&mut self) -> Result<(), Excess> {
        if self.state == State::Word { self.end_word() } else { Ok(()) }
    }

    /// `:` is part of the names of recording rules, and a separator in `[1h:1m]`; `.` and the sign
    /// of an exponent are part of numbers. A sign too many is counted rather than missed.
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
        self.called = match word {
            b"label_replace" => Call::Replace,
            b"label_join" => Call::Join,
            _ => Call::Other,
        };
        self.word_bytes = 0;
        if self.in_braces || !(is_set || is_offset) {
            return Ok(());
        }
        let level = *self.level();
        self.count_operator()?;
        if is_offset {
            *self.level() = level;
        }
        Ok(())
    }

    /// The first byte of a token.
    fn token(&mut self, byte: u8) -> Result<(), Excess> {
        let second_of_two = std::mem::take(&mut self.operator);
        if !(is_space(byte) || matches!(byte, b'#' | b'(')) {
            self.called = Call::Plain;
        }
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => Ok(()),
            b'#' => {
                self.state = State::Comment;
                Ok(())
            }
            b'"' | b'\'' => self.operand(State::Quoted(byte)),
            b'`' => self.operand(State::Raw),
            b'(' => self.open(),
            b')' => self.close(),
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
                self.bracket_bytes = 0;
                self.has_colon = false;
                self.check_depth(1)
            }
            b']' => {
                self.in_brackets = false;
                self.end_operand();
                self.end_brackets()
            }
            b',' => {
                self.next_operand();
                if !(self.in_brackets || self.in_braces) {
                    self.level().end_argument();
                }
                Ok(())
            }
            b':' if self.in_brackets => self.subquery(),
            b'+' | b'-' if !self.after_operand && !self.in_braces => self.sign(),
            // The second byte of `>=`, `!=` and `==` belongs to the same operator.
            b'=' | b'/' if second_of_two => Ok(()),
            b'+' | b'-' | b'*' | b'/' | b'%' | b'^' | b'=' | b'!' | b'<' | b'>' | b'~' | b'@' => {
                self.operator = true;
                if self.in_braces {
                    self.is_equal = byte == b'=';
                    return Ok(());
                }
                // What follows `@` belongs to the operand before it.
                let level = *self.level();
                self.count_operator()?;
                if byte == b'@' {
                    *self.level() = level;
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
        self.end_captures();
        self.pattern = Pattern::default();
        self.text_bytes = 0;
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
        if self.parentheses >= self.levels.len() && self.levels.len() < LEVELS {
            self.levels.push(Level::default());
        }
        *self.level() = Level { call: std::mem::take(&mut self.called), ..Level::default() };
        Ok(())
    }

    fn close(&mut self) -> Result<(), Excess> {
        let mut inside = *self.level();
        let references = inside.references;
        inside.end_argument();
        let writes = inside.writes();
        let written = inside.written.saturating_add(writes);
        // One that closes nothing would count the same text again. Mimir refuses it.
        let closes = self.parentheses > 0;
        self.parentheses = self.parentheses.saturating_sub(1);
        let level = self.level();
        level.operand = level.operand.max(inside.most);
        level.most = level.most.max(inside.most);
        level.points =
            level.points.saturating_add(inside.points).saturating_add(inside.points_before);
        level.longest = level.longest.max(inside.longest).max(writes);
        level.written = level.written.max(written);
        if closes && inside.call == Call::Plain {
            // `("$1")` is the same text as `"$1"`.
            level.references += references;
            level.text += inside.text;
        }
        self.end_operand();
        if written.max(inside.longest) > self.limits.label_bytes as u64 {
            return Err(self.excess(Measure::LabelBytes));
        }
        self.check_points()
    }

    fn end_brackets(&mut self) -> Result<(), Excess> {
        if !self.has_colon {
            return Ok(());
        }
        let most = self.limits.subquery_points as u64;
        let read = self.brackets.get(..self.bracket_bytes).and_then(subquery::points);
        let is_too_fine = read.is_none_or(|read| read.in_a_day > most);
        let points = read.map_or(u64::MAX, |read| read.points);
        let level = self.level();
        level.points = level.points.max(1).saturating_mul(points);
        if is_too_fine {
            return Err(self.excess(Measure::SubqueryPoints));
        }
        self.check_points()
    }

    fn check_points(&mut self) -> Result<(), Excess> {
        let level = self.level();
        if level.points.saturating_add(level.points_before) > self.limits.subquery_points as u64 {
            return Err(self.excess(Measure::SubqueryPoints));
        }
        Ok(())
    }

    fn subquery(&mut self) -> Result<(), Excess> {
        self.has_colon = true;
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

    /// Between two operands. Operators in brackets belong to a calculated duration.
    fn next_operand(&mut self) {
        self.after_operand = false;
        self.signs = 0;
        if !self.in_brackets {
            let level = self.level();
            level.operand = 0;
            level.points_before =
                level.points_before.saturating_add(std::mem::take(&mut level.points));
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
        let at = self.parentheses.min(self.levels.len() - 1);
        &mut self.levels[at]
    }

    fn excess(&self, measure: Measure) -> Excess {
        let limits = &self.limits;
        let most = match measure {
            Measure::Count => limits.count,
            Measure::Bytes => limits.bytes,
            Measure::Depth => limits.depth,
            Measure::Subqueries => limits.subqueries,
            Measure::Operators => limits.operators,
            Measure::NestedTerms => limits.nested_terms,
            Measure::SubqueryPoints => limits.subquery_points,
            Measure::LabelBytes => limits.label_bytes,
            Measure::Patterns => usize::try_from(MOST_PATTERN_WEIGHT).unwrap_or(usize::MAX),
            Measure::Captures => {
                let most = MOST_CAPTURES[usize::from(self.in_braces)];
                usize::try_from(most).unwrap_or(usize::MAX)
            }
        };
        Excess { measure, most, at: self.bytes }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
