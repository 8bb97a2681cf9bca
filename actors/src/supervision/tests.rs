//! Claims about [`start_supervised`]: the state that survives a panic, and the limit of restarts.

use tokio::sync::mpsc;

use super::*;

const POLICY: RestartPolicy = RestartPolicy {
    restarts_max: 2,
    window: Duration::from_mins(1),
    pause_min: Duration::from_secs(1),
    pause_max: Duration::from_secs(30),
};

const TICK: Duration = Duration::from_secs(10);

#[derive(Message)]
#[rtype(result = "u32")]
struct Count;

#[derive(Message)]
#[rtype(result = "()")]
struct Fail;

#[derive(Message)]
#[rtype(result = "()")]
struct Quit;

#[derive(Message)]
#[rtype(result = "()")]
struct Tick;

/// Counts; `ticks` gets each tick of a timer that `started` arms.
struct Counter {
    count: u32,
    fail_restarts: u32,
    ticks: mpsc::UnboundedSender<u32>,
}

impl Actor for Counter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.notify_later(Tick, TICK);
    }
}

impl Supervised for Counter {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.count = 0;
        if self.fail_restarts > 0 {
            self.fail_restarts -= 1;
            panic!("while restarting");
        }
    }
}

impl Handler<Count> for Counter {
    type Result = u32;

    fn handle(&mut self, _: Count, _: &mut Self::Context) -> u32 {
        self.count += 1;
        self.count
    }
}

impl Handler<Fail> for Counter {
    type Result = ();

    fn handle(&mut self, _: Fail, _: &mut Self::Context) {
        panic!("on purpose");
    }
}

impl Handler<Quit> for Counter {
    type Result = ();

    fn handle(&mut self, _: Quit, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<Tick> for Counter {
    type Result = ();

    fn handle(&mut self, _: Tick, ctx: &mut Self::Context) {
        let _ = self.ticks.send(self.count);
        ctx.notify_later(Tick, TICK);
    }
}

/// Passes escalations on to the test.
struct Escalations(mpsc::UnboundedSender<RestartLimitReached>);

impl Actor for Escalations {
    type Context = Context<Self>;
}

impl Handler<RestartLimitReached> for Escalations {
    type Result = ();

    fn handle(&mut self, reached: RestartLimitReached, _: &mut Self::Context) {
        let _ = self.0.send(reached);
    }
}

struct Scene {
    counter: Addr<Counter>,
    ticks: mpsc::UnboundedReceiver<u32>,
    escalated: mpsc::UnboundedReceiver<RestartLimitReached>,
}

fn start(policy: RestartPolicy, fail_restarts: u32) -> Scene {
    tokio::time::pause();
    let (to_escalated, escalated) = mpsc::unbounded_channel();
    let (to_ticks, ticks) = mpsc::unbounded_channel();
    let to = Escalations(to_escalated).start().recipient();
    let counter = Counter { count: 0, fail_restarts, ticks: to_ticks };
    Scene { counter: start_supervised(policy, to, |_| counter), ticks, escalated }
}

/// The message that panicked is lost; the one behind it is answered by a fresh life.
#[actix::test]
async fn queued_messages_survive_a_panic() {
    let Scene { counter, .. } = start(POLICY, 0);
    assert_eq!(counter.send(Count).await, Ok(1));
    let (failed, queued) = (counter.send(Fail), counter.send(Count));
    let before = Instant::now();
    assert_eq!(failed.await, Err(MailboxError::Closed));
    assert_eq!(queued.await, Ok(1));
    // The clock is paused, so the pause is exact up to the 1 ms granularity of the timer.
    assert_eq!(before.elapsed().as_secs(), 1);
}

/// A timer of the first life is gone; the one that `started` arms in the second goes on.
#[actix::test]
async fn timers_are_armed_again() {
    let Scene { counter, mut ticks, .. } = start(POLICY, 0);
    let before = Instant::now();
    assert_eq!(ticks.recv().await, Some(0));
    assert_eq!(before.elapsed().as_secs(), 10);
    assert_eq!(counter.send(Fail).await, Err(MailboxError::Closed));
    assert_eq!(counter.send(Count).await, Ok(1));
    // A pause of one second, then a whole interval: nothing is left of the timer before.
    assert_eq!(ticks.recv().await, Some(1));
    assert_eq!(before.elapsed().as_secs(), 21);
    assert_eq!(ticks.recv().await, Some(1));
    assert_eq!(before.elapsed().as_secs(), 31);
}

/// The third panic in a window is one more than the budget of two.
#[actix::test]
async fn a_spent_budget_is_escalated_once() {
    let Scene { counter, mut escalated, .. } = start(POLICY, 0);
    for _ in 0..3 {
        assert_eq!(counter.send(Fail).await, Err(MailboxError::Closed));
    }
    assert_eq!(counter.send(Count).await, Err(MailboxError::Closed));
    let reached = escalated.recv().await.unwrap();
    assert_eq!(reached.panic, "on purpose");
    assert!(reached.actor.ends_with("Counter"), "{reached:?}");
    assert_eq!(escalated.recv().await, None, "and not a second time");
}

/// Panics that are far enough apart are never too many.
#[actix::test]
async fn the_budget_refills_over_time() {
    let Scene { counter, mut escalated, .. } = start(POLICY, 0);
    for _ in 0..10 {
        assert_eq!(counter.send(Fail).await, Err(MailboxError::Closed));
        assert_eq!(counter.send(Count).await, Ok(1));
        sleep(POLICY.window).await;
    }
    assert!(escalated.try_recv().is_err());
}

/// The first panic of an actor whose state is the truth is escalated at once.
#[actix::test]
async fn no_restart_is_made_where_none_is_allowed() {
    let Scene { counter, mut escalated, .. } = start(ESCALATE_AT_ONCE, 0);
    assert_eq!(counter.send(Fail).await, Err(MailboxError::Closed));
    assert_eq!(escalated.recv().await.map(|it| it.panic), Some("on purpose".to_owned()));
    assert_eq!(counter.send(Count).await, Err(MailboxError::Closed));
}

/// A reset that fails once is tried again.
#[actix::test]
async fn a_panic_while_restarting_is_survived() {
    let Scene { counter, .. } = start(POLICY, 1);
    let (failed, queued) = (counter.send(Fail), counter.send(Count));
    assert_eq!(failed.await, Err(MailboxError::Closed));
    assert_eq!(queued.await, Ok(1), "the second try succeeded");
}

/// An actor that cannot be reset at all is given up with a word, not lost in silence.
#[actix::test]
async fn panics_while_restarting_spend_the_budget() {
    let Scene { counter, mut escalated, .. } = start(POLICY, 9);
    assert_eq!(counter.send(Fail).await, Err(MailboxError::Closed));
    assert_eq!(escalated.recv().await.map(|it| it.panic), Some("while restarting".to_owned()));
}

/// A stop is not a failure: no restart, no escalation.
#[actix::test]
async fn an_ordinary_stop_is_final() {
    let Scene { counter, mut escalated, .. } = start(POLICY, 0);
    assert_eq!(counter.send(Quit).await, Ok(()));
    assert_eq!(counter.send(Count).await, Err(MailboxError::Closed));
    assert_eq!(escalated.recv().await, None);
}
