//! Layers the settings and reads them: defaults ← the environment's file ← the project's file or the
//! one that was named ← variables.
//!
//! The `config` crate merges the layers; what came out is read strictly, key by key, so that
//! every problem is reported at once: a key that cannot be read is noted, its default is put in
//! its place, and the reading begins again.

use std::{
    collections::HashSet,
    env, fs,
    path::{Path, PathBuf},
};

use config::{Config, File, FileFormat};
use gleitzeit_providers::kinds::{ProviderKind, ProviderKinds};
use serde_json::Value;
use serde_path_to_error::Segment;

use super::{
    Settings,
    layers::{TextLayer, Variable, Variables},
    near_miss::{is_near_miss, near_miss},
    path,
    problem::{SettingsError, SettingsProblem, explain},
    relative,
    renamed::{old_name, rename},
    tree::{find, remove_provider, replace},
};

const DEFAULTS: &str = include_str!("../../config/default.toml");

/// The sources of settings, besides the defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The directory of environments' files, and the one that is read.
    environment: Option<(PathBuf, String)>,
    file: Option<PathBuf>,
    /// The project's file with its text.
    project: Option<(PathBuf, String)>,
    variables: Vec<Variable>,
    /// Names of variables that set nothing, but resemble those that do.
    near_misses: Vec<String>,
    texts: Vec<TextLayer>,
    kinds: ProviderKinds,
}

impl Sources {
    /// Only the defaults.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// `config/`, with `GLEITZEIT_ENV` naming the file, and all variables that begin with
    /// `GLEITZEIT__`.
    pub fn of_process() -> Self {
        let variables = env::vars_os().filter_map(|(name, text)| {
            Some((name.into_string().ok()?, text.to_string_lossy().into_owned()))
        });
        let sources = Self::default().with_variables(variables);
        match env::var("GLEITZEIT_ENV") {
            Ok(name) if !name.is_empty() => sources.with_environment("config", name),
            _ => sources,
        }
    }

    /// Reads `<name>.toml` in `directory`, above a `default.toml` there if there is one.
    #[must_use]
    pub fn with_environment(
        mut self,
        directory: impl Into<PathBuf>,
        name: impl Into<String>,
    ) -> Self {
        self.environment = Some((directory.into(), name.into()));
        self
    }

    /// Reads a file instead of the environment's.
    #[must_use]
    pub fn with_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Adds the file of a project, which was read already, above those of the environment. Relative
    /// paths in it, and the default paths of the store and of the protocols, begin at its directory.
    /// A file that is named by [`with_file`](Self::with_file) replaces it.
    #[must_use]
    pub fn with_project_file(mut self, file: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        self.project = Some((file.into(), text.into()));
        self
    }

    /// Adds variables; those whose names do not begin with `GLEITZEIT__` are passed over.
    #[must_use]
    pub fn with_variables(
        mut self,
        variables: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<str>)>,
    ) -> Self {
        for (name, text) in variables {
            match Variable::new(name.as_ref(), text.as_ref()) {
                Some(variable) => self.variables.push(variable),
                None if is_near_miss(name.as_ref()) => {
                    self.near_misses.push(name.as_ref().to_owned());
                }
                None => {}
            }
        }
        self
    }

    /// Adds a text in TOML above the files and below the variables; `name` is what errors call it.
    #[must_use]
    pub fn with_text(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.texts.push(TextLayer { name: name.into(), text: text.into(), base: None });
        self
    }

    /// Adds a kind that providers of the settings may be of.
    #[must_use]
    pub fn with_provider_kind(mut self, kind: ProviderKind) -> Self {
        self.kinds = self.kinds.with(kind);
        self
    }

    /// Reads the settings.
    ///
    /// # Errors
    /// [`SettingsError`] with every file that cannot be read, every unknown key, every value of
    /// the wrong type and every one out of its bounds.
    pub fn load(&self) -> Result<Settings, SettingsError> {
        let texts = self.texts()?;
        let unread: Vec<_> = texts.iter().filter_map(TextLayer::problem).collect();
        if !unread.is_empty() {
            return Err(SettingsError { problems: unread });
        }
        let mut merged = merge(&texts, &self.variables)?;
        let mut defaults = merge(&texts[..1], &[])?;
        let layers = Layers { texts: &texts, variables: &self.variables };
        for id in self.not_built(&defaults) {
            if !layers.is_named(&["providers".to_owned(), id.clone()]) {
                remove_provider(&mut merged, &id);
                remove_provider(&mut defaults, &id);
            }
        }
        let mut warnings = rename(&mut merged, |path| layers.rank(path));
        relative::rebase(&mut merged, |path| layers.base(path));
        // What a provider's kind wants is known only when it reads its settings; a variable whose
        // text looks like a number may be a key or the name of a model.
        let mut as_text = HashSet::new();
        let (settings, mut problems) = loop {
            let mut problems = Vec::new();
            let mut settings = layers.read(merged.clone(), &defaults, &mut problems);
            if let Some(settings) = &mut settings {
                settings.provider_kinds = self.kinds.clone();
            }
            let refused = settings.as_ref().and_then(|it| it.provider_specs().err());
            let mut is_other = false;
            for problem in refused.into_iter().flat_map(|error| error.problems) {
                let path = path::read(&problem.path);
                if let Some((path, text)) = layers.text_of_variable_at(&path, &merged)
                    && as_text.insert(path::written(&path))
                {
                    replace(&mut merged, &path, Some(Value::from(text)));
                    is_other = true;
                }
            }
            if !is_other {
                break (settings, problems);
            }
        };
        let Some(mut settings) = settings else { return Err(SettingsError { problems }) };
        settings.read_from = self.read_from();
        settings.warnings = warnings.drain(..).map(|warning| layers.locate(warning)).collect();
        settings.warnings.extend(self.near_misses.iter().map(|name| near_miss(name)));
        for found in [settings.check().err(), settings.provider_specs().err()] {
            let found = found.into_iter().flat_map(|error| error.problems);
            problems.extend(found.map(|problem| layers.locate(problem)));
        }
        if problems.is_empty() { Ok(settings) } else { Err(SettingsError { problems }) }
    }

    /// The providers of the defaults whose kind this build does not have.
    fn not_built(&self, defaults: &Value) -> Vec<String> {
        let providers = defaults.get("providers").and_then(Value::as_object);
        let is_missing = |provider: &Value| {
            let kind = provider.get("kind").and_then(Value::as_str).unwrap_or_default();
            self.kinds.get(kind).is_none_or(|kind| !kind.is_built())
        };
        let missing = providers.into_iter().flatten().filter(|(_, it)| is_missing(it));
        missing.map(|(id, _)| id.clone()).collect()
    }

    /// The files from the bottom up, each with what helps where it cannot be read.
    fn files(&self) -> impl Iterator<Item = (PathBuf, Option<String>)> {
        let mut files = Vec::new();
        if let Some((directory, name)) = &self.environment {
            let default = directory.join("default.toml");
            if default.is_file() {
                files.push((default, None));
            }
            if self.file.is_none() {
                let help = format!("GLEITZEIT_ENV is `{name}`");
                files.push((directory.join(format!("{name}.toml")), Some(help)));
            }
        }
        files.extend(self.file.iter().map(|file| (file.clone(), None)));
        files.into_iter()
    }

    /// The project's file, unless another one was named.
    fn project(&self) -> Option<&(PathBuf, String)> {
        self.project.as_ref().filter(|_| self.file.is_none())
    }

    fn read_from(&self) -> Vec<PathBuf> {
        let project = self.project().map(|(path, _)| path.clone());
        self.files().map(|(path, _)| path).chain(project).collect()
    }

    /// The texts from the bottom up; the defaults come first.
    fn texts(&self) -> Result<Vec<TextLayer>, SettingsError> {
        let project = self.project();
        let base = project.and_then(|(path, _)| path.parent()).map(Path::to_owned);
        let name = "config/default.toml".to_owned();
        let mut texts = vec![TextLayer { name, text: DEFAULTS.to_owned(), base: base.clone() }];
        let mut problems = Vec::new();
        for (path, help) in self.files() {
            let name = path.display().to_string();
            match fs::read_to_string(&path) {
                Ok(text) => texts.push(TextLayer { name, text, base: None }),
                Err(error) => {
                    let problem = SettingsProblem::new("", format!("cannot be read: {error}"));
                    problems.push(SettingsProblem { help, ..problem.origin(name) });
                }
            }
        }
        texts.extend(project.map(|(path, text)| TextLayer {
            name: path.display().to_string(),
            text: text.clone(),
            base,
        }));
        texts.extend(self.texts.iter().cloned());
        if problems.is_empty() { Ok(texts) } else { Err(SettingsError { problems }) }
    }
}

/// One tree out of all layers.
fn merge(texts: &[TextLayer], variables: &[Variable]) -> Result<Value, SettingsError> {
    let mut builder = Config::builder();
    for layer in texts {
        builder = builder.add_source(File::from_str(&layer.text, FileFormat::Toml));
    }
    let mut tree: Value = builder
        .add_source(Variables(variables.to_vec()))
        .build()
        .and_then(Config::try_deserialize)
        .map_err(|error| SettingsError {
            problems: vec![SettingsProblem::new("", error.to_string())],
        })?;
    // `config` keeps tables in the order of their hashes: problems would come in another one each time.
    tree.sort_all_objects();
    Ok(tree)
}

struct Layers<'a> {
    texts: &'a [TextLayer],
    variables: &'a [Variable],
}

impl Layers<'_> {
    /// True if a layer above the defaults has the key, or one below it.
    fn is_named(&self, path: &[String]) -> bool {
        self.rank(path).is_some()
    }

    /// The uppermost layer above the defaults that has the key, or one below it; variables are above
    /// all texts.
    fn rank(&self, path: &[String]) -> Option<usize> {
        if self.variables.iter().any(|variable| variable.path.starts_with(path)) {
            return Some(self.texts.len());
        }
        (1..self.texts.len()).rev().find(|at| self.texts[*at].find(path).is_some())
    }

    /// The directory that a relative path at this key begins at; `None` for the working directory.
    fn base(&self, path: &[String]) -> Option<&Path> {
        let rank = self.rank(path).or_else(|| self.rank(&old_name(path)?));
        // Variables have no directory; a key that no layer has is a default.
        self.texts.get(rank.unwrap_or(0))?.base.as_deref()
    }

    /// Reads what it can; notes what it cannot, and puts the default there.
    fn read(
        &self,
        mut tree: Value,
        defaults: &Value,
        problems: &mut Vec<SettingsProblem>,
    ) -> Option<Settings> {
        let mut put_back = HashSet::new();
        let mut as_text = HashSet::new();
        loop {
            let error = match serde_path_to_error::deserialize::<_, Settings>(&tree) {
                Ok(settings) => return Some(settings),
                Err(error) => error,
            };
            let path = steps(error.path());
            // A variable's text may look like a number where a text is wanted.
            if let Some(text) = self.text_of_variable(&path, &tree)
                && as_text.insert(path::written(&path))
            {
                replace(&mut tree, &path, Some(Value::from(text)));
                continue;
            }
            problems
                .push(self.locate(explain(path::written(&path), &error.into_inner().to_string())));
            // Without a default the key is taken away; where it is missed, what holds it is put
            // back instead.
            let mut path = path.as_slice();
            while !path.is_empty() && !put_back.insert(path::written(path)) {
                problems.pop();
                path = &path[..path.len() - 1];
            }
            if path.is_empty() {
                return None;
            }
            replace(&mut tree, path, find(defaults, path).cloned());
        }
    }

    fn text_of_variable(&self, path: &[String], tree: &Value) -> Option<String> {
        let variable =
            self.variables.iter().find(|it| it.path.len() == path.len() && it.sets(path))?;
        let found = find(tree, path)?;
        (!found.is_string() && !found.is_object()).then(|| variable.text.clone())
    }

    /// The same for a key at or above `path`, whatever its text was taken for. What deeper variables
    /// have put together is nobody's text.
    fn text_of_variable_at(&self, path: &[String], tree: &Value) -> Option<(Vec<String>, String)> {
        let variable = self.variables.iter().find(|variable| variable.sets(path))?;
        let is_shared =
            |other: &Variable| other.path != variable.path && variable.sets(&other.path);
        let found = find(tree, &variable.path)?;
        let is_text = found.is_string() || self.variables.iter().any(is_shared);
        (!is_text).then(|| (variable.path.clone(), variable.text.clone()))
    }

    /// Adds where the key was written: in the uppermost layer that has it.
    fn locate(&self, mut problem: SettingsProblem) -> SettingsProblem {
        let mut path = path::read(&problem.path);
        if let Some(old) = old_name(&path)
            && !self.is_named(&path)
            && self.is_named(&old)
        {
            path = old;
        }
        let variable = self.variables.iter().rev().find(|variable| variable.sets(&path));
        // A key that is nowhere, or spelled otherwise, has the place of what holds it.
        let written = |len| self.texts.iter().rev().find_map(|layer| layer.find(&path[..len]));
        problem.origin = match variable {
            Some(variable) => Some(variable.name.clone()),
            None => (1..=path.len()).rev().find_map(written),
        };
        problem
    }
}

/// The keys on the way to where the reading stopped.
fn steps(path: &serde_path_to_error::Path) -> Vec<String> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } | Segment::Enum { variant: key } => Some(key.clone()),
            Segment::Unknown => None,
        })
        .collect()
}
