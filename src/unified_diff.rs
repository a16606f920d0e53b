//! What changes between two texts, in the unified format of `diff -u`.

use std::fmt::{self, Write};

use gix_imara_diff::{
    Algorithm, BasicLineDiffPrinter, Diff, InternedInput, Token, UnifiedDiffConfig,
    UnifiedDiffPrinter,
};

/// The lines that differ, with three around them; empty if none does. Each text comes with its name.
///
/// The histogram algorithm bounds its work: two texts of 100,000 lines, few of them different, take a second, and the
/// diff is less tidy then, but correct.
pub(crate) fn unified_diff(before: (&str, &str), after: (&str, &str)) -> String {
    let input = InternedInput::new(before.1, after.1);
    let mut diff = Diff::compute(Algorithm::Histogram, &input);
    diff.postprocess_lines(&input);
    if diff.hunks().next().is_none() {
        return String::new();
    }
    let printer = Printer(BasicLineDiffPrinter(&input.interner));
    let hunks = diff.unified_diff(&printer, UnifiedDiffConfig::default(), &input);
    format!("--- {}\n+++ {}\n{hunks}", before.0, after.0)
}

/// Writes lines as the library does, and ranges as `diff` and `patch` do.
struct Printer<'a>(BasicLineDiffPrinter<'a, str>);

impl UnifiedDiffPrinter for Printer<'_> {
    fn display_header(
        &self,
        mut f: impl Write,
        start_before: u32,
        start_after: u32,
        len_before: u32,
        len_after: u32,
    ) -> fmt::Result {
        // An empty range begins after the line before it, which may be none (POSIX, `diff -u`).
        let first = |start: u32, lines: u32| start + u32::from(lines > 0);
        let (before, after) = (first(start_before, len_before), first(start_after, len_after));
        writeln!(f, "@@ -{before},{len_before} +{after},{len_after} @@")
    }

    fn display_context_token(&self, f: impl Write, token: Token) -> fmt::Result {
        self.0.display_context_token(f, token)
    }

    fn display_hunk(&self, f: impl Write, before: &[Token], after: &[Token]) -> fmt::Result {
        self.0.display_hunk(f, before, after)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_diff_is_in_the_unified_format() {
        let before = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let after = "1\n2\n3\n4\nfive\n6\n7\n8\n9\n";
        assert_eq!(
            unified_diff(("mimir/a", before), ("database/a", after)),
            "--- mimir/a\n+++ database/a\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n"
        );
        assert_eq!(unified_diff(("a", before), ("b", before)), "");
    }

    #[test]
    fn what_is_created_or_deleted_has_an_empty_range() {
        assert_eq!(
            unified_diff(("/dev/null", ""), ("b", "x\ny\n")),
            "--- /dev/null\n+++ b\n@@ -0,0 +1,2 @@\n+x\n+y\n"
        );
        assert_eq!(
            unified_diff(("a", "x\n"), ("/dev/null", "")),
            "--- a\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-x\n"
        );
    }

    /// Texts of few different lines, so that they share many.
    fn text() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a\n", "b\n", "c\n", "\n"]), 0..40)
            .prop_map(|lines| lines.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn patch_makes_one_text_of_the_other(before in text(), after in text()) {
            let folder = tempfile::tempdir().unwrap();
            let file = |name: &str| folder.path().join(name);
            std::fs::write(file("text"), &before).unwrap();
            std::fs::write(file("diff"), unified_diff(("text", &before), ("text", &after)))
                .unwrap();
            let patched = Command::new("patch")
                .args(["--silent", "--fuzz=0", "--output=patched", "text", "diff"])
                .current_dir(folder.path())
                .output()
                .unwrap();
            if before == after {
                return Ok(());
            }
            prop_assert!(patched.status.success(), "{patched:?}");
            prop_assert_eq!(std::fs::read_to_string(file("patched")).unwrap(), after);
        }
    }
}
