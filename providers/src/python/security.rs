//! The admission of code: the available isolation level, and the policy of modules and calls.
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
    network: bool,
}

/// The rights of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmittedCall {
    /// The imports and calls of its code.
    pub policy: Policy,
    /// True when it may reach the network.
    pub network: bool,
}

impl SecurityManager {
    /// Code runs at `level` under `policy`. `network` is true if network can be allowed.
    pub fn new(level: SandboxLevel, policy: Policy, network: bool) -> Self {
        Self { level, policy, network }
    }

    /// The rights of a call whose method has these `requirements`.
    ///
    /// # Errors
    /// [`ErrorCode::TaskValidationFailed`] if the method requires more isolation than there is, or
    /// a network that there is not.
    pub fn admit(
        &self,
        requirements: Option<&SecurityRequirements>,
    ) -> Result<AdmittedCall, TaskError> {
        let Some(demands) = requirements else {
            return Ok(AdmittedCall { policy: self.policy.clone(), network: self.network });
        };
        let refused = |message| Err(TaskError::new(ErrorCode::TaskValidationFailed, message));
        if let Some(least) = demands.sandbox_minimum
            && least > self.level
        {
            let (least, level) = (least.as_str(), self.level.as_str());
            return refused(format!(
                "the method demands sandbox `{least}` at least, and this provider runs code at \
                 `{level}`; use a provider of that level"
            ));
        }
        // Without a jail nothing keeps code from the network.
        let can_reach = self.network || self.level == SandboxLevel::None;
        if demands.network && !can_reach {
            let message = "the method demands network, which this provider does not give; set \
                           `network = true` in its settings";
            return refused(message.to_owned());
        }
        let (allowed, blocked) = (&demands.allowed_modules, &demands.blocked_modules);
        Ok(AdmittedCall {
            policy: self.policy.clone().tightened(allowed, blocked),
            network: self.network && demands.network,
        })
    }
}

#[cfg(test)]
mod tests {
    use gleitzeit_sandbox::Preset;

    use super::*;

    /// A method that demands a jail never runs without one.
    #[test]
    fn a_demand_for_more_isolation_is_refused() {
        let security = SecurityManager::new(SandboxLevel::None, Policy::default(), false);
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
        let basic = Policy::preset(Preset::Basic);
        let security = SecurityManager::new(SandboxLevel::None, basic.clone(), false);
        let demands = SecurityRequirements {
            blocked_modules: vec!["socket".to_owned()],
            ..SecurityRequirements::default()
        };
        let policy = security.admit(Some(&demands)).unwrap().policy;
        assert!(policy.blocked_modules.is_superset(&basic.blocked_modules));
        assert!(policy.blocked_modules.contains("socket"));
    }

    /// Network is given where both the settings and the method say so.
    #[test]
    fn network_takes_both_to_agree() {
        let security =
            |network| SecurityManager::new(SandboxLevel::Process, Policy::default(), network);
        let demands = |network| SecurityRequirements { network, ..SecurityRequirements::default() };
        let provides = |manager: SecurityManager, demands: Option<&SecurityRequirements>| {
            manager.admit(demands).map(|admission| admission.network)
        };
        assert_eq!(provides(security(true), None), Ok(true));
        assert_eq!(provides(security(true), Some(&demands(true))), Ok(true));
        assert_eq!(provides(security(true), Some(&demands(false))), Ok(false));
        assert_eq!(provides(security(false), None), Ok(false));
        assert_eq!(provides(security(false), Some(&demands(false))), Ok(false));
        let refused = provides(security(false), Some(&demands(true))).unwrap_err();
        assert_eq!(refused.code, ErrorCode::TaskValidationFailed);
        assert!(refused.message.contains("`network = true`"), "{refused}");
    }
}
