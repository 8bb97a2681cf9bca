//! The needs of a workflow, and the offer of a process.
//!
//! Needs are stored with a workflow at its submission, so that a process which does not know one of
//! its methods never takes it up: in a rolling upgrade, or where services with protocols of their
//! own share a database. An offer is what a process knows and has a provider for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use crate::{
    id::{Capability, ProtocolId, Version},
    protocol::builtin::names,
};

/// The methods that a workflow calls, each once and in order. Empty means that they are not known:
/// the workflow was stored by a program that did not write them down, and any process may try.
///
/// A method is written `shop/v1.0:charge` if the task names the version, and `shop/v1.0+:charge` if
/// it does not: then a later version with the same major number is accepted, and the one that the
/// workflow was checked against is preferred. `shop:charge` is any version: the process that
/// accepted the submission knew none. After a `#` follows a fingerprint of the schemas that the
/// workflow was checked against: a process with the same schemas need not check again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Needs(Arc<[Arc<str>]>);

impl Default for Needs {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

impl Needs {
    /// Of these methods, in any order.
    pub fn new(methods: impl IntoIterator<Item = Arc<str>>) -> Self {
        let mut distinct: Vec<Arc<str>> = Vec::new();
        let mut many = BTreeSet::new();
        for method in methods {
            // The text of a method is shared by the tasks that call it: most are seen at a glance.
            if distinct.iter().rev().take(FEW).any(|known| Arc::ptr_eq(known, &method)) {
                continue;
            }
            if distinct.len() < FEW {
                distinct.push(method);
            } else {
                many.insert(method);
            }
        }
        if distinct.len() > 1 {
            many.extend(distinct);
            distinct = many.into_iter().collect();
        }
        Self(distinct.into())
    }

    /// True if no methods are known.
    pub fn is_unknown(&self) -> bool {
        self.0.is_empty()
    }

    /// The methods, in order.
    pub fn methods(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|method| &**method)
    }

    /// The version of `method` of the protocol `name` that the workflow was checked against where
    /// its tasks name none.
    pub(crate) fn checked_version(&self, name: &str, method: &str) -> Option<Version> {
        let of_method = |text| {
            let need = Need::read(text)?;
            need.version.filter(|_| need.or_later && need.name == name && need.method == method)
        };
        self.methods().filter_map(of_method).max()
    }

    /// True if one of these texts is among the needs.
    pub(crate) fn have_one_of(&self, texts: [&Arc<str>; 2]) -> bool {
        self.0.iter().any(|need| texts.contains(&need))
    }
}

/// Methods up to this many are compared one by one.
const FEW: usize = 8;

impl FromIterator<Arc<str>> for Needs {
    fn from_iter<T: IntoIterator<Item = Arc<str>>>(methods: T) -> Self {
        Self::new(methods)
    }
}

/// The form for people: `shop/v1.0 (charge, ship)`. Built-in protocols are left out if there are
/// others.
impl fmt::Display for Needs {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut protocols: BTreeMap<(&str, Option<Version>), BTreeSet<&str>> = BTreeMap::new();
        for need in self.methods().filter_map(Need::read) {
            protocols.entry((need.name, need.version)).or_default().insert(need.method);
        }
        if protocols.keys().any(|(name, _)| !names::is_builtin(name)) {
            protocols.retain(|(name, _), _| !names::is_builtin(name));
        }
        if protocols.is_empty() {
            return out.write_str("its methods");
        }
        for (at, ((name, version), methods)) in protocols.into_iter().enumerate() {
            if at > 0 {
                out.write_str(", ")?;
            }
            out.write_str(name)?;
            if let Some(version) = version {
                write!(out, "/{version}")?;
            }
            let methods: Vec<&str> = methods.into_iter().collect();
            write!(out, " ({})", methods.join(", "))?;
        }
        Ok(())
    }
}

/// One method that is needed.
struct Need<'a> {
    name: &'a str,
    version: Option<Version>,
    or_later: bool,
    method: &'a str,
}

impl<'a> Need<'a> {
    /// `None` for what a newer program may have written.
    fn read(text: &'a str) -> Option<Self> {
        let (protocol, method) = text.split_once(':')?;
        let method = method.split_once('#').map_or(method, |(method, _)| method);
        let Some((name, version)) = protocol.split_once('/') else {
            return Some(Self { name: protocol, version: None, or_later: true, method });
        };
        let exact = version.strip_suffix('+');
        let version = exact.unwrap_or(version).parse().ok()?;
        Some(Self { name, version: Some(version), or_later: exact.is_some(), method })
    }

    fn is_met_by(&self, known: Version) -> bool {
        self.version.is_none_or(|version| {
            version == known || (self.or_later && known.major == version.major && known > version)
        })
    }
}

/// The need of a task that names the version of its method, and of one that does not.
/// `print` is the fingerprint of the method's schemas.
pub(crate) fn texts(capability: &Capability, print: u64) -> [Arc<str>; 2] {
    let Capability { protocol, method } = capability;
    [
        format!("{protocol}:{method}#{print:016x}").into(),
        format!("{protocol}+:{method}#{print:016x}").into(),
    ]
}

/// The need of a method that is not known here; `None` if its version is not valid.
pub(crate) fn unknown_text(name: &str, version: Option<&str>, method: &str) -> Option<Arc<str>> {
    let Some(version) = version else { return Some(format!("{name}:{method}").into()) };
    let version: Version = version.parse().ok()?;
    Some(format!("{}:{method}", ProtocolId::new(name, version)).into())
}

/// The methods that a process can run. Cheap to clone, and compared by content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer(Option<Arc<BTreeSet<Capability>>>);

impl Offer {
    /// Every method.
    pub fn everything() -> Self {
        Self(None)
    }

    /// These methods.
    pub fn of(methods: impl IntoIterator<Item = Capability>) -> Self {
        Self(Some(Arc::new(methods.into_iter().collect())))
    }

    /// True if a workflow with these needs can be run. Unknown needs may be tried.
    pub fn covers(&self, needs: &Needs) -> bool {
        let Some(methods) = &self.0 else { return true };
        needs.methods().all(|text| {
            Need::read(text).is_some_and(|need| {
                let of_it = |known: &&Capability| {
                    known.protocol.name() == need.name && *known.method == *need.method
                };
                methods.iter().filter(of_it).any(|known| need.is_met_by(known.protocol.version()))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn needs(texts: &[&str]) -> Needs {
        texts.iter().map(|text| Arc::from(*text)).collect()
    }

    fn offer(texts: &[&str]) -> Offer {
        Offer::of(texts.iter().map(|text| text.parse().unwrap()))
    }

    /// A process that lacks one method must not take the workflow.
    #[test]
    fn all_methods_must_be_offered() {
        let both = needs(&["shop/v1.0:charge", "shop/v1.0:ship"]);
        assert!(offer(&["shop/v1.0:charge", "shop/v1.0:ship", "echo/v1.0:echo"]).covers(&both));
        assert!(!offer(&["shop/v1.0:charge"]).covers(&both));
        assert!(!offer(&[]).covers(&both));
        assert!(Offer::everything().covers(&both));
    }

    /// A version that a task names is meant; one that it was only checked against may be followed
    /// by a compatible one, never by an older one.
    #[test]
    fn a_later_version_will_do_where_none_was_named() {
        for (need, known, is_met) in [
            ("shop/v1.1:charge", "shop/v1.1:charge", true),
            ("shop/v1.1:charge", "shop/v1.2:charge", false),
            ("shop/v1.1+:charge", "shop/v1.2:charge", true),
            ("shop/v1.1+:charge", "shop/v1.0:charge", false),
            ("shop/v1.1+:charge", "shop/v2.0:charge", false),
            ("shop:charge", "shop/v7.0:charge", true),
            ("shop:charge", "store/v7.0:charge", false),
            ("shop/v1.0:charge#00ff", "shop/v1.0:charge", true),
            ("not understood", "shop/v1.0:charge", false),
        ] {
            assert_eq!(offer(&[known]).covers(&needs(&[need])), is_met, "{need} by {known}");
        }
    }

    /// A workflow that was stored before needs were recorded still runs.
    #[test]
    fn unknown_needs_may_be_tried() {
        assert!(offer(&[]).covers(&Needs::default()));
        assert!(Needs::default().is_unknown());
    }

    /// The reader is to see what is missing, not what every process has.
    #[test]
    fn a_person_reads_protocols_with_their_methods() {
        let printed = |texts: &[&str]| needs(texts).to_string();
        let both = ["shop/v1.0+:ship", "echo/v1.0+:echo", "shop/v1.0:charge"];
        assert_eq!(printed(&both), "shop/v1.0 (charge, ship)");
        assert_eq!(printed(&["echo/v1.0:echo"]), "echo/v1.0 (echo)");
        assert_eq!(
            printed(&["shop:charge", "store/v2.1:sell"]),
            "shop (charge), store/v2.1 (sell)"
        );
    }

    proptest! {
        /// The same methods are the same needs, however many tasks call them and in which order.
        #[test]
        fn order_and_repetition_do_not_count(picks in prop::collection::vec(0..20_usize, 0..60)) {
            let texts: Vec<Arc<str>> = (0..20).map(|n| format!("p/v1.0:m{n}").into()).collect();
            let once: BTreeSet<usize> = picks.iter().copied().collect();
            let all: Needs = picks.iter().map(|at| Arc::clone(&texts[*at])).collect();
            let each: Needs = once.into_iter().rev().map(|at| Arc::clone(&texts[at])).collect();
            prop_assert_eq!(&all, &each);
            let copied: Needs = all.methods().map(Arc::from).collect();
            prop_assert_eq!(all, copied);
        }
    }
}
