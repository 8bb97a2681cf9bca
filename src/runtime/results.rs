//! Writes the results of settled workflows that ask for them in files, away from the actors.
//!
//! Told by the engine, which has stored the end of the workflow by then: what a crash keeps from
//! being written, `gleitzeit resume ID` writes.

use std::sync::Arc;

use gleitzeit_domain::workflow::WorkflowRecord;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{results, settings::Settings};

/// The task that writes, and the way to it.
#[derive(Debug)]
pub(super) struct ResultWriter {
    ended: mpsc::UnboundedSender<Arc<WorkflowRecord>>,
    finish: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl ResultWriter {
    /// Waits for workflows on the current thread.
    pub(super) fn start(settings: Settings) -> Self {
        let (ended, records) = mpsc::unbounded_channel();
        let (finish, finished) = oneshot::channel();
        let task = actix_rt::spawn(write_all(records, finished, Arc::new(settings)));
        Self { ended, finish, task }
    }

    /// For the engine.
    pub(super) fn sender(&self) -> mpsc::UnboundedSender<Arc<WorkflowRecord>> {
        self.ended.clone()
    }

    /// Writes what has come in by now, and ends.
    pub(super) async fn finish(self) {
        let _ = self.finish.send(());
        let _ = self.task.await;
    }
}

async fn write_all(
    mut records: mpsc::UnboundedReceiver<Arc<WorkflowRecord>>,
    mut finished: oneshot::Receiver<()>,
    settings: Arc<Settings>,
) {
    loop {
        tokio::select! {
            biased;
            record = records.recv() => match record {
                Some(record) => write(record, &settings).await,
                None => return,
            },
            // The engine holds a sender for as long as it lives, so the channel never ends first.
            _ = &mut finished => return,
        }
    }
}

async fn write(record: Arc<WorkflowRecord>, settings: &Arc<Settings>) {
    let (id, settings) = (record.id.clone(), Arc::clone(settings));
    let written = tokio::task::spawn_blocking(move || results::write(&record, &settings)).await;
    match written {
        Ok(Ok(Some(files))) => {
            tracing::info!(workflow = %id, json = %files.json.display(), "results written");
        }
        Ok(Ok(None)) | Err(_) => {}
        Ok(Err(error)) => tracing::error!(workflow = %id, %error, "results not written"),
    }
}
