//! What is checked in a body as it passes.

use super::BodyError;
use crate::mimir::form::FormScanner;
use crate::mimir::otlp::OtlpScanner;

/// Reads a body piece by piece and keeps nothing of it.
///
/// A body at fault ends before its last byte is passed on. Mimir reads all of a form or an export before any of it, so
/// it sees no such body.
pub enum BodyScanner {
    /// The expressions of a form.
    Form(Box<FormScanner>),
    /// An export by OTLP.
    Otlp(Box<OtlpScanner>),
}

impl BodyScanner {
    /// About how much memory it takes.
    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Form(_) => 0,
            Self::Otlp(scanner) => scanner.memory_bytes(),
        }
    }

    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), BodyError> {
        match self {
            Self::Form(form) => form.push(piece).map_err(BodyError::Expression),
            Self::Otlp(otlp) => otlp.push(piece).map_err(BodyError::Otlp),
        }
    }

    /// All of the body has come.
    pub(super) fn end(self) -> Result<(), BodyError> {
        match self {
            Self::Form(mut form) => form.end().map_err(BodyError::Expression),
            Self::Otlp(otlp) => otlp.end().map_err(BodyError::Otlp),
        }
    }
}
