//! What every command starts from: the settings, how it prints, and the way to a store, a catalog of
//! protocols or a whole runtime.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gleitzeit::{
    WaitPolicy,
    runtime::{self, Runtime, RuntimeBuilder},
    settings::{Settings, Sources, StoreUrl},
};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    id::WorkflowId,
    protocol::catalog::ProtocolCatalog,
    store::Store,
    workflow::{TaskSpec, WorkflowSpec},
};

use super::{
    catalog,
    global::Global,
    output::{self, Exit, Failure, Says},
    progress::ProgressMode,
    project,
    report::View,
};

/// Closing a store that was only read takes no time.
const CLOSING: Duration = Duration::from_secs(5);

/// Single files that jails show from the start; each takes a mount and a descriptor.
const READ_ONLY_FILES_MAX: usize = 256;

/// What every command starts from.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// In force, with what the command line says over them.
    pub(crate) settings: Settings,
    /// True prints one JSON document.
    pub(crate) json: bool,
    /// How progress is printed.
    pub(crate) progress: ProgressMode,
    /// True shows what tasks wrote when they end.
    pub(crate) logs: bool,
    /// The file that the end of a workflow is reported to.
    pub(crate) junit: Option<PathBuf>,
}

impl Session {
    /// Reads the settings and starts logging, without what the command says itself.
    ///
    /// # Errors
    /// Everything wrong with the settings.
    pub(crate) fn new(global: Global, says: Says) -> Result<Self, Failure> {
        let Global { config, store, json, no_progress, verbose } = global;
        let mut sources = Sources::of_process();
        if let Some(file) = config {
            sources = sources.with_file(file);
        } else if let Some(file) = project::find()? {
            sources = sources.with_project_file(file.path, file.text);
        }
        if let Some(store) = store {
            // Read as the variable would be, so that the paths that tasks may read are checked
            // against it.
            sources = sources.with_variables([("GLEITZEIT__STORAGE__URL", store.expose())]);
        }
        let mut settings = sources.load()?;
        settings.storage.url = settings.storage.url();
        output::start_log(&settings.logging, verbose, says)?;
        for warning in &settings.warnings {
            output::warn(warning);
        }
        let progress = if json || no_progress {
            ProgressMode::Nothing
        } else if output::can_move() && !output::writes_json_lines() {
            ProgressMode::Drawing
        } else {
            ProgressMode::Lines
        };
        Ok(Self { settings, json, progress, logs: false, junit: None })
    }

    /// `config`: prints what is in force.
    ///
    /// # Errors
    /// None that can be brought about.
    pub(crate) fn show(&self) -> Result<Exit, Failure> {
        if self.json {
            let mut document = serde_json::to_value(&self.settings).unwrap_or_default();
            document["read_from"] = serde_json::json!(self.settings.read_from);
            output::document(&document);
        } else {
            let text = toml::to_string(&self.settings)
                .map_err(|error| Failure::infrastructure(error.to_string()))?;
            for file in &self.settings.read_from {
                output::text(format_args!("# read from {}", file.display()));
            }
            output::text(text.trim_end());
        }
        Ok(Exit::Success)
    }

    /// The protocols built in, those of the settings' directory, and those of `files`.
    ///
    /// # Errors
    /// Everything wrong in any of the files.
    pub(crate) fn catalog(&self, files: &[PathBuf]) -> Result<ProtocolCatalog, Failure> {
        catalog::read(&self.settings.protocols.directory, files)
    }

    /// True if another command can find the workflows of this one.
    pub(crate) fn is_kept(&self) -> bool {
        !self.settings.storage.url.is_memory()
    }

    /// Where workflows are kept, as a person finds it: a file by its whole path, and whether it is
    /// there.
    pub(crate) fn store_location(&self) -> String {
        let url = &self.settings.storage.url;
        let Some(path) = url.sqlite_path() else { return url.to_string() };
        let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let whole = whole.display();
        if path.exists() {
            format!("sqlite:{whole}")
        } else {
            format!(
                "sqlite:{whole}: there is no such file; `--store` or `--config` name another, or \
                 run this in the directory where the workflows were run"
            )
        }
    }

    /// The view of a report of one of its workflows.
    pub(crate) fn view(&self) -> View {
        View::new(self.is_kept())
    }

    /// Leaves the schema of the database as it is: for commands that are about what is stored there
    /// already.
    pub(crate) fn migrates_nothing(mut self) -> Self {
        self.settings.storage.auto_migrate = false;
        self
    }

    /// The same settings with everything in memory.
    pub(crate) fn in_memory(&self) -> Self {
        let mut session = self.clone();
        session.settings.storage.url = StoreUrl::memory();
        // Nothing of it is kept, so that there is no workflow to name.
        if session.progress == ProgressMode::Lines {
            session.progress = ProgressMode::Nothing;
        }
        session
    }

    /// Lets tasks read files below `directory`.
    pub(crate) fn allow_files(&mut self, directory: &Path) {
        self.settings.security.file_roots.push(directory.to_owned());
    }

    /// A runtime that recovers nothing by itself.
    ///
    /// # Errors
    /// Whatever keeps it from starting.
    pub(crate) async fn start(&self) -> Result<Runtime, Failure> {
        let builder = Runtime::builder(self.settings.clone()).without_recovery();
        Ok(builder.wait_policy(WaitPolicy::OnceForAbsent).start().await?)
    }

    /// The same with the providers that these workflows call: a server that none of them asks
    /// need not be up.
    ///
    /// # Errors
    /// Whatever keeps it from starting.
    pub(crate) async fn start_for<'w>(
        &self,
        workflows: impl IntoIterator<Item = &'w WorkflowSpec>,
    ) -> Result<Runtime, Failure> {
        Ok(self.builder_for(workflows)?.start().await?)
    }

    /// What [`start_for`](Self::start_for) starts.
    ///
    /// # Errors
    /// What is wrong with the settings of a provider.
    pub(crate) fn builder_for<'w>(
        &self,
        workflows: impl IntoIterator<Item = &'w WorkflowSpec>,
    ) -> Result<RuntimeBuilder, Failure> {
        let workflows: Vec<&WorkflowSpec> = workflows.into_iter().collect();
        let tasks = workflows.iter().flat_map(|workflow| &workflow.tasks);
        let called: HashSet<&str> = tasks.map(protocol_of).collect();
        let mut settings = self.settings.clone();
        if called.contains("python") {
            settings.security.read_only_paths.extend(self.initial_read_only_paths(&workflows));
        }
        let mut builder = Runtime::builder(self.settings.clone())
            .without_recovery()
            .without_settings_providers()
            .wait_policy(WaitPolicy::OnceForAbsent);
        spare_none(&mut settings);
        for provider in settings.provider_specs()? {
            let own = provider.capabilities.iter().map(|it| &it.protocol);
            if own.chain(&provider.protocols).any(|it| called.contains(it.name())) {
                builder = builder.provider(provider);
            }
        }
        Ok(builder)
    }

    /// The files of the only workflow, where they are few: its tasks see them in the jails that are
    /// started anyway. Files of several workflows are kept apart by the provider.
    fn initial_read_only_paths(&self, workflows: &[&WorkflowSpec]) -> Vec<PathBuf> {
        match workflows {
            [WorkflowSpec { file_access: Some(access), .. }]
                if access.files.len() <= READ_ONLY_FILES_MAX =>
            {
                self.settings.permitted(access)
            }
            _ => Vec::new(),
        }
    }

    /// The same without providers: for what runs no task.
    ///
    /// # Errors
    /// Whatever keeps it from starting.
    pub(crate) async fn start_without_providers(&self) -> Result<Runtime, Failure> {
        let builder = Runtime::builder(self.settings.clone());
        Ok(builder.without_recovery().without_settings_providers().start().await?)
    }

    fn store_is_there(&self) -> bool {
        self.settings.storage.url.sqlite_path().is_none_or(Path::exists)
    }

    /// The store, to read it, without a runtime over it. `None` if there is none yet: a read must
    /// not make one.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) async fn store(&self) -> Result<Option<Arc<dyn Store>>, Failure> {
        Ok(runtime::open_existing_store(&self.settings).await?)
    }

    /// The same for a command that is about to run what it finds: the schema is brought up to date
    /// first, where it may be.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) async fn store_to_run(&self) -> Result<Option<Arc<dyn Store>>, Failure> {
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        if self.settings.storage.auto_migrate && !self.settings.storage.url.is_memory() {
            gleitzeit::storage::admin::migrate_existing(&self.settings.storage.url).await?;
        }
        self.store().await
    }

    /// The same store, or an error that names the workflow that is not in it.
    ///
    /// # Errors
    /// When it cannot be opened, or is not there.
    pub(crate) async fn store_of(&self, id: &WorkflowId) -> Result<Arc<dyn Store>, Failure> {
        self.store().await?.ok_or_else(|| self.no_workflow(id))
    }

    /// No such workflow.
    pub(crate) fn no_workflow(&self, id: &WorkflowId) -> Failure {
        let message = format!(
            "no workflow `{id}` in {}{}",
            self.store_location(),
            if self.store_is_there() {
                "; `gleitzeit list` shows those that are there"
            } else {
                ""
            },
        );
        TaskError::new(ErrorCode::WorkflowNotFound, message).into()
    }
}

/// Has no interpreter started that no task has asked for: this process ends with its workflows.
fn spare_none(settings: &mut Settings) {
    for provider in settings.providers.values_mut() {
        if provider.kind == "python" {
            provider.config.0.entry("prefork").or_insert(false.into());
        }
    }
}

/// The name of the protocol that a task calls.
fn protocol_of(task: &TaskSpec) -> &str {
    let text = task.protocol.as_deref().unwrap_or(&task.method);
    text.split(['/', ':']).next().unwrap_or(text)
}

/// Lets go of a store that was opened without a runtime.
///
/// # Errors
/// When what was written is not committed in time.
pub(crate) async fn close(store: Arc<dyn Store>) -> Result<(), Failure> {
    Ok(store.close(CLOSING).await?)
}
