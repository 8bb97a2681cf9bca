//! A process that is alone inherits all that a killed one owned, without a write for each.

use std::{future::poll_fn, task::Poll};

use gleitzeit::storage::admin;

use super::*;

/// The life of the processes that are killed: the first one submits, and the others go on with two
/// workflows of what it left, and once more where they are told to.
pub(super) async fn take_two_and_wait(url: &str) {
    let store = open(&url.parse().unwrap()).await;
    let epoch = lease(&store).await;
    let taken = store.claim(epoch, 2, &Offer::everything()).await.unwrap();
    if taken.workflows.is_empty() {
        let all = (0..5).map(|number| owned(&format!("w{number}"), epoch));
        store.submit(all.collect()).await.unwrap();
    }
    child::say(&format!("took {}", ids(&taken).join(" ")));
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line).unwrap() > 0 {
        let taken = store.claim(epoch, 2, &Offer::everything()).await.unwrap();
        child::say(&format!("took {}", ids(&taken).join(" ")));
    }
    // Until it is killed.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn take_two_and_die(test: &str, url: &StoreUrl) -> String {
    let folder = tempfile::TempDir::new().unwrap();
    let mut process = child::Process::start(test, url.expose(), folder.path());
    let line = process.says().unwrap();
    process.kill();
    line
}

/// Who owns how many workflows, and what is wrong with the database.
async fn owners(url: &StoreUrl) -> Vec<(Epoch, u64)> {
    admin::check(url, &mut |finding| panic!("{finding:?}")).await.unwrap();
    let contents = admin::status(url).await.unwrap().contents.unwrap();
    contents.leases.iter().map(|holder| (holder.epoch, holder.workflows)).collect()
}

/// However many die one after the other, each successor has all of it, once.
pub(super) async fn what_an_successor_leaves_is_inherited_again(test: &str, url: &StoreUrl) {
    assert_eq!(take_two_and_die(test, url), "took ");
    assert_eq!(take_two_and_die(test, url), "took w0 w1");
    assert_eq!(take_two_and_die(test, url), "took w0 w1");
    let store = open(url).await;
    let epoch = lease(&store).await;
    let first = store.claim(epoch, 3, &Offer::everything()).await.unwrap();
    assert_eq!((ids(&first).join(" "), first.more), ("w0 w1 w2".into(), true));
    assert_eq!(owners(url).await, [(epoch, 5)]);
    let ask =
        Request { workflow: "w4".into(), command: Command::Cancel { reason: "enough".into() } };
    store.ask(ask.clone()).await.unwrap();
    let asked = store.requests(epoch).await.unwrap();
    assert_eq!(asked.into_iter().map(|(_, request)| request).collect::<Vec<_>>(), [ask]);
    let rest = store.claim(epoch, 3, &Offer::everything()).await.unwrap();
    assert_eq!((ids(&rest).join(" "), rest.more), ("w3 w4".into(), false));
    assert_eq!(store.claim(epoch, 3, &Offer::everything()).await.unwrap().workflows, []);
    store.record(vec![outcome(&rest.workflows[0].record, epoch)]).await.unwrap();
    let stored = store.workflow(&"w3".into()).await.unwrap().unwrap();
    assert_eq!(stored.tasks[0].result.as_deref(), Some(&json!(epoch.0)));
    // Whoever closes in order hands all of it over, to be shared.
    let another = open(url).await;
    let next = lease(&another).await;
    store.close(LONG).await.unwrap();
    assert_eq!(owners(url).await, [(next, 0)]);
    assert_eq!(
        ids(&another.claim(next, 10, &Offer::everything()).await.unwrap()).join(" "),
        "w0 w1 w2 w3 w4"
    );
}

/// What is not given out when another process comes is for both.
pub(super) async fn a_successor_shares_with_a_new_lease(test: &str, url: &StoreUrl) {
    take_two_and_die(test, url);
    let store = open(url).await;
    let epoch = lease(&store).await;
    assert_eq!(ids(&store.claim(epoch, 1, &Offer::everything()).await.unwrap()).join(" "), "w0");
    let taken = store.claim_one(epoch, &"w1".into(), false).await.unwrap();
    assert!(matches!(taken, ClaimedOne::Taken(_)), "{taken:?}");
    // Nobody waits for the answer to this one; what it gave out is not for others.
    let everything = Offer::everything();
    let mut unheard = Box::pin(store.claim(epoch, 1, &everything));
    poll_fn(|context| {
        assert!(unheard.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    drop(unheard);
    let joining = open(url).await;
    let other = lease(&joining).await;
    assert_eq!(
        joining.claim(other, 10, &Offer::everything()).await.unwrap().workflows,
        [],
        "it is all owned"
    );
    let held = joining.claim_one(other, &"w4".into(), false).await.unwrap();
    assert_eq!(held, ClaimedOne::Held);
    // What was taken by its id is run by now: it is neither given out again nor shared.
    assert_eq!(ids(&store.claim(epoch, 1, &Offer::everything()).await.unwrap()).join(" "), "w2");
    assert_eq!(owners(url).await, [(epoch, 3), (other, 0)]);
    assert_eq!(
        ids(&joining.claim(other, 10, &Offer::everything()).await.unwrap()).join(" "),
        "w3 w4"
    );
    assert_eq!(owners(url).await, [(epoch, 3), (other, 2)]);
    // The lease that they were submitted under is gone for good.
    let late = store.record(vec![outcome(&owned("w0", epoch).record, Epoch(1))]).await;
    assert_eq!(late, Err(StoreError::LeaseLost { epoch: Epoch(1) }));
}

/// All that is left of a process that was killed within a transaction: a server lets go of that
/// when it notices.
#[cfg(feature = "failpoints")]
async fn claim_five(store: &SqlStore, epoch: Epoch) -> String {
    let mut taken = Vec::new();
    while taken.len() < 5 {
        let claimed = store.claim(epoch, 10, &Offer::everything()).await.unwrap();
        taken.extend(ids(&claimed));
        if taken.len() < 5 {
            tokio::time::sleep(claimed.ask_again_in.expect("another lease, not ended yet")).await;
        }
    }
    taken.sort();
    taken.join(" ")
}

/// Killed while it frees what it inherited, or what it ends, for another process that lives: the
/// two places to which a process that is alone does not come.
#[cfg(feature = "failpoints")]
pub(super) async fn a_kill_while_sharing_loses_nothing(test: &str, url: &StoreUrl) {
    let folder = tempfile::TempDir::new().unwrap();
    let start =
        |failpoint| child::Process::start_to_die(test, url.expose(), folder.path(), failpoint);
    let all = "w0 w1 w2 w3 w4";
    take_two_and_die(test, url);
    let mut successor = start(Some("store.claim.shared"));
    assert_eq!(successor.says().as_deref(), Some("took w0 w1"));
    let store = open(url).await;
    let epoch = lease(&store).await;
    successor.send("again");
    assert_eq!(successor.says(), None, "it came past the place");
    assert_eq!(claim_five(&store, epoch).await, all);
    assert_eq!(owners(url).await, [(epoch, 5)]);
    // The same workflows, of a process that dies while another one lives.
    store.close(LONG).await.unwrap();
    let mut gone = start(None);
    assert_eq!(gone.says().as_deref(), Some("took w0 w1"));
    gone.send("again");
    assert_eq!(gone.says().as_deref(), Some("took w2 w3"));
    let store = open(url).await;
    let epoch = lease(&store).await;
    gone.kill();
    let mut doomed = start(Some("store.takeover.freed"));
    assert_eq!(doomed.says(), None, "it came past the place");
    assert_eq!(claim_five(&store, epoch).await, all);
    assert_eq!(owners(url).await, [(epoch, 5)]);
}
