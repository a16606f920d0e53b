//! YAML as events and, where needed, as a tree in which every scalar is still the original text:
//! whether `0755` or `on` is a number, a boolean or a string is decided by the caller.

use granit_parser::{Event, Options, Parser, ScalarStyle, Span, StrInput};

use super::line_breaks::Document;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Text(String),
    /// An empty value, `null`, `~`.
    Null,
    List(Vec<Node>),
    /// A mapping in the order of the document; keys may repeat.
    Map(Vec<(String, Node)>),
    /// What Mimir never writes: tags, aliases, keys that are not scalars.
    Strange,
}

/// Reads one document whose root is a mapping, key by key, so that other values need not be kept.
pub(super) struct Reader<'a> {
    document: &'a Document<'a>,
    events: Parser<'a, StrInput<'a>>,
    /// The end of each of the last two events.
    ends: [usize; 2],
}

impl<'a> Reader<'a> {
    /// Begins the document. Anything but a mapping is an error, an empty document included.
    pub(super) fn open(document: &'a Document<'a>) -> Result<Self, String> {
        let mut options = Options::default();
        options.set_emit_comments(false);
        let events = Parser::new_from_str_with_options(document.text(), options);
        let mut reader = Self { document, events, ends: [0; 2] };
        let wanted = "the answer is no YAML mapping";
        let begins = [reader.event()?.0, reader.event()?.0, reader.event()?.0];
        match begins {
            [Event::StreamStart, Event::DocumentStart(..), Event::MappingStart(..)] => Ok(reader),
            _ => Err(wanted.to_owned()),
        }
    }

    /// The next key of the root mapping; `None` at its end.
    pub(super) fn key(&mut self) -> Result<Option<String>, String> {
        match self.event()? {
            (Event::MappingEnd, _) => Ok(None),
            (Event::Scalar(text, style, ..), span) => {
                Ok(Some(self.document.scalar(text, style, &span, self.ends[0])))
            }
            _ => Err("a key of the mapping is no text".to_owned()),
        }
    }

    /// The value of the last key.
    pub(super) fn value(&mut self) -> Result<Node, String> {
        let event = self.event()?;
        self.node(event)
    }

    /// Skips the value of the last key; returns the number of its items, if it is a list.
    pub(super) fn count_items(&mut self) -> Result<usize, String> {
        let (mut depth, mut items) = (0_usize, 0);
        let mut is_list = false;
        loop {
            let event = self.event()?.0;
            if depth == 1 && is_list && event.is_node() {
                items += 1;
            }
            match event {
                Event::SequenceStart(..) | Event::MappingStart(..) => {
                    is_list |= depth == 0 && matches!(event, Event::SequenceStart(..));
                    depth += 1;
                }
                Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return Ok(items);
            }
        }
    }

    /// Ends the document: nothing may follow.
    pub(super) fn close(mut self) -> Result<(), String> {
        match [self.event()?.0, self.event()?.0] {
            [Event::DocumentEnd, Event::StreamEnd] => Ok(()),
            _ => Err("something follows the mapping".to_owned()),
        }
    }

    fn event(&mut self) -> Result<(Event<'a>, Span), String> {
        match self.events.next_event() {
            Some(Ok((event, span))) => {
                self.ends = [self.ends[1], span.end.byte_offset().unwrap_or(self.ends[1])];
                Ok((event, span))
            }
            Some(Err(error)) => Err(format!("it is no YAML: {error}")),
            None => Err("it ends too early".to_owned()),
        }
    }

    /// The parser bounds the depth.
    fn node(&mut self, (begin, span): (Event<'a>, Span)) -> Result<Node, String> {
        match begin {
            Event::Scalar(text, style, _, None) if is_null(&text, style) => Ok(Node::Null),
            Event::Scalar(text, style, _, None) => {
                Ok(Node::Text(self.document.scalar(text, style, &span, self.ends[0])))
            }
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.event()? {
                        (Event::SequenceEnd, _) => return Ok(Node::List(items)),
                        event => items.push(self.node(event)?),
                    }
                }
            }
            Event::MappingStart(..) => {
                let (mut entries, mut is_strange) = (Vec::new(), false);
                loop {
                    let key = match self.event()? {
                        (Event::MappingEnd, _) => break,
                        event => self.node(event)?,
                    };
                    let value = self.value()?;
                    match key {
                        Node::Text(key) => entries.push((key, value)),
                        _ => is_strange = true,
                    }
                }
                Ok(if is_strange { Node::Strange } else { Node::Map(entries) })
            }
            _ => Ok(Node::Strange),
        }
    }
}

/// Whether a scalar means null.
fn is_null(text: &str, style: ScalarStyle) -> bool {
    style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL")
}
