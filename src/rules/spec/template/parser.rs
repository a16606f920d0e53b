//! Parses tokens into a tree.

use super::lexer::{Piece, Spanned, Token, pieces};
use super::{Fault, MAX_DEPTH};

#[derive(Debug)]
pub(super) enum Node<'a> {
    /// Plain text, by its length in bytes.
    Text(usize),
    /// `{{ pipeline }}`
    Print(Pipeline<'a>),
    /// `{{ if | with | range pipeline }} … {{ else }} … {{ end }}`
    Block { kind: Kind, pipeline: Pipeline<'a>, body: Vec<Node<'a>>, otherwise: Vec<Node<'a>> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    If,
    With,
    Range,
}

/// Commands. Each gets the result of the one before as its last argument.
#[derive(Debug)]
pub(super) struct Pipeline<'a> {
    /// The variables that it sets, without `$`; two only in a `range`.
    pub(super) variables: Vec<&'a str>,
    /// Whether it declares them.
    pub(super) declares: bool,
    pub(super) commands: Vec<Vec<Operand<'a>>>,
    pub(super) at: usize,
}

/// A term, and fields of it.
#[derive(Debug)]
pub(super) struct Operand<'a> {
    pub(super) term: Term<'a>,
    pub(super) fields: Vec<&'a str>,
    pub(super) at: usize,
}

#[derive(Debug)]
pub(super) enum Term<'a> {
    Function(&'a str),
    Dot,
    Variable(&'a str),
    Text(String),
    /// A number, a character, a boolean or `nil`.
    Number,
    Nested(Box<Pipeline<'a>>),
}

pub(super) fn parse(text: &str) -> Result<Vec<Node<'_>>, Fault> {
    let mut parser = Parser { pieces: pieces(text)?.into_iter() };
    let (nodes, end) = parser.block(0, false)?;
    match end {
        End::Text => Ok(nodes),
        End::Block(at) | End::Else(at, _) => {
            Err(Fault::new(at, "\"end\" or \"else\" without a block"))
        }
    }
}

/// How a block ended.
enum End<'a> {
    Text,
    Block(usize),
    /// With the tokens of its action.
    Else(usize, Vec<Spanned<'a>>),
}

struct Parser<'a> {
    pieces: std::vec::IntoIter<Piece<'a>>,
}

impl<'a> Parser<'a> {
    fn block(&mut self, depth: usize, in_range: bool) -> Result<(Vec<Node<'a>>, End<'a>), Fault> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (tokens, at) = match piece {
                Piece::Text(bytes) => {
                    nodes.push(Node::Text(bytes));
                    continue;
                }
                Piece::Action(tokens, at) => (tokens, at),
            };
            let word = match tokens.first() {
                Some(Spanned { token: Token::Word(word), .. }) => *word,
                _ => "",
            };
            match word {
                "end" if tokens.len() == 1 => return Ok((nodes, End::Block(at))),
                "else" => return Ok((nodes, End::Else(at, tokens))),
                "break" | "continue" if tokens.len() == 1 && in_range => {}
                "break" | "continue" | "end" => {
                    return Err(Fault::new(at, format!("{word:?} is not allowed here")));
                }
                "define" | "template" | "block" => {
                    let reason = format!(
                        "{word:?} is not allowed in alert rules: templates that call templates have no \
                         bound; write its text out"
                    );
                    return Err(Fault::new(at, reason));
                }
                "if" | "with" | "range" => {
                    nodes.push(self.controlled(tokens, at, depth, in_range)?);
                }
                _ => nodes.push(Node::Print(pipeline(tokens, at, false)?)),
            }
        }
        Ok((nodes, End::Text))
    }

    /// Reads a block, from its keyword.
    fn controlled(
        &mut self,
        mut tokens: Vec<Spanned<'a>>,
        at: usize,
        depth: usize,
        in_range: bool,
    ) -> Result<Node<'a>, Fault> {
        if depth >= MAX_DEPTH {
            return Err(Fault::new(at, format!("blocks are nested more than {MAX_DEPTH} deep")));
        }
        let kind = match tokens.first().map(|first| &first.token) {
            Some(Token::Word("if")) => Kind::If,
            Some(Token::Word("with")) => Kind::With,
            _ => Kind::Range,
        };
        tokens.remove(0);
        let pipeline = pipeline(tokens, at, kind == Kind::Range)?;
        let unended = || Fault::new(at, "the block is not closed; write {{ end }}");
        let (body, end) = self.block(depth + 1, in_range || kind == Kind::Range)?;
        let otherwise = match end {
            End::Text => return Err(unended()),
            End::Block(_) => Vec::new(),
            End::Else(at, mut tokens) => {
                tokens.remove(0);
                match tokens.first().map(|first| &first.token) {
                    None => {
                        let (nodes, end) = self.block(depth + 1, in_range)?;
                        match end {
                            End::Block(_) => nodes,
                            End::Else(at, _) => {
                                return Err(Fault::new(at, "a block has at most one \"else\""));
                            }
                            End::Text => return Err(unended()),
                        }
                    }
                    // One end closes both blocks.
                    Some(Token::Word("if" | "with")) => {
                        vec![self.controlled(tokens, at, depth + 1, in_range)?]
                    }
                    Some(_) => {
                        return Err(Fault::new(at, "only an \"if\" may follow \"else\""));
                    }
                }
            }
        };
        Ok(Node::Block { kind, pipeline, body, otherwise })
    }
}

fn pipeline(tokens: Vec<Spanned<'_>>, at: usize, in_range: bool) -> Result<Pipeline<'_>, Fault> {
    let mut tokens = tokens.into_iter();
    let pipeline = Pipeline::read(&mut tokens, at, in_range, 0)?;
    match tokens.next() {
        None => Ok(pipeline),
        Some(extra) => Err(Fault::new(extra.at, "unmatched closing parenthesis")),
    }
}

type Tokens<'a> = std::vec::IntoIter<Spanned<'a>>;

impl<'a> Pipeline<'a> {
    /// Reads up to the end or a closing parenthesis, which is not consumed.
    fn read(
        tokens: &mut Tokens<'a>,
        at: usize,
        in_range: bool,
        depth: usize,
    ) -> Result<Self, Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::new(
                at,
                format!("parentheses are nested more than {MAX_DEPTH} deep"),
            ));
        }
        let (variables, declares) = variables(tokens, in_range)?;
        let mut commands: Vec<Vec<Operand<'a>>> = vec![Vec::new()];
        while tokens.as_slice().first().is_some_and(|next| next.token != Token::Close) {
            let Some(next) = tokens.next() else { break };
            let missing = || Fault::new(next.at, "a command is missing here");
            let command = commands.last_mut().ok_or_else(missing)?;
            if next.token == Token::Pipe {
                if command.is_empty() {
                    return Err(missing());
                }
                commands.push(Vec::new());
                continue;
            }
            if let Token::Field(name) = next.token {
                match command.last_mut() {
                    Some(before) if !next.spaced => before.fields.push(name),
                    _ => command.push(Operand { term: Term::Dot, fields: vec![name], at: next.at }),
                }
                continue;
            }
            let at = next.at;
            let term = match next.token {
                Token::Word("true" | "false" | "nil") | Token::Number => Term::Number,
                Token::Word(name) => Term::Function(name),
                Token::Dot => Term::Dot,
                Token::Variable(name) => Term::Variable(name),
                Token::Text(text) => Term::Text(text),
                Token::Open => {
                    let nested = Self::read(tokens, at, false, depth + 1)?;
                    if tokens.next().is_none() {
                        return Err(Fault::new(at, "the parenthesis is not closed"));
                    }
                    Term::Nested(Box::new(nested))
                }
                _ => return Err(Fault::new(at, "this is not allowed here")),
            };
            command.push(Operand { term, fields: Vec::new(), at });
        }
        if commands.last().is_none_or(Vec::is_empty) {
            return Err(Fault::new(at, "the action is empty; write a value, such as $value"));
        }
        Ok(Self { variables, declares, commands, at })
    }
}

/// `$x :=`, `$x =`, and in a `range` also `$i, $x :=`.
fn variables<'a>(tokens: &mut Tokens<'a>, in_range: bool) -> Result<(Vec<&'a str>, bool), Fault> {
    let ahead: Vec<&Token<'a>> = tokens.as_slice().iter().take(4).map(|next| &next.token).collect();
    let (count, declares) = match ahead.as_slice() {
        [Token::Variable(_), Token::Declare, ..] => (1, true),
        [Token::Variable(_), Token::Assign, ..] => (1, false),
        [Token::Variable(_), Token::Comma, Token::Variable(_), Token::Declare, ..] => (2, true),
        [Token::Variable(_), Token::Comma, Token::Variable(_), Token::Assign, ..] => (2, false),
        _ => return Ok((Vec::new(), false)),
    };
    let mut variables = Vec::new();
    for _ in 0..2 * count {
        let Some(next) = tokens.next() else { break };
        if count == 2 && !in_range {
            return Err(Fault::new(next.at, "only a \"range\" sets two variables"));
        }
        if let Token::Variable(name) = next.token {
            variables.push(name);
        }
    }
    Ok((variables, declares))
}
