//! The rules of every [`Store`], as checks that run over any of them.
//!
//! The stores of gleitzeit pass them; run them over your own:
//!
//! ```text
//! #[tokio::test]
//! async fn my_store_does_what_a_store_must() {
//!     let broken = conformance::check(|| async { Arc::new(MyStore::empty().await) as _ }).await;
//!     assert!(broken.is_empty(), "{broken:#?}");
//! }
//! ```

use std::{fmt, future::Future, sync::Arc, time::Duration};

use super::{Store, StoreError};

mod events;
mod keeping;
mod leases;
mod lists;
mod removal;
pub mod sample;
mod writes;

/// Limit on closing a store.
const CLOSING: Duration = Duration::from_secs(30);

/// A rule that a store breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule, as the name of its check.
    pub rule: &'static str,
    /// The observed behaviour.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.rule, self.detail)
    }
}

/// The failure of a check.
#[derive(Debug)]
struct Broken(String);

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self(format!("answered `{error}`"))
    }
}

/// The result of a check.
type Outcome = Result<(), Broken>;

/// Fails the check unless both are equal.
macro_rules! same {
    ($left:expr, $right:expr, $($what:tt)+) => {{
        let (left, right) = (&$left, &$right);
        if left != right {
            let what = format!($($what)+);
            let detail = format!("{what}\n  is       {left:?}\n  expected {right:?}");
            return Err($crate::store::conformance::Broken(shorten(detail)));
        }
    }};
}
use same;

/// Shortens the text of a record, which may have thousands of tasks.
fn shorten(detail: String) -> String {
    match detail.char_indices().nth(4_000) {
        Some((at, _)) => format!("{}…", &detail[..at]),
        None => detail,
    }
}

/// Runs every check, each over an empty store that `fresh` returns; returns the violations.
///
/// It takes some seconds over a database, and closes each store after its check.
pub async fn check<Fresh, Opened>(fresh: Fresh) -> Vec<Violation>
where
    Fresh: Fn() -> Opened,
    Opened: Future<Output = Arc<dyn Store>>,
{
    let mut broken = Vec::new();
    macro_rules! run {
        ($($group:ident::$check:ident,)*) => {$(
            let rule = stringify!($check);
            let store = fresh().await;
            let outcome = $group::$check(&*store).await;
            let closed = store.close(CLOSING).await.map_err(Broken::from);
            if let Err(Broken(detail)) = outcome.and(closed) {
                broken.push(Violation { rule, detail });
            }
        )*};
    }
    run! {
        keeping::a_workflow_is_read_back_as_it_was_submitted,
        keeping::tasks_that_moved_before_the_submission_are_kept,
        keeping::odd_texts_survive,
        keeping::numbers_survive,
        keeping::a_large_result_survives_and_may_be_shared,
        keeping::an_outline_and_its_results_are_the_workflow,
        keeping::ten_thousand_tasks_are_one_workflow,
        keeping::what_is_not_there_is_not_found,
        writes::the_first_submission_of_an_id_counts,
        writes::of_many_those_that_are_there_stand,
        writes::of_submissions_at_once_one_creates,
        writes::a_change_touches_what_it_names,
        writes::a_repeated_write_does_no_harm,
        writes::changes_of_one_batch_apply_in_order,
        writes::a_bad_change_leaves_its_batch_unwritten,
        writes::a_change_of_a_forgotten_workflow_is_passed_over,
        writes::writes_at_once_are_all_written,
        writes::an_empty_batch_is_fine,
        writes::a_closed_store_says_so,
        events::events_are_read_in_order_and_in_parts,
        events::events_may_be_written_in_any_portions,
        events::the_last_sequence_is_kept_without_events,
        lists::a_list_shows_the_newest_first,
        lists::a_list_counts_tasks,
        lists::recovery_finds_what_is_not_settled,
        lists::a_reopened_workflow_is_found_again,
        lists::pruning_forgets_what_settled_before,
        lists::pruning_keeps_what_others_refer_to,
        removal::ids_are_found_by_their_beginning,
        removal::a_list_is_bounded_by_times,
        removal::a_settled_workflow_may_be_amended,
        removal::settled_workflows_are_deleted,
        leases::an_epoch_is_never_issued_twice,
        leases::a_lost_lease_writes_nothing_more,
        leases::a_lost_lease_holds_nobody_else_up,
        leases::what_a_live_lease_owns_is_not_claimed,
        leases::what_is_free_is_claimed_once,
        leases::what_a_closed_lease_owned_is_free,
        leases::a_settled_workflow_can_be_claimed_by_name,
        leases::what_ended_before_its_submission_belongs_to_nobody,
        leases::a_claim_takes_what_its_offer_covers,
        leases::orphaned_work_is_claimed_by_who_knows_it,
        leases::what_is_released_is_free,
        leases::people_see_who_has_a_workflow,
        leases::requests_reach_the_owner,
        leases::notifications_arrive_for_what_is_free,
    }
    broken
}
