//! The inheritances of the leases of this store, and the claims that are not confirmed.

use std::collections::{BTreeSet, HashSet, VecDeque};

use gleitzeit_domain::store::Epoch;

use super::LeaseTable;

/// The workflows that a lease inherited, as far as its claims have not returned them.
#[derive(Debug, Default)]
pub(super) struct Inheritance {
    /// The ended leases whose workflows were listed.
    listed: BTreeSet<i64>,
    /// The keys of their workflows that no claim has returned yet.
    keys: VecDeque<i64>,
    /// True if there may be more: the outcome of a transfer is unknown.
    is_unsure: bool,
}

impl LeaseTable {
    /// The keys of claimed workflows that no caller has received for certain.
    pub(crate) fn unconfirmed(&self, epoch: Epoch) -> &[i64] {
        self.unconfirmed.get(&epoch).map_or(&[], Vec::as_slice)
    }

    /// Adds claimed workflows that the caller may not have received.
    pub(crate) fn add_unconfirmed(&mut self, epoch: Epoch, keys: Vec<i64>) {
        self.unconfirmed.entry(epoch).or_default().extend(keys);
    }

    /// Removes the unconfirmed workflows: the caller has received them.
    pub(crate) fn confirm_claims(&mut self, epoch: Epoch) {
        self.unconfirmed.remove(&epoch);
    }

    /// True if claims have not returned all inherited workflows, or if there may be more.
    pub(crate) fn has_inheritance(&self, epoch: Epoch) -> bool {
        self.inheritances.get(&epoch).is_some_and(|it| it.is_unsure || !it.keys.is_empty())
    }

    /// True if the workflows of an ended lease were listed.
    pub(crate) fn has_listed(&self, epoch: Epoch, ended: i64) -> bool {
        self.inheritances.get(&epoch).is_some_and(|it| it.listed.contains(&ended))
    }

    /// The keys that no claim has returned, for each ended lease in the order of submission.
    pub(crate) fn inheritance(&self, epoch: Epoch) -> impl Iterator<Item = i64> {
        self.inheritances.get(&epoch).into_iter().flat_map(|it| it.keys.iter().copied())
    }

    /// Adds the workflows that a claim listed, and removes those that it returned, which are the
    /// first ones.
    pub(crate) fn record_inheritance<'a>(
        &mut self,
        epoch: Epoch,
        listed: impl IntoIterator<Item = (i64, Vec<i64>)>,
        returned: impl Iterator<Item = &'a i64>,
    ) {
        let inheritance = self.inheritances.entry(epoch).or_default();
        inheritance.is_unsure = false;
        for (ended, keys) in listed {
            inheritance.listed.insert(ended);
            inheritance.keys.extend(keys);
        }
        let returned: HashSet<i64> = returned.copied().collect();
        // The returned ones are at the front: a search through all keys would take a time with the
        // square of a large inheritance.
        let first = returned.len().min(inheritance.keys.len());
        let kept: Vec<i64> =
            inheritance.keys.drain(..first).filter(|key| !returned.contains(key)).collect();
        for key in kept.into_iter().rev() {
            inheritance.keys.push_front(key);
        }
    }

    /// Removes the rest of an inheritance, after it was freed.
    pub(crate) fn clear_inheritance(&mut self, epoch: Epoch) {
        self.inheritances.entry(epoch).or_default().keys.clear();
    }

    /// Makes the next claim list the transfers again.
    pub(crate) fn recheck_inheritance(&mut self, epoch: Epoch) {
        self.inheritances.entry(epoch).or_default().is_unsure = true;
    }
}
