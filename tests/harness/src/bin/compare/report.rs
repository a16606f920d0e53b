//! What was measured, as tables: in the terminal, and in a document.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use harness::report::median;

use crate::cases::Case;
use crate::load::Measured;
use crate::peers::Peer;

/// The runs of one case, a list for each peer with one entry a round.
pub struct Outcome<'a> {
    pub case: &'a Case,
    pub runs: BTreeMap<Peer, Vec<Measured>>,
}

/// A table: a head, and rows that begin with a name.
pub struct Table {
    pub title: &'static str,
    pub head: Vec<String>,
    pub rows: Vec<(&'static str, Vec<String>)>,
}

impl Outcome<'_> {
    /// A number of a peer: the median over the rounds.
    pub fn median(&self, peer: Peer, number: impl Fn(&Measured) -> f64) -> f64 {
        median(self.runs[&peer].iter().map(number))
    }

    /// The median of what a comparison of two peers within a round says: the machine's mood changes
    /// from round to round.
    fn within(&self, peer: Peer, base: Peer, compare: impl Fn(&Measured, &Measured) -> f64) -> f64 {
        let rounds = self.runs[&peer].iter().zip(&self.runs[&base]);
        median(rounds.map(|(run, base)| compare(run, base)))
    }

    /// Processor time a request in relation to another peer's.
    pub fn ratio(&self, peer: Peer, base: Peer) -> f64 {
        self.within(peer, base, |run, base| run.cpu / base.cpu)
    }

    /// What ratios are to.
    fn bases(&self) -> Vec<Peer> {
        let nginx = [Peer::Bookkeeping, Peer::Nginx].into_iter();
        let measured: Vec<Peer> = nginx.filter(|peer| self.runs.contains_key(peer)).collect();
        match measured.is_empty() {
            true if self.runs.contains_key(&Peer::Http1) => vec![Peer::Http1],
            true => vec![Peer::Proxy],
            false => measured,
        }
    }

    pub fn table(&self) -> Table {
        let direct = self.runs.contains_key(&Peer::Direct);
        let bases = self.bases();
        let mut head: Vec<String> = ["req/s", "p50 ms", "p99 ms"].map(str::to_owned).to_vec();
        if direct {
            head.extend(["added p50", "added p99"].map(str::to_owned));
        }
        head.extend(["CPU µs", "user", "kernel"].map(str::to_owned));
        head.extend(bases.iter().map(|base| {
            match base {
                Peer::Bookkeeping => "× bookkeeping",
                Peer::Nginx => "× bare",
                Peer::Http1 => "× HTTP/1.1",
                _ => "× claims",
            }
            .to_owned()
        }));
        head.push("grew MiB".to_owned());
        let row = |peer: &Peer| {
            let number = |number: fn(&Measured) -> f64| self.median(*peer, number);
            let mut row = vec![
                format!("{:.0}", number(|run| run.per_second)),
                milliseconds(number(|run| run.p50_ms)),
                milliseconds(number(|run| run.p99_ms)),
            ];
            if direct {
                let quantiles: [fn(&Measured) -> f64; 2] = [|run| run.p50_ms, |run| run.p99_ms];
                for quantile in quantiles {
                    let added = |run: &Measured, base: &Measured| quantile(run) - quantile(base);
                    row.push(format!("{:.2}", self.within(*peer, Peer::Direct, added)));
                }
            }
            row.extend([
                micros(number(|run| run.cpu)),
                micros(number(|run| run.user)),
                micros(number(|run| run.cpu - run.user)),
            ]);
            row.extend(bases.iter().map(|base| format!("{:.2}", self.ratio(*peer, *base))));
            row.push(format!("{:.1}", number(|run| run.grown_mib)));
            row
        };
        let rows = self.runs.keys().map(|peer| (peer.title(), row(peer))).collect();
        Table { title: self.case.title, head, rows }
    }
}

impl Table {
    /// For the terminal.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n{:<26}", self.title, "");
        let width = |name: &str| name.chars().count().max(8) + 1;
        for name in &self.head {
            let _ = write!(text, "{name:>0$}", width(name));
        }
        text.push('\n');
        for (name, values) in &self.rows {
            let _ = write!(text, "{name:<26}");
            for (name, value) in self.head.iter().zip(values) {
                let _ = write!(text, "{value:>0$}", width(name));
            }
            text.push('\n');
        }
        text
    }

    /// For a document.
    pub fn markdown(&self) -> String {
        let mut text = format!("**{}**\n\n| | {} |\n|---|", self.title, self.head.join(" | "));
        text.push_str(&"---:|".repeat(self.head.len()));
        text.push('\n');
        for (name, values) in &self.rows {
            let _ = writeln!(text, "| {name} | {} |", values.join(" | "));
        }
        text
    }
}

/// Nothing if no request ended in time.
fn milliseconds(value: f64) -> String {
    if value > 0.0 { format!("{value:.2}") } else { "–".to_owned() }
}

fn micros(value: f64) -> String {
    if value < 1_000.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::cases::CASES;

    /// A case with these costs of a request, one for each round.
    pub fn outcome(name: &str, costs: &[(Peer, &[f64])]) -> Outcome<'static> {
        let measured = |cpu: &f64| Measured {
            per_second: 1e6 / cpu,
            p50_ms: 1.0,
            p99_ms: 2.0,
            cpu: *cpu,
            user: cpu / 4.0,
            grown_mib: 0.5,
        };
        let case = CASES.iter().find(|case| case.name == name).expect("a case");
        let runs = costs.iter().map(|(peer, cpu)| (*peer, cpu.iter().map(measured).collect()));
        Outcome { case, runs: runs.collect() }
    }

    // The second round was on a machine that was busy for both.
    #[test]
    fn ratios_are_within_a_round() {
        let costs: [(Peer, &[f64]); 2] =
            [(Peer::Bookkeeping, &[10.0, 40.0, 10.0]), (Peer::Proxy, &[11.0, 44.0, 12.0])];
        let outcome = outcome("read", &costs);
        assert!((outcome.ratio(Peer::Proxy, Peer::Bookkeeping) - 1.1).abs() < 1e-9);
        let table = outcome.table();
        assert!(table.markdown().contains("| this proxy | 83333 |"), "{}", table.markdown());
        assert!(table.text().lines().nth(1).is_some_and(|head| head.contains("× bookkeeping")));
    }

    #[test]
    fn every_case_has_a_name_of_its_own_and_this_proxy_in_it() {
        for (at, case) in CASES.iter().enumerate() {
            assert!(!CASES[..at].iter().any(|other| other.name == case.name), "{}", case.name);
            assert!(case.peers.contains(&Peer::Proxy), "{}", case.name);
        }
    }
}
