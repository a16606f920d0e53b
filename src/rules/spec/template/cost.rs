//! The most that a template can produce, found without running it.
//!
//! Every value has a bound on its length, every call one on what it gives ([`super::functions`]). A
//! loop's body is read again and again until no variable can become longer; if one always can, the
//! loop is refused. Bounds err upwards: both branches of an `if` are charged, and a variable that is
//! set once keeps the longest of all that it was.

use std::rc::Rc;

use super::functions;
use super::parser::{Kind, Node, Operand, Pipeline, Term};
use super::{Budget, Fault, MAX_PRODUCED_BYTES, MAX_QUERIES};
use crate::mimir::expression;

/// A label's value, by Mimir's default limit; also an address of the operator's.
pub(super) const LABEL: u64 = 2_048;
/// All labels of a series, as they are printed.
const LABELS: u64 = 8 << 10;
/// A value as it is printed: a number, or a native histogram.
pub(super) const VALUE: u64 = 1_024;
/// A number that a function gives.
pub(super) const NUMBER: u64 = 64;
/// A sample, which is printed with its labels.
pub(super) const SAMPLE: u64 = LABELS + VALUE;
/// One series of a query's result, which is printed as addresses.
const ADDRESS: u64 = 24;

/// How often a loop goes round that runs over labels.
const TURNS_OVER_LABELS: u64 = 32;
/// A loop's body is read so often at most before its variables are said to grow.
const PASSES: usize = 8;
/// The bodies of a loop and of those within it, all together.
const ALL_PASSES: usize = 16;
/// Variables that are known at one place, with those that Prometheus declares.
const MOST_VARIABLES: usize = 40;
/// Nodes and operands of all templates of a rule that are read, with all passes of all loops.
pub(super) const MOST_STEPS: usize = 20_000;

/// What kind of value it is, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Number,
    /// What the template begins with: `.Labels`, `.Value`, …
    Data,
    Labels,
    /// The result of a query.
    Series,
    /// One of them.
    Sample,
    Time,
    /// Of `args`, or not known.
    Any,
}

/// What is known of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) shape: Shape,
    /// The most bytes that it is when printed.
    pub(super) bytes: u64,
    /// What it is, if that is known.
    pub(super) constant: Option<Rc<str>>,
    /// What stands for it when it is measured as an expression: itself, or the same with constants
    /// in place of data that cannot change its structure.
    pub(super) expression: Option<Rc<str>>,
    /// Of the result of a query: how many series it has at most, if the query says so.
    pub(super) series: Option<u64>,
}

impl Value {
    pub(super) fn new(shape: Shape, bytes: u64) -> Self {
        Self { shape, bytes, constant: None, expression: None, series: None }
    }

    pub(super) fn text(bytes: u64) -> Self {
        Self::new(Shape::Text, bytes)
    }

    pub(super) fn constant(text: &str) -> Self {
        let known = Some(Rc::from(text));
        Self { constant: known.clone(), expression: known, ..Self::text(text.len() as u64) }
    }

    /// The result of a query. Without a bound it can be handed on, but not printed.
    fn series(most: Option<u64>) -> Self {
        let bytes = most.map_or(MAX_PRODUCED_BYTES + 1, |most| most.saturating_mul(ADDRESS));
        Self { series: most, ..Self::new(Shape::Series, bytes) }
    }

    pub(super) fn number() -> Self {
        Self::new(Shape::Number, NUMBER)
    }

    /// What is either of both.
    pub(super) fn or(&self, other: &Self) -> Self {
        let same = |one: &Option<Rc<str>>, other| if one == other { one.clone() } else { None };
        Self {
            shape: if self.shape == other.shape { self.shape } else { Shape::Any },
            bytes: self.bytes.max(other.bytes),
            constant: same(&self.constant, &other.constant),
            expression: same(&self.expression, &other.expression),
            series: self.series.zip(other.series).map(|(one, other)| one.max(other)),
        }
    }

    fn field(&self, name: &str) -> Self {
        match (self.shape, name) {
            (Shape::Data | Shape::Sample, "Labels") | (Shape::Data, "ExternalLabels") => {
                Self::new(Shape::Labels, LABELS)
            }
            (Shape::Data | Shape::Sample, "Value") => Self::new(Shape::Number, VALUE),
            (Shape::Data, "ExternalURL") | (Shape::Labels, _) => Self::text(LABEL),
            (Shape::Time, _) => Self::new(Shape::Time, NUMBER),
            // Of a native histogram.
            (Shape::Number, _) => Self::new(Shape::Any, VALUE),
            _ => Self::new(Shape::Any, self.bytes.max(LABEL)),
        }
    }
}

/// Charges a template to a rule's budget.
pub(super) fn charge(nodes: &[Node<'_>], budget: &mut Budget<'_>) -> Result<(), Fault> {
    // What Prometheus declares before every template.
    let labels = Value::new(Shape::Labels, LABELS);
    let variables = vec![
        ("", Value::new(Shape::Data, 3 * LABELS)),
        ("labels", labels.clone()),
        ("externalLabels", labels),
        ("externalURL", Value::text(LABEL)),
        ("value", Value::new(Shape::Number, VALUE)),
    ];
    let dot = Value::new(Shape::Data, 3 * LABELS);
    let mut reader = Reader { budget, variables, turns: 1, loops: Vec::new(), passes: 0 };
    reader.nodes(nodes, &dot)
}

pub(super) struct Reader<'a, 'b, 't> {
    budget: &'a mut Budget<'b>,
    variables: Vec<(&'t str, Value)>,
    /// How often what is read now may run.
    turns: u64,
    /// What the loops around it run over, the outermost first.
    loops: Vec<Shape>,
    /// Of the outermost loop and all within it.
    passes: usize,
}

impl<'t> Reader<'_, '_, 't> {
    fn nodes(&mut self, nodes: &[Node<'t>], dot: &Value) -> Result<(), Fault> {
        for node in nodes {
            match node {
                Node::Text(bytes) => {
                    let bytes = (*bytes as u64).saturating_mul(self.turns);
                    self.produce(bytes, 0)?;
                }
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if !pipeline.variables.is_empty() {
                        self.set(pipeline, &[value])?;
                    } else if value.shape == Shape::Series || !ends_in_call(pipeline) {
                        self.charge(value.bytes, pipeline.at)?;
                    }
                }
                Node::Block { kind, pipeline, body, otherwise } => {
                    let scope = self.variables.len();
                    let value = self.pipeline(pipeline, dot)?;
                    if *kind == Kind::Range {
                        self.range(pipeline, &value, body)?;
                    } else {
                        if !pipeline.variables.is_empty() {
                            self.set(pipeline, std::slice::from_ref(&value))?;
                        }
                        let inner = self.variables.len();
                        self.nodes(body, if *kind == Kind::With { &value } else { dot })?;
                        self.variables.truncate(inner);
                    }
                    self.nodes(otherwise, dot)?;
                    self.variables.truncate(scope);
                }
            }
        }
        Ok(())
    }

    fn range(
        &mut self,
        pipeline: &Pipeline<'t>,
        over: &Value,
        body: &[Node<'t>],
    ) -> Result<(), Fault> {
        let (turns, key, element) = match over.shape {
            Shape::Series => {
                let Some(turns) = over.series else {
                    return Err(Fault::new(
                        pipeline.at,
                        "a loop may run only over a query that says how many series it gives: wrap it in \
                         topk(10, ...), bottomk or limitk (at most 100, without by), or sum it up",
                    ));
                };
                (turns, Value::number(), Value::new(Shape::Sample, SAMPLE))
            }
            // All of them together are no longer than `LABELS`.
            Shape::Labels => {
                let one = LABELS / TURNS_OVER_LABELS;
                (TURNS_OVER_LABELS, Value::text(one / 4), Value::text(one))
            }
            _ => {
                return Err(Fault::new(
                    pipeline.at,
                    "a loop may run only over a query or over labels, such as $labels",
                ));
            }
        };
        if self.loops.len() >= 2 || (over.shape == Shape::Series && !self.loops.is_empty()) {
            return Err(Fault::new(
                pipeline.at,
                "loops may not be nested, except for one over labels in one over a query",
            ));
        }
        let old_turns = self.turns;
        if self.loops.is_empty() {
            self.passes = 0;
        }
        let (produced, queries) = (self.budget.produced, self.budget.queries);
        self.turns = self.turns.saturating_mul(turns);
        self.loops.push(over.shape);
        let outer = self.variables.len();
        for pass in 0.. {
            // Only the last pass counts: it has the longest values.
            (self.budget.produced, self.budget.queries) = (produced, queries);
            let before = self.variables.clone();
            match pipeline.variables.len() {
                0 => {}
                1 => self.set(pipeline, std::slice::from_ref(&element))?,
                _ => self.set(pipeline, &[key.clone(), element.clone()])?,
            }
            self.nodes(body, &element)?;
            self.variables.truncate(outer);
            if self.variables == before {
                break;
            }
            self.passes += 1;
            if pass >= PASSES || self.passes >= ALL_PASSES {
                return Err(Fault::new(
                    pipeline.at,
                    "a variable grows with every turn of the loop; print it in the loop instead",
                ));
            }
        }
        self.loops.pop();
        self.turns = old_turns;
        Ok(())
    }

    fn set(&mut self, pipeline: &Pipeline<'t>, values: &[Value]) -> Result<(), Fault> {
        for (name, value) in pipeline.variables.iter().zip(values) {
            if pipeline.declares {
                if self.variables.len() >= MOST_VARIABLES {
                    let reason =
                        format!("at most {MOST_VARIABLES} variables can be known at one place");
                    return Err(Fault::new(pipeline.at, reason));
                }
                self.variables.push((name, value.clone()));
                continue;
            }
            match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
                Some((_, old)) => *old = old.or(value),
                None => return Err(undefined(pipeline.at, name)),
            }
        }
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline<'t>, dot: &Value) -> Result<Value, Fault> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, last, dot)?);
        }
        last.ok_or_else(|| Fault::new(pipeline.at, "the action is empty"))
    }

    fn command(
        &mut self,
        command: &[Operand<'t>],
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, Fault> {
        let Some((first, rest)) = command.split_first() else {
            return Err(Fault::new(0, "the action is empty"));
        };
        let mut arguments = Vec::with_capacity(rest.len() + 1);
        for operand in rest {
            arguments.push(self.operand(operand, dot)?);
        }
        arguments.extend(piped);
        if let Term::Function(name) = first.term {
            return self.call(name, first, &arguments);
        }
        if arguments.is_empty() {
            return self.operand(first, dot);
        }
        self.method(first, &arguments, dot)
    }

    /// Nothing that alerts have to do with has methods with arguments but a time, and of those only
    /// this one is of use.
    fn method(
        &mut self,
        operand: &Operand<'t>,
        arguments: &[Value],
        dot: &Value,
    ) -> Result<Value, Fault> {
        let mut of = self.term(operand, dot)?;
        let Some((name, before)) = operand.fields.split_last() else {
            return Err(Fault::new(operand.at, "this is no function and takes no arguments"));
        };
        for field in before {
            of = of.field(field);
        }
        if of.shape != Shape::Time || *name != "Format" {
            return Err(Fault::new(
                operand.at,
                format!("{name:?} takes no arguments here; only Format of a time (toTime) does"),
            ));
        }
        let layout: u64 = arguments.iter().map(|argument| argument.bytes).sum();
        self.produced(Value::text(layout.saturating_mul(8).saturating_add(NUMBER)), operand.at)
    }

    fn operand(&mut self, operand: &Operand<'t>, dot: &Value) -> Result<Value, Fault> {
        let term = self.term(operand, dot)?;
        Ok(operand.fields.iter().fold(term, |value, field| value.field(field)))
    }

    fn term(&mut self, operand: &Operand<'t>, dot: &Value) -> Result<Value, Fault> {
        self.budget.steps += 1;
        if self.budget.steps > MOST_STEPS {
            return Err(Fault::new(operand.at, "the templates of the rule are too long"));
        }
        match &operand.term {
            Term::Dot => Ok(dot.clone()),
            Term::Number => Ok(Value::number()),
            Term::Text(text) => Ok(Value::constant(text)),
            Term::Variable(name) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                known.map(|(_, value)| value.clone()).ok_or_else(|| undefined(operand.at, name))
            }
            Term::Function(name) => self.call(name, operand, &[]),
            Term::Nested(pipeline) => {
                let scope = self.variables.len();
                let value = self.pipeline(pipeline, dot)?;
                if !pipeline.variables.is_empty() {
                    return Err(Fault::new(operand.at, "no variable can be set in parentheses"));
                }
                self.variables.truncate(scope);
                Ok(value)
            }
        }
    }

    fn call(
        &mut self,
        name: &str,
        operand: &Operand<'t>,
        arguments: &[Value],
    ) -> Result<Value, Fault> {
        if name == "query" {
            return self.query(operand.at, arguments).map(Value::series);
        }
        let called = functions::call(name, arguments);
        let called = called.map_err(|reason| Fault::new(operand.at, reason))?;
        self.charge(called.work, operand.at)?;
        self.produced(called.value, operand.at)
    }

    /// Tells how many series the query gives at most.
    fn query(&mut self, at: usize, arguments: &[Value]) -> Result<Option<u64>, Fault> {
        if !self.loops.is_empty() {
            return Err(Fault::new(at, "no query can be asked in a loop"));
        }
        self.budget.queries += 1;
        if self.budget.queries > MAX_QUERIES {
            let reason = format!(
                "the templates of one rule may ask {MAX_QUERIES} queries, and this is one more"
            );
            return Err(Fault::new(at, reason));
        }
        let [Value { expression: Some(expression), .. }] = arguments else {
            return Err(Fault::new(
                at,
                "a query must be a text that stands in the template; a label goes into it only by %q \
                 without quotes around it, because %q writes its own: up{instance=%q}, not '%s' and \
                 not '%q'; a number goes in by %v",
            ));
        };
        expression::check(expression, &self.budget.expressions.in_rules())
            .map_err(|excess| Fault::new(at, format!("the query {excess}")))?;
        Ok(expression::most_series(expression))
    }

    fn produced(&mut self, value: Value, at: usize) -> Result<Value, Fault> {
        // A query's result is no text before it is printed.
        if value.shape != Shape::Series {
            self.charge(value.bytes, at)?;
        }
        Ok(value)
    }

    /// Charges what may happen at every turn.
    fn charge(&mut self, bytes: u64, at: usize) -> Result<(), Fault> {
        self.produce(bytes.saturating_mul(self.turns), at)
    }

    fn produce(&mut self, bytes: u64, at: usize) -> Result<(), Fault> {
        produce(self.budget, bytes, at)
    }
}

/// Charges bytes that one alert has.
pub(super) fn produce(budget: &mut Budget<'_>, bytes: u64, at: usize) -> Result<(), Fault> {
    budget.produced = budget.produced.saturating_add(bytes);
    if budget.produced > MAX_PRODUCED_BYTES {
        let reason = format!(
            "the labels and annotations of the rule could produce more than {MAX_PRODUCED_BYTES} bytes \
             for one alert here; shorten them"
        );
        return Err(Fault::new(at, reason));
    }
    Ok(())
}

/// Whether its value has been charged when it was made.
fn ends_in_call(pipeline: &Pipeline<'_>) -> bool {
    let last = pipeline.commands.last().and_then(|command| command.first());
    last.is_some_and(|first| matches!(first.term, Term::Function(_)) && first.fields.is_empty())
}

fn undefined(at: usize, name: &str) -> Fault {
    Fault::new(at, format!("there is no variable ${name}"))
}
