//! Services with protocols of their own on one database: each runs what it knows, through deaths and
//! rolling upgrades.

use std::sync::{Arc, Mutex};

use gleitzeit::{Call, Handle, MethodSpec, ProtocolSpec, ProviderSpec, TaskSpec, WorkflowSpec};
use gleitzeit_domain::needs::Needs;
use tokio::sync::Semaphore;

use super::*;

/// What the services do, in order: `service method`.
#[derive(Clone)]
struct Journal {
    calls: Arc<Mutex<Vec<String>>>,
    /// Lets the method `refund` end.
    gate: Arc<Semaphore>,
}

impl Journal {
    fn new() -> Self {
        Self { calls: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }

    fn of(&self, method: &str) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        let of_it = calls.iter().filter_map(|call| call.strip_suffix(&format!(" {method}")));
        of_it.map(str::to_owned).collect()
    }
}

/// A service that knows these methods of one protocol, and runs whatever of it is in the database.
async fn service(
    url: &StoreUrl,
    name: &'static str,
    protocol: &str,
    methods: &[&str],
    journal: &Journal,
) -> Runtime {
    let (of, version) = protocol.split_once('/').unwrap();
    let any = |method: &str| MethodSpec { additional_params: true, ..MethodSpec::new(method) };
    let empty = ProtocolSpec::new(of, version.parse().unwrap());
    let spec = methods.iter().fold(empty, |spec, method| spec.method(any(method)));
    let journal = journal.clone();
    let run = move |call: Call| {
        let journal = journal.clone();
        async move {
            let method = &call.method.capability.method;
            journal.calls.lock().unwrap().push(format!("{name} {method}"));
            if **method == *"refund" {
                journal.gate.acquire().await.unwrap().forget();
            }
            Ok(json!(name))
        }
    };
    let settings = Settings::from_toml(&format!("storage.url = \"{}\"", url.expose())).unwrap();
    let builder = Runtime::builder(settings).without_settings_providers().protocol(spec);
    let provider = ProviderSpec::from_fn(name, protocol, run).unwrap();
    builder.provider(provider).start().await.unwrap()
}

fn calls(id: &str, methods: &[&str]) -> WorkflowSpec {
    let mut spec = WorkflowSpec::new(id).id(id);
    let mut before: Option<String> = None;
    for method in methods {
        let name = method.rsplit_once('/').map_or(*method, |(_, name)| name).to_owned();
        let task = TaskSpec::new(name.clone(), *method);
        spec = spec.task(match before {
            Some(before) => task.after(before),
            None => task,
        });
        before = Some(name);
    }
    spec
}

async fn completes(handle: &Handle, id: &str) {
    let ended = tokio::time::timeout(LONG, handle.wait(&id.into())).await.unwrap().unwrap();
    assert_eq!(ended.status, WorkflowStatus::Completed, "{id}");
}

/// Has each service look for work after everything that was done before: it takes up something that
/// nobody else knows.
async fn wait_for_poll(services: &[(&Runtime, &str)], round: &str) {
    for (service, method) in services {
        let id = format!("{round}-{}", method.replace('/', "-"));
        service.handle().enqueue(calls(&id, &[method])).await.unwrap();
        completes(&service.handle(), &id).await;
    }
}

async fn waits_for(handle: &Handle, id: &str) -> Option<String> {
    let standing = handle.standing(&id.into()).await.unwrap().unwrap();
    standing.owner.is_none().then(|| standing.needs.to_string())
}

/// An order is begun by a service that dies before its end; its neighbours, of which one is the same
/// service before an upgrade, must leave it alone. What the older one left, the newer one ends.
pub(super) async fn services_run_what_they_know(url: &StoreUrl) {
    let journal = Journal::new();
    let mail = service(url, "mail", "mail/v1.0", &["send"], &journal).await;
    let older = service(url, "older", "shop/v1.0", &["charge", "count"], &journal).await;
    let newer = ["charge", "refund", "renew"];
    let upgraded = service(url, "newer", "shop/v1.0", &newer, &journal).await;
    upgraded.handle().submit(calls("order", &["shop/charge", "shop/refund"])).await.unwrap();
    while journal.of("refund").is_empty() {
        tokio::task::yield_now().await;
    }
    upgraded.stop(Duration::ZERO).await;
    wait_for_poll(&[(&mail, "mail/send"), (&older, "shop/count")], "first").await;
    let handle = mail.handle();
    assert_eq!(waits_for(&handle, "order").await.as_deref(), Some("shop/v1.0 (charge, refund)"));
    let named = handle.resume(Some(&"order".into())).await.unwrap_err();
    assert!(named.message.contains("cannot be run by this process"), "{named}");
    assert!(waits_for(&handle, "order").await.is_some(), "it was given back");
    // One more direction: what the older one stores for all, the newer one may run, too; and what a
    // process stores that knows none of it is reported at once, and kept.
    let strict = handle.enqueue(calls("stray", &["shop/renew"])).await;
    assert!(strict.is_err(), "{strict:?}");
    let stray = handle.enqueue_for_others(calls("stray", &["shop/renew"])).await.unwrap();
    assert_eq!((stray.unknown.len(), &*stray.needs.to_string()), (1, "shop (renew)"));
    wait_for_poll(&[(&mail, "mail/send"), (&older, "shop/count")], "second").await;
    assert!(waits_for(&handle, "stray").await.is_some());
    journal.gate.add_permits(1);
    let upgraded = service(url, "newer", "shop/v1.0", &newer, &journal).await;
    completes(&handle, "order").await;
    completes(&handle, "stray").await;
    assert_eq!(journal.of("charge"), ["newer"], "what had completed is not run again");
    assert_eq!(journal.of("renew"), ["newer"]);
    // What only the older one knows goes on there.
    older.stop(LONG).await;
    handle.enqueue_for_others(calls("old", &["shop/count"])).await.unwrap();
    let polled = [(&mail, "mail/send"), (&upgraded, "shop/renew")];
    wait_for_poll(&polled, "third").await;
    assert!(waits_for(&handle, "old").await.is_some());
    let older = service(url, "older", "shop/v1.0", &["charge", "count"], &journal).await;
    completes(&handle, "old").await;
    for runtime in [mail, older, upgraded] {
        runtime.stop(LONG).await;
    }
}

fn needing(id: &str, epoch: Epoch, methods: &[&str]) -> NewWorkflow {
    let needs: Needs = methods.iter().map(|method| Arc::from(*method)).collect();
    NewWorkflow { needs, ..owned(id, epoch) }
}

/// The life of the service that is killed.
pub(super) async fn own_an_order_and_wait(url: &str) {
    let store = open(&url.parse().unwrap()).await;
    let epoch = lease(&store).await;
    let order = needing("order", epoch, &["shop/v1.0+:charge"]);
    store.submit(vec![owned("plain", epoch), order]).await.unwrap();
    child::say(&format!("owns {epoch}"));
    // Until it is killed.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Whoever takes over what a killed service owned takes what it knows, also where it is alone and
/// inherits all at once; the rest is free for the service that comes back.
pub(super) async fn a_strangers_inheritance_is_freed(test: &str, url: &StoreUrl) {
    let folder = tempfile::TempDir::new().unwrap();
    let mut process = child::Process::start(test, url.expose(), folder.path());
    let line = process.says().unwrap();
    let gone = Epoch(line.strip_prefix("owns ").unwrap().parse().unwrap());
    let stranger = open(url).await;
    let epoch = lease(&stranger).await;
    process.kill();
    let nothing = Offer::of([]);
    let claimed = stranger.claim(epoch, 10, &nothing).await.unwrap();
    assert_eq!(ids(&claimed), ["plain"]);
    assert_eq!(claimed.workflows[0].left_by, Some(gone));
    assert_eq!(ids(&stranger.claim(epoch, 10, &nothing).await.unwrap()), [""; 0]);
    let standing = stranger.standings(&["order".into()]).await.unwrap().pop().flatten().unwrap();
    assert_eq!((standing.owner, &*standing.needs.to_string()), (None, "shop/v1.0 (charge)"));
    let back = open(url).await;
    let again = lease(&back).await;
    let knows = Offer::of(["shop/v1.0:charge".parse().unwrap()]);
    let claimed = back.claim(again, 10, &knows).await.unwrap();
    assert_eq!(ids(&claimed), ["order"]);
    assert_eq!(claimed.workflows[0].left_by, Some(gone), "it was cut off all the same");
    // Handed over in order, it is cut off no more.
    back.close_lease(again).await.unwrap();
    let next = lease(&back).await;
    let claimed = back.claim(next, 10, &knows).await.unwrap();
    assert_eq!((ids(&claimed), claimed.workflows[0].left_by), (vec!["order".to_owned()], None));
}
