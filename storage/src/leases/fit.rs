//! What a lease may be given: workflows whose needs its process covers, without those that it gave
//! back because it cannot run them after all.
//!
//! Part of the writer's [`lease_table`](super::lease_table). The needs of all workflows are few sets of methods,
//! which are read once each; what is asked of the database are their hashes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use gleitzeit_domain::needs::{Needs, Offer};

/// The needs that are stored, by their hash.
#[derive(Debug, Default)]
pub(super) struct KnownNeeds {
    sets: BTreeMap<i64, Needs>,
    /// What the survey of the leases said of the stored sets when these were read.
    mark: Option<i64>,
}

impl KnownNeeds {
    pub(super) fn learn(&mut self, all: Vec<(i64, Needs)>) {
        self.sets = all.into_iter().collect();
        self.mark = None;
    }

    /// The same, with the mark that a survey of the leases gave them.
    pub(super) fn learn_as(&mut self, all: Vec<(i64, Needs)>, mark: i64) {
        self.learn(all);
        self.mark = Some(mark);
    }

    /// True if these are the sets that a survey of the leases has given this mark.
    pub(super) fn are(&self, mark: i64) -> bool {
        self.mark == Some(mark)
    }

    /// Workflows bear these hashes, and no set is stored for them: whoever wrote the workflow took a
    /// set for stored that was forgotten meanwhile. It may be tried, as what nobody wrote down.
    pub(super) fn add_unknown(&mut self, hashes: Vec<i64>) {
        for hash in hashes {
            self.sets.entry(hash).or_default();
        }
    }

    pub(super) fn contains(&self, hash: i64) -> bool {
        hash == 0 || self.sets.contains_key(&hash)
    }

    /// Those of a hash; nothing where nobody knows them.
    pub(super) fn of(&self, hash: i64) -> Needs {
        self.sets.get(&hash).cloned().unwrap_or_default()
    }
}

/// What one lease may be given.
#[derive(Debug)]
pub(super) struct Fit {
    offer: Offer,
    /// Workflows that it gave back, by their keys.
    refused: BTreeSet<i64>,
}

/// What a claim asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The hashes of needs that are not covered, beside those that are; empty where all are.
    pub(super) unfit: Vec<i64>,
    fit: Vec<i64>,
    /// Keys of workflows that are not to be given.
    refused: Vec<i64>,
}

impl Fit {
    pub(super) fn new(offer: Offer) -> Self {
        Self { offer, refused: BTreeSet::new() }
    }

    pub(super) fn offer(&self) -> &Offer {
        &self.offer
    }

    pub(super) fn refuse(&mut self, keys: impl IntoIterator<Item = i64>) {
        self.refused.extend(keys);
    }

    pub(super) fn covers(&self, needs: &Needs) -> bool {
        self.offer.covers(needs)
    }

    pub(super) fn wanted(&self, known: &KnownNeeds) -> Wanted {
        let (fit, unfit): (Vec<_>, Vec<_>) =
            known.sets.iter().partition(|(_, needs)| self.offer.covers(needs));
        let hashes = |sets: Vec<(&i64, &Needs)>| sets.into_iter().map(|(hash, _)| *hash).collect();
        Wanted {
            unfit: hashes(unfit),
            fit: hashes(fit),
            refused: self.refused.iter().copied().collect(),
        }
    }
}

impl Wanted {
    /// True where anything is.
    pub(super) fn is_all(&self) -> bool {
        self.unfit.is_empty() && self.refused.is_empty()
    }

    /// To be added to a condition that walks along the keys; empty where anything is wanted.
    pub(super) fn by_key(&self) -> String {
        let mut condition = String::new();
        if !self.unfit.is_empty() {
            let _ = write!(condition, " AND needs NOT IN ({})", list(&self.unfit));
        }
        self.without_refused(&mut condition);
        condition
    }

    /// The same for one that walks along the needs. What is not known is taken for what does not fit:
    /// it is read before it is claimed.
    pub(super) fn by_needs(&self) -> String {
        let mut condition = String::from(" AND needs IN (0");
        for hash in &self.fit {
            let _ = write!(condition, ",{hash}");
        }
        condition.push(')');
        self.without_refused(&mut condition);
        condition
    }

    fn without_refused(&self, condition: &mut String) {
        if !self.refused.is_empty() {
            let _ = write!(condition, " AND key NOT IN ({})", list(&self.refused));
        }
    }
}

/// Numbers in the text of a statement: they are few, and change seldom.
pub(super) fn list(numbers: &[i64]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(text: &str) -> Needs {
        crate::encode::needs_of(text)
    }

    /// A process that knows everything asks as if there were no needs.
    #[test]
    fn only_what_does_not_fit_costs_a_condition() {
        let mut known = KnownNeeds::default();
        known.learn(vec![(7, needs("a/v1.0:m")), (9, needs("b/v1.0:m"))]);
        let all = Fit::new(Offer::everything()).wanted(&known);
        assert!(all.is_all());
        assert_eq!(all.by_key(), "");
        let mut one = Fit::new(Offer::of(["a/v1.0:m".parse().unwrap()]));
        one.refuse([4, 2, 4]);
        let some = one.wanted(&known);
        assert!(!some.is_all());
        assert_eq!(some.by_key(), " AND needs NOT IN (9) AND key NOT IN (2,4)");
        assert_eq!(some.by_needs(), " AND needs IN (0,7) AND key NOT IN (2,4)");
        assert!(known.of(1).is_unknown() && known.contains(0) && !known.contains(1));
    }
}
