//! The report of `--connect`: a line for each thing, and the exit code.

use std::fmt;

/// The state of one thing outside.
#[derive(Debug)]
pub(super) enum Outcome {
    /// As it should be.
    Good(String),
    /// It works, but probably not as intended.
    Odd(String),
    /// Unavailable at the moment.
    Away(String),
    /// There, and not as it must be: an operator has to act.
    Unfit(String),
}

#[derive(Debug, Default)]
pub(super) struct Report(Vec<(&'static str, Outcome)>);

/// `EX_UNAVAILABLE` of sysexits.h: something outside is unavailable.
const EXIT_AWAY: u8 = 69;

impl Report {
    pub(super) fn add(&mut self, about: &'static str, outcome: Outcome) {
        self.0.push((about, outcome));
    }

    /// 0 if all is good; 64 if something must be changed; 69 if something is only unavailable.
    pub(super) fn exit_code(&self, strict: bool) -> u8 {
        let any = |wanted: fn(&Outcome) -> bool| self.0.iter().any(|(_, outcome)| wanted(outcome));
        if any(|outcome| matches!(outcome, Outcome::Unfit(_)))
            || strict && any(|outcome| matches!(outcome, Outcome::Odd(_)))
        {
            super::EXIT_CONFIG
        } else if any(|outcome| matches!(outcome, Outcome::Away(_))) {
            EXIT_AWAY
        } else {
            0
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (about, outcome)) in self.0.iter().enumerate() {
            let (word, text) = match outcome {
                Outcome::Good(text) => ("ok", text),
                Outcome::Odd(text) => ("WARNING", text),
                Outcome::Away(text) => ("AWAY", text),
                Outcome::Unfit(text) => ("WRONG", text),
            };
            let line_break = if at > 0 { "\n" } else { "" };
            write!(f, "{line_break}{word:<7} {about:<9} {text}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(outcomes: Vec<Outcome>, strict: bool) -> u8 {
        let mut report = Report::default();
        for outcome in outcomes {
            report.add("x", outcome);
        }
        report.exit_code(strict)
    }

    #[test]
    fn what_must_be_changed_counts_more_than_what_is_away() {
        let text = || "text".to_owned();
        assert_eq!(code(vec![], true), 0);
        assert_eq!(code(vec![Outcome::Good(text())], true), 0);
        assert_eq!(code(vec![Outcome::Odd(text())], false), 0);
        assert_eq!(code(vec![Outcome::Odd(text())], true), 64);
        assert_eq!(code(vec![Outcome::Away(text()), Outcome::Good(text())], false), 69);
        assert_eq!(code(vec![Outcome::Away(text()), Outcome::Unfit(text())], false), 64);
    }
}
