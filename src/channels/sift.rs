//! Finds out which channels and routes Mimir refuses. Pure: it says what to try next, and is told what
//! came of it.
//!
//! Mimir refuses a document as a whole and does not say reliably whose fault it is. So parts of it are
//! tried: all of them, then halves of what was refused, down to the single one, which gets Mimir's words
//! as its reason. What is tried is never stored (`AlertmanagerClient::check`), so however long it takes,
//! what is live stays live.

use std::collections::{BTreeMap, VecDeque};

use uuid::Uuid;

/// One search, among channels or among routes.
#[derive(Debug)]
pub(crate) struct Sift {
    /// Sets that were not tried yet. Nothing is in two of them.
    waiting: VecDeque<Vec<Uuid>>,
    accepted: Vec<Uuid>,
    refused: BTreeMap<Uuid, String>,
}

impl Sift {
    pub(crate) fn new(items: Vec<Uuid>) -> Self {
        let waiting = if items.is_empty() { VecDeque::new() } else { [items].into() };
        Self { waiting, accepted: Vec::new(), refused: BTreeMap::new() }
    }

    /// What to try next; none when everything is known.
    pub(crate) fn next(&self) -> Option<&[Uuid]> {
        self.waiting.front().map(Vec::as_slice)
    }

    /// Mimir accepts them.
    pub(crate) fn accept(&mut self) {
        self.accepted.extend(self.waiting.pop_front().unwrap_or_default());
    }

    /// Mimir refuses at least one of them.
    pub(crate) fn refuse(&mut self, words: String) {
        let Some(mut set) = self.waiting.pop_front() else { return };
        if let [one] = set[..] {
            self.refused.insert(one, words);
            return;
        }
        let second = set.split_off(set.len() / 2);
        self.waiting.push_front(second);
        self.waiting.push_front(set);
    }

    /// What was accepted, and what was refused with Mimir's words.
    pub(crate) fn into_found(self) -> (Vec<Uuid>, BTreeMap<Uuid, String>) {
        (self.accepted, self.refused)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    fn run(all: &BTreeSet<u128>, bad: &BTreeSet<u128>) -> (Sift, usize) {
        let mut sift = Sift::new(all.iter().map(|id| Uuid::from_u128(*id)).collect());
        let mut trials = 0;
        while let Some(set) = sift.next() {
            trials += 1;
            match set.iter().find(|id| bad.contains(&id.as_u128())) {
                Some(id) => sift.refuse(format!("no {id}")),
                None => sift.accept(),
            }
        }
        (sift, trials)
    }

    proptest! {
        #[test]
        fn exactly_the_refused_ones_are_found_with_their_own_words(
            all in btree_set(0..300_u128, 0..200), bad in btree_set(0..300_u128, 0..20),
        ) {
            let (sift, trials) = run(&all, &bad);
            let bad: BTreeSet<u128> = bad.intersection(&all).copied().collect();
            let (accepted, refused) = sift.into_found();
            let found: BTreeSet<u128> = refused.keys().map(Uuid::as_u128).collect();
            prop_assert_eq!(&found, &bad);
            prop_assert_eq!(accepted.len() + bad.len(), all.len());
            for (id, words) in refused {
                prop_assert_eq!(words, format!("no {id}"));
            }
            // Two for each level above a refused one, and never more than two for each of all.
            let levels = usize::try_from(all.len().next_power_of_two().ilog2()).unwrap() + 1;
            prop_assert!(trials <= 1 + 2 * bad.len() * levels, "{trials}");
            prop_assert!(trials <= (2 * all.len()).max(1), "{trials}");
        }
    }
}
