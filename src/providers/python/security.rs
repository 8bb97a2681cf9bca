//! What code is admitted: the level of isolation there is, and the policy of modules and calls.
//!
//! Asked for every call. Invariant: a method's demands can only tighten what the settings say.

use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    security::{SandboxLevel, SecurityRequirements},
};
use gleitzeit_sandbox::Policy;

/// Holds the rules of the settings against the demands of a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityManager {
    level: SandboxLevel,
    policy: Policy,
}

impl SecurityManager {
    /// Code runs at `level`, and `policy` is told to it.
    pub fn new(level: SandboxLevel, policy: Policy) -> Self {
        Self { level, policy }
    }

    /// The policy for a call whose method demands `requirements`.
    ///
    /// # Errors
    /// [`ErrorCode::TaskValidationFailed`] when more isolation is demanded than there is.
    pub fn admit(&self, requirements: Option<&SecurityRequirements>) -> Result<Policy, TaskError> {
        let Some(demands) = requirements else { return Ok(self.policy.clone()) };
        if let Some(least) = demands.sandbox_minimum
            && least > self.level
        {
            let (least, level) = (name_of(least), name_of(self.level));
            return Err(TaskError::new(
                ErrorCode::TaskValidationFailed,
                format!(
                    "the method demands sandbox `{least}` at least, and this provider runs code at \
                     `{level}`; use a provider of that level"
                ),
            ));
        }
        Ok(self.policy.clone().tightened(&demands.allowed_modules, &demands.blocked_modules))
    }
}

/// Its name in settings.
pub(super) const fn name_of(level: SandboxLevel) -> &'static str {
    match level {
        SandboxLevel::None => "none",
        SandboxLevel::Chroot => "chroot",
        SandboxLevel::Process => "process",
        SandboxLevel::Docker => "docker",
    }
}

#[cfg(test)]
mod tests {
    use gleitzeit_sandbox::Preset;

    use super::*;

    /// A method that demands a jail never runs without one.
    #[test]
    fn a_demand_for_more_isolation_is_refused() {
        let security = SecurityManager::new(SandboxLevel::None, Policy::default());
        let demands = |level| SecurityRequirements {
            sandbox_minimum: Some(level),
            ..SecurityRequirements::default()
        };
        let refused = security.admit(Some(&demands(SandboxLevel::Process))).unwrap_err();
        assert_eq!(refused.code, ErrorCode::TaskValidationFailed);
        assert!(refused.message.contains("`process`"), "{refused}");
        assert!(security.admit(Some(&demands(SandboxLevel::None))).is_ok());
        assert!(security.admit(None).is_ok());
    }

    /// A method's lists are added to the settings' rules.
    #[test]
    fn a_method_tightens_the_policy() {
        let seed = Policy::preset(Preset::Seed);
        let security = SecurityManager::new(SandboxLevel::None, seed.clone());
        let demands = SecurityRequirements {
            blocked_modules: vec!["socket".to_owned()],
            ..SecurityRequirements::default()
        };
        let policy = security.admit(Some(&demands)).unwrap();
        assert!(policy.blocked_modules.is_superset(&seed.blocked_modules));
        assert!(policy.blocked_modules.contains("socket"));
    }
}
