//! Every protocol that is known, with its inheritance followed and its methods ready for use.
//!
//! Kept by the `ProtocolRegistry`, which hands out clones: a catalog is one shared pointer, and a
//! change copies what others still hold. A snapshot never changes under its reader.
//!
//! Invariant: every method in the catalog is complete. Its protocol's ancestors are in the catalog,
//! its schemas are compiled, its examples fit. A change that would break this is rejected and
//! leaves the catalog unchanged.

mod compatible;
mod derive;
mod error;
mod resolve;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

pub(crate) use self::resolve::{names_version, unknown_need};
pub use self::{
    error::{Incompatibility, RegisterError},
    resolve::ResolveError,
};
use super::{
    builtin,
    method::{Method, MethodRef},
    spec::{MethodSpec, ProtocolSpec},
    validate::schema_error::SchemaError,
};
use crate::id::{Capability, ProtocolId, Version};

/// The protocols of a runtime. Cloning is cheap: a snapshot.
#[derive(Debug, Clone, Default)]
pub struct ProtocolCatalog {
    tables: Arc<CatalogTables>,
}

#[derive(Debug, Clone, Default)]
struct CatalogTables {
    protocols: BTreeMap<ProtocolId, CatalogEntry>,
    methods: HashMap<Capability, MethodRef>,
    generation: u64,
}

#[derive(Debug, Clone)]
struct CatalogEntry {
    /// As registered.
    declared: Arc<ProtocolSpec>,
    /// With the methods it inherits.
    whole: Arc<ProtocolSpec>,
}

impl ProtocolCatalog {
    /// An empty catalog.
    pub fn new() -> Self {
        Self::default()
    }

    /// The catalog of the built-in protocols.
    ///
    /// # Panics
    /// Never: the test of the built-in protocols registers them.
    pub fn builtin() -> Self {
        let mut catalog = Self::new();
        for spec in builtin::all() {
            catalog.register(spec).expect("the built-in protocols are valid");
        }
        catalog
    }

    /// Adds a protocol. Registering the very same one again changes nothing.
    ///
    /// # Errors
    /// [`RegisterError::AlreadyRegistered`] with another content, [`RegisterError::UnknownParent`],
    /// [`RegisterError::Cycle`] when it extends itself, [`RegisterError::Invalid`] with everything
    /// wrong in it.
    pub fn register(&mut self, spec: ProtocolSpec) -> Result<ProtocolId, RegisterError> {
        let spec = derive::normalised(spec)?;
        let id = spec.protocol_id();
        if let Some(entry) = self.tables.protocols.get(&id) {
            return if *entry.declared == spec {
                Ok(id)
            } else {
                Err(RegisterError::AlreadyRegistered { id })
            };
        }
        self.change(spec)?;
        Ok(id)
    }

    /// Adds several protocols, in whatever order they come: parents are registered before their
    /// children. All of them, or none.
    ///
    /// # Errors
    /// One error for each protocol that cannot be registered by itself; [`RegisterError::Cycle`]
    /// for those that extend each other in a circle.
    pub fn register_all(
        &mut self,
        specs: impl IntoIterator<Item = ProtocolSpec>,
    ) -> Result<Vec<ProtocolId>, Vec<RegisterError>> {
        let mut errors = Vec::new();
        let mut failed = BTreeSet::new();
        let mut trial = self.clone();
        let mut waiting: Vec<ProtocolSpec> = specs.into_iter().collect();
        let ids = waiting.iter().map(ProtocolSpec::protocol_id).collect();
        while !waiting.is_empty() {
            let coming: BTreeSet<_> = waiting.iter().map(ProtocolSpec::protocol_id).collect();
            let blocked = |spec: &ProtocolSpec| {
                spec.extends.as_ref().is_some_and(|parent| coming.contains(parent))
            };
            let (later, now): (Vec<_>, Vec<_>) = waiting.into_iter().partition(blocked);
            if now.is_empty() {
                errors.extend(derive::cycles(&later));
                break;
            }
            for spec in now {
                let id = spec.protocol_id();
                // A child of a failed protocol fails for the same reason, which is in the list
                // already.
                let orphaned = spec.extends.as_ref().is_some_and(|parent| failed.contains(parent));
                let error = if orphaned { None } else { trial.register(spec).err() };
                if orphaned || error.is_some() {
                    failed.insert(id);
                }
                errors.extend(error);
            }
            waiting = later;
        }
        if errors.is_empty() {
            *self = trial;
            Ok(ids)
        } else {
            Err(errors)
        }
    }

    /// Replaces the registered protocol of the same name and version, and derives its children
    /// again.
    ///
    /// While tasks use it (`in_use`), the new one must be compatible; the rule is structural and
    /// on the safe side. For the protocol and each of its descendants:
    ///
    /// - every method is still there;
    /// - the parameters keep their order, and new ones are appended and optional;
    /// - no parameter accepts less: no type is taken away, no bound is tightened or added, no
    ///   pattern is changed or added, no list of values loses one, no field becomes required, no
    ///   object closes;
    /// - no result promises less: whatever the new schema of the result allows, the old one
    ///   allowed.
    ///
    /// # Errors
    /// [`RegisterError::NotRegistered`], [`RegisterError::Incompatible`],
    /// [`RegisterError::BreaksChild`], and those of [`register`](Self::register).
    pub fn replace(&mut self, spec: ProtocolSpec, in_use: bool) -> Result<(), RegisterError> {
        let spec = derive::normalised(spec)?;
        let id = spec.protocol_id();
        let Some(entry) = self.tables.protocols.get(&id) else {
            return Err(self.not_registered(id));
        };
        if *entry.declared == spec {
            return Ok(());
        }
        let mut trial = self.clone();
        trial.change(spec)?;
        if in_use {
            self.check_compatible(&trial, &id)?;
        }
        *self = trial;
        Ok(())
    }

    /// A protocol with the methods it inherits.
    pub fn get(&self, id: &ProtocolId) -> Option<&Arc<ProtocolSpec>> {
        self.tables.protocols.get(id).map(|entry| &entry.whole)
    }

    /// A protocol as it was registered, without what it inherits.
    pub fn declared(&self, id: &ProtocolId) -> Option<&Arc<ProtocolSpec>> {
        self.tables.protocols.get(id).map(|entry| &entry.declared)
    }

    /// Every protocol, by name and version, each with the methods it inherits.
    pub fn list(&self) -> impl Iterator<Item = &Arc<ProtocolSpec>> {
        self.tables.protocols.values().map(|entry| &entry.whole)
    }

    /// The newest version of a name.
    pub fn newest(&self, name: &str) -> Option<&Arc<ProtocolSpec>> {
        self.versions(name).next_back().map(|(_, entry)| &entry.whole)
    }

    /// The protocols that have `method`, by name and version.
    pub fn find_compatible_protocols(&self, method: &str) -> Vec<ProtocolId> {
        let having = |(_, entry): &(_, &CatalogEntry)| entry.whole.methods.contains_key(method);
        self.tables.protocols.iter().filter(having).map(|(id, _)| id.clone()).collect()
    }

    /// A method, ready for use.
    pub fn method(&self, capability: &Capability) -> Option<MethodRef> {
        self.tables.methods.get(capability).map(Arc::clone)
    }

    /// The methods that a provider of the whole protocol serves, in the order of declaration; empty
    /// for a protocol that is not registered.
    pub fn capabilities(&self, id: &ProtocolId) -> Vec<Capability> {
        let methods = self.get(id).map(|spec| &spec.methods);
        methods
            .into_iter()
            .flat_map(|methods| methods.keys())
            .map(|method| Capability::new(id.clone(), method.as_str()))
            .collect()
    }

    /// Grows with each change: who has seen this number has seen this catalog.
    pub fn generation(&self) -> u64 {
        self.tables.generation
    }

    fn versions(
        &self,
        name: &str,
    ) -> impl DoubleEndedIterator<Item = (&ProtocolId, &CatalogEntry)> {
        let last = Version { major: u32::MAX, minor: u32::MAX, patch: u32::MAX };
        let range = ProtocolId::new(name, Version::default())..=ProtocolId::new(name, last);
        self.tables.protocols.range(range)
    }

    /// The names of all protocols, each once.
    fn names(&self) -> BTreeSet<&str> {
        self.tables.protocols.keys().map(ProtocolId::name).collect()
    }

    fn not_registered(&self, id: ProtocolId) -> RegisterError {
        RegisterError::NotRegistered { nearest: self.nearest_id(&id), id }
    }

    fn nearest_id(&self, id: &ProtocolId) -> Option<ProtocolId> {
        let known: Vec<_> = self.tables.protocols.keys().map(ToString::to_string).collect();
        let text = id.to_string();
        let found = super::nearest::nearest(&text, known.iter().map(String::as_str))?;
        found.parse().ok()
    }

    /// Derives `spec` and whatever extends it, and puts them on the shelf; all or nothing.
    fn change(&mut self, spec: ProtocolSpec) -> Result<(), RegisterError> {
        let id = spec.protocol_id();
        self.check_parent(&id, &spec)?;
        let mut next = CatalogTables::clone(&self.tables);
        next.install(&Arc::new(spec))?;
        let mut changed = vec![id.clone()];
        while let Some(parent) = changed.pop() {
            for child in next.children(&parent) {
                next.install(&child).map_err(|error| error.of_child(&id))?;
                changed.push(child.protocol_id());
            }
        }
        next.generation += 1;
        self.tables = Arc::new(next);
        Ok(())
    }

    /// Refuses a parent that is unknown, or that is the protocol itself or a descendant of it.
    fn check_parent(&self, id: &ProtocolId, spec: &ProtocolSpec) -> Result<(), RegisterError> {
        let mut chain = vec![id.clone()];
        let mut above = spec.extends.as_ref();
        while let Some(parent) = above {
            chain.push(parent.clone());
            if parent == id {
                return Err(RegisterError::Cycle { chain });
            }
            let Some(entry) = self.tables.protocols.get(parent) else {
                let (id, parent) = (id.clone(), parent.clone());
                return Err(RegisterError::UnknownParent {
                    nearest: self.nearest_id(&parent),
                    id,
                    parent,
                });
            };
            above = entry.declared.extends.as_ref();
        }
        Ok(())
    }

    /// Refuses a `trial` in which `id` or a descendant of it accepts less than here.
    fn check_compatible(&self, trial: &Self, id: &ProtocolId) -> Result<(), RegisterError> {
        let reasons: Vec<Incompatibility> = self
            .tables
            .protocols
            .iter()
            .filter_map(|(of, old)| Some((of, &old.whole, trial.get(of)?)))
            .filter(|(_, old, new)| old != new)
            .flat_map(|(of, old, new)| compatible::protocol(of, old, new))
            .collect();
        if reasons.is_empty() {
            Ok(())
        } else {
            Err(RegisterError::Incompatible { id: id.clone(), reasons })
        }
    }
}

impl CatalogTables {
    /// The protocols that extend `parent`, as they were registered.
    fn children(&self, parent: &ProtocolId) -> Vec<Arc<ProtocolSpec>> {
        let declared = self.protocols.values().map(|entry| &entry.declared);
        declared.filter(|spec| spec.extends.as_ref() == Some(parent)).map(Arc::clone).collect()
    }

    /// Compiles the methods of `declared` and adds it. Its parent is in the tables.
    fn install(&mut self, declared: &Arc<ProtocolSpec>) -> Result<(), RegisterError> {
        let id = declared.protocol_id();
        let parent = declared.extends.as_ref().and_then(|parent| self.protocols.get(parent));
        let whole = derive::inherit(declared, parent.map(|entry| &*entry.whole));
        let mut errors = Vec::new();
        let mut ready = Vec::with_capacity(whole.methods.len());
        for (name, spec) in &whole.methods {
            match self.ready(Capability::new(id.clone(), name.as_str()), spec) {
                Ok(method) => ready.push(method),
                Err(wrong) => {
                    let prefix = derive::method_pointer(name);
                    errors.extend(wrong.into_iter().map(|error| error.below(&prefix)));
                }
            }
        }
        if !errors.is_empty() {
            return Err(RegisterError::Invalid { id, errors });
        }
        self.methods.retain(|capability, _| capability.protocol != id);
        self.methods.extend(ready.into_iter().map(|m| (Capability::clone(&m.capability), m)));
        self.protocols
            .insert(id, CatalogEntry { declared: Arc::clone(declared), whole: Arc::new(whole) });
        Ok(())
    }

    /// A method compiled, or the one there is when it has not changed, so that it keeps in mind
    /// whether it has warned.
    fn ready(
        &self,
        capability: Capability,
        spec: &MethodSpec,
    ) -> Result<MethodRef, Vec<SchemaError>> {
        match self.methods.get(&capability) {
            Some(method) if method.spec == *spec => Ok(Arc::clone(method)),
            _ => Method::compile(capability, spec.clone()).map(Arc::new),
        }
    }
}
