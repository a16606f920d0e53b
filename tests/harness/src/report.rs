//! What measurements write into documents: where and when they were made, and a block between two markers.

use std::path::Path;
use std::process::Command;

use crate::proxy::Proxy;

/// When, of what and where: `26 November 2026, mimir-tenant-proxy 0.1.0 at 77a4abe, PROCESSOR (2 cores), Linux 6.1`.
pub fn circumstances() -> String {
    let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        information.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let version = said_by(&Proxy::binary().display().to_string(), &["--version"]);
    format!(
        "{}, {} at {}, {} ({cores} cores), Linux {}",
        said_by("date", &["-u", "+%-d %B %Y"]),
        version.split(" (").next().unwrap_or_default(),
        said_by("git", &["rev-parse", "--short", "HEAD"]),
        model.map_or("unknown processor", |(_, model)| model.trim()),
        said_by("uname", &["-r"]),
    )
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

/// Replaces what stands between `<!-- NAME begins -->` and `<!-- NAME ends -->` in a document.
///
/// # Panics
/// If the document does not have both.
pub fn write_block(document: &Path, name: &str, text: &str) {
    let (begins, ends) = (format!("<!-- {name} begins -->\n"), format!("<!-- {name} ends -->"));
    let page = std::fs::read_to_string(document)
        .unwrap_or_else(|error| panic!("{}: {error}", document.display()));
    let missing = |marker: &str| panic!("{}: no line {marker}", document.display());
    let (before, rest) = page.split_once(&begins).unwrap_or_else(|| missing(&begins));
    let (_, after) = rest.split_once(&ends).unwrap_or_else(|| missing(&ends));
    let page = format!("{before}{begins}{text}{ends}{after}");
    std::fs::write(document, page)
        .unwrap_or_else(|error| panic!("{}: {error}", document.display()));
}

/// The median: of an even number of values the mean of the two in the middle.
///
/// # Panics
/// If there are no values.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_the_mean_of_the_two_in_the_middle() {
        for (values, middle) in [
            (&[3.0][..], 3.0),
            (&[5.0, 1.0], 3.0),
            (&[9.0, 1.0, 2.0], 2.0),
            (&[8.0, 1.0, 4.0, 2.0], 3.0),
        ] {
            assert!((median(values.iter().copied()) - middle).abs() < 1e-9, "{values:?}");
        }
    }

    #[test]
    fn a_block_is_replaced_and_what_is_around_it_stays() {
        let directory = tempfile::tempdir().unwrap();
        let page = directory.path().join("page.md");
        std::fs::write(&page, "a\n<!-- x begins -->\nold\n<!-- x ends -->\nb\n").unwrap();
        write_block(&page, "x", "new\n");
        let page = std::fs::read_to_string(&page).unwrap();
        assert_eq!(page, "a\n<!-- x begins -->\nnew\n<!-- x ends -->\nb\n");
    }
}
