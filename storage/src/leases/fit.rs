//! The workflows that a lease can run: those whose needs its process offers, without those that it
//! released because it cannot run them after all.
//!
//! Part of the writer's [`lease_table`](super::lease_table). All workflows together have few sets of
//! needs; each is read once, and the conditions of statements have their hashes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use gleitzeit_domain::needs::{Needs, Offer};

/// The stored needs, by hash.
#[derive(Debug, Default)]
pub(crate) struct KnownNeeds {
    sets: BTreeMap<i64, Needs>,
    /// The version of the stored sets at the survey that read these.
    version: Option<i64>,
}

impl KnownNeeds {
    pub(crate) fn replace(&mut self, all: Vec<(i64, Needs)>) {
        self.sets = all.into_iter().collect();
        self.version = None;
    }

    /// Replaces the sets by those of a survey with this version.
    pub(crate) fn replace_as(&mut self, all: Vec<(i64, Needs)>, version: i64) {
        self.replace(all);
        self.version = Some(version);
    }

    /// True if these are the sets of this version.
    pub(crate) fn are(&self, version: i64) -> bool {
        self.version == Some(version)
    }

    /// Adds hashes of workflows without a stored set: a process cached the set as stored after it was
    /// deleted. They count as empty needs, so that every process may claim the workflow.
    pub(crate) fn add_unknown(&mut self, hashes: Vec<i64>) {
        for hash in hashes {
            // Only if absent: needs that are stored must not become empty.
            self.sets.entry(hash).or_default();
        }
    }

    pub(crate) fn contains(&self, hash: i64) -> bool {
        hash == 0 || self.sets.contains_key(&hash)
    }

    /// The needs of a hash; empty if unknown.
    pub(crate) fn of(&self, hash: i64) -> Needs {
        self.sets.get(&hash).cloned().unwrap_or_default()
    }
}

/// The offer of one lease, and the workflows that it released.
#[derive(Debug)]
pub(super) struct Fit {
    offer: Offer,
    /// The keys of workflows that it released.
    refused: BTreeSet<i64>,
}

/// The condition of a claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The hashes of needs that the offer does not cover.
    pub(crate) unfit: Vec<i64>,
    fit: Vec<i64>,
    /// The keys of excluded workflows.
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
    /// True if every free workflow is wanted.
    pub(crate) fn is_all(&self) -> bool {
        self.unfit.is_empty() && self.refused.is_empty()
    }

    /// The condition for a scan by key; empty if every workflow is wanted.
    pub(super) fn by_key(&self) -> String {
        let mut condition = String::new();
        if !self.unfit.is_empty() {
            // The uncovered ones, not the covered: a workflow whose needs are not read yet passes,
            // and is checked after the claim.
            let _ = write!(condition, " AND needs NOT IN ({})", list(&self.unfit));
        }
        self.without_refused(&mut condition);
        condition
    }

    /// The condition for a scan by needs. Unknown needs count as not covered: they are read before the
    /// claim.
    pub(super) fn by_needs(&self) -> String {
        // With 0: every process may claim a workflow without recorded needs.
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

/// Numbers as text of a statement: few, and the same for many claims.
pub(super) fn list(numbers: &[i64]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(text: &str) -> Needs {
        crate::encode::needs_of(text)
    }

    /// A process that offers every method claims without a condition.
    #[test]
    fn only_uncovered_needs_add_a_condition() {
        let mut known = KnownNeeds::default();
        known.replace(vec![(7, needs("a/v1.0:m")), (9, needs("b/v1.0:m"))]);
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
