//! The structure of `ExportMetricsServiceRequest` (`opentelemetry/proto/collector/metrics/v1`).

use super::{MOST_DEPTH, MOST_PARTS, OtlpFault};

/// The messages that lead to an attribute's value, the only one that can hold itself, and those of which there can be
/// many. What is in none of them is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Export,
    ResourceMetrics,
    Resource,
    ScopeMetrics,
    Scope,
    Metric,
    /// A gauge or a sum.
    Numbers,
    Histogram,
    ExponentialHistogram,
    Summary,
    NumberPoint,
    HistogramPoint,
    ExponentialHistogramPoint,
    SummaryPoint,
    Exemplar,
    Quantile,
    EntityRef,
    KeyValue,
    AnyValue,
    ArrayValue,
    KeyValueList,
}

impl Message {
    /// The message in a field of this one, or none if it is something else.
    fn in_field(self, number: u32) -> Option<Self> {
        Some(match (self, number) {
            (Self::Export, 1) => Self::ResourceMetrics,
            (Self::ResourceMetrics, 1) => Self::Resource,
            // The Collector's library, with which Mimir decodes, still reads the second from the time when it was another.
            (Self::ResourceMetrics, 2 | 1000) => Self::ScopeMetrics,
            (Self::Resource, 1) | (Self::Scope, 3) | (Self::Metric, 12) => Self::KeyValue,
            (Self::Resource, 3) => Self::EntityRef,
            (Self::ScopeMetrics, 1) => Self::Scope,
            (Self::ScopeMetrics, 2) => Self::Metric,
            (Self::Metric, 5 | 7) => Self::Numbers,
            (Self::Metric, 9) => Self::Histogram,
            (Self::Metric, 10) => Self::ExponentialHistogram,
            (Self::Metric, 11) => Self::Summary,
            (Self::Numbers, 1) => Self::NumberPoint,
            (Self::Histogram, 1) => Self::HistogramPoint,
            (Self::ExponentialHistogram, 1) => Self::ExponentialHistogramPoint,
            (Self::Summary, 1) => Self::SummaryPoint,
            (Self::SummaryPoint, 6) => Self::Quantile,
            (Self::NumberPoint, 5)
            | (Self::HistogramPoint, 8)
            | (Self::ExponentialHistogramPoint, 11) => Self::Exemplar,
            (Self::NumberPoint | Self::SummaryPoint | Self::Exemplar, 7)
            | (Self::HistogramPoint, 9)
            | (Self::ExponentialHistogramPoint, 1) => Self::KeyValue,
            (Self::KeyValue, 2) => Self::AnyValue,
            (Self::AnyValue, 5) => Self::ArrayValue,
            (Self::AnyValue, 6) => Self::KeyValueList,
            (Self::ArrayValue, 1) => Self::AnyValue,
            (Self::KeyValueList, 1) => Self::KeyValue,
            _ => return None,
        })
    }
}

/// What is being read.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The number and the type of a field.
    Key,
    /// The length of a field, which is this message or something else.
    Length(Option<Message>),
    /// A field that is a number of variable length.
    Number,
}

/// The messages that are open, and the number that is being read.
pub(super) struct Protobuf {
    /// The innermost of them, and the offset of its end. The outermost one ends with the body.
    innermost: (Message, u64),
    /// Those around it.
    outer: Vec<(Message, u64)>,
    offset: u64,
    /// Bytes of a field that remain to be skipped.
    skip: u64,
    step: Step,
    value: u64,
    shift: u32,
    messages: u32,
}

impl Protobuf {
    pub(super) fn new() -> Self {
        Self {
            innermost: (Message::Export, u64::MAX),
            outer: Vec::new(),
            offset: 0,
            skip: 0,
            step: Step::Key,
            value: 0,
            shift: 0,
            messages: 0,
        }
    }

    pub(super) fn follow(&mut self, mut piece: &[u8]) -> Result<(), OtlpFault> {
        loop {
            if self.skip > 0 {
                let here = usize::try_from(self.skip).unwrap_or(usize::MAX).min(piece.len());
                piece = &piece[here..];
                self.skip -= here as u64;
                self.offset += here as u64;
            }
            let Some((byte, rest)) = piece.split_first() else { return Ok(()) };
            piece = rest;
            if matches!(self.step, Step::Key) && self.shift == 0 {
                while self.innermost.1 == self.offset
                    && let Some(outer) = self.outer.pop()
                {
                    self.innermost = outer;
                }
            }
            self.offset += 1;
            // Most numbers are one byte.
            let number = if self.shift == 0 && *byte < 0x80 {
                Some(u64::from(*byte))
            } else {
                self.number(*byte)?
            };
            if let Some(value) = number {
                self.take(value)?;
            }
        }
    }

    /// Adds a byte to the number, and gives it if it is complete. Bits above the 64th are lost, as in Go.
    fn number(&mut self, byte: u8) -> Result<Option<u64>, OtlpFault> {
        self.value |= u64::from(byte & 0x7f) << self.shift;
        if byte < 0x80 {
            self.shift = 0;
            return Ok(Some(std::mem::take(&mut self.value)));
        }
        self.shift += 7;
        if self.shift < 64 { Ok(None) } else { Err(OtlpFault::NotProtobuf) }
    }

    fn take(&mut self, value: u64) -> Result<(), OtlpFault> {
        match std::mem::replace(&mut self.step, Step::Key) {
            Step::Key => self.field(value)?,
            Step::Length(message) => {
                let end = self.within(value)?;
                match message {
                    Some(message) => self.enter(message, end)?,
                    None => self.skip = value,
                }
            }
            Step::Number => {}
        }
        self.within(self.skip).map(drop)
    }

    /// Begins a field. Go takes the lower 32 bits of its number.
    fn field(&mut self, key: u64) -> Result<(), OtlpFault> {
        #[expect(clippy::cast_possible_truncation, reason = "as Go does")]
        let number = (key >> 3) as u32;
        match key & 7 {
            0 => self.step = Step::Number,
            1 => self.skip = 8,
            2 => self.step = Step::Length(self.innermost.0.in_field(number)),
            5 => self.skip = 4,
            // Groups: none of these messages has any.
            _ => return Err(OtlpFault::NotProtobuf),
        }
        Ok(())
    }

    /// The end of the next so many bytes. No field goes beyond its message.
    fn within(&self, bytes: u64) -> Result<u64, OtlpFault> {
        let end = self.offset.checked_add(bytes);
        end.filter(|end| *end <= self.innermost.1).ok_or(OtlpFault::NotProtobuf)
    }

    fn enter(&mut self, message: Message, end: u64) -> Result<(), OtlpFault> {
        self.messages += 1;
        if self.messages > MOST_PARTS {
            return Err(OtlpFault::TooManyParts);
        }
        // With the innermost one and this.
        if self.outer.len() + 2 > MOST_DEPTH {
            return Err(OtlpFault::TooDeep);
        }
        self.outer.push(std::mem::replace(&mut self.innermost, (message, end)));
        Ok(())
    }
}
