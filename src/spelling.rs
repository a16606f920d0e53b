//! Which known name was meant by one that is not known.

/// The nearest of the known names, if it is near enough to be what was meant: at most three letters
/// changed, put in or left out, and fewer than the name has.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let nearest = known.into_iter().map(|known| (distance(name, known), known)).min();
    nearest.filter(|(distance, _)| *distance <= 3 && *distance < name.len()).map(|(_, name)| name)
}

/// How many letters are to be changed, put in or left out (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (other_at, other) in b.iter().enumerate() {
            let substitution = diagonal + usize::from(letter != *other);
            diagonal = row[other_at + 1];
            row[other_at + 1] = substitution.min(diagonal + 1).min(row[other_at] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_letters() {
        assert_eq!(distance("ingestor", "ingester"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn what_is_too_far_is_not_what_was_meant() {
        let known = ["issuer", "audience"];
        assert_eq!(nearest("issur", known), Some("issuer"));
        assert_eq!(nearest("endpoint", known), None);
        assert_eq!(nearest("x", known), None);
    }
}
