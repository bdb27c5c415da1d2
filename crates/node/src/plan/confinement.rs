//! What confines the processes that run a spacecore on the node: what is asked for, and what there is.

use hac::model::{Isolation, Level, SecurityModule, Spec};
use hypercore::confinement::{AppArmor, PROFILE};
use hypercore::jail::Strength;

use super::{MachineFacts, PlanError};

/// What is used, and what isn't, though it is on.
#[derive(Debug)]
pub(super) struct Confined {
    /// Whether a virtual machine monitor gets its AppArmor profile.
    pub(super) profile: bool,
    /// All of it, for people.
    pub(super) words: String,
}

impl Confined {
    /// Every mechanism that is named is used where the machine has it; without seccomp nothing runs.
    pub(super) fn decide(spec: &Spec, machine: &MachineFacts) -> Result<Self, PlanError> {
        let found = &machine.confinement;
        if !found.seccomp {
            return Err(PlanError::NoSeccomp);
        }
        let is_named = |module| spec.security.isolation.0.contains(&module);
        let is_monitor = spec.virtualization.isolation == Isolation::MicroVM;
        let profile = is_monitor && is_named(SecurityModule::AppArmor) && found.apparmor == AppArmor::Profile;
        let mut words = "seccomp".to_owned();
        if profile {
            words.push_str(&format!(", AppArmor by the profile {PROFILE}"));
        } else if is_named(SecurityModule::AppArmor) && found.apparmor != AppArmor::Off {
            let why = if is_monitor {
                "no profile for it is loaded"
            } else {
                "there are profiles for monitors alone"
            };
            words.push_str(&format!("; AppArmor is on and adds nothing: {why}"));
        } else if is_named(SecurityModule::AppArmor) {
            words.push_str("; AppArmor isn't on");
        }
        if is_named(SecurityModule::SELinux) && found.selinux {
            words.push_str("; SELinux confines it as it does whoever starts it");
        } else if is_named(SecurityModule::SELinux) {
            words.push_str("; SELinux isn't on");
        }
        Ok(Self { profile, words })
    }
}

/// Whether everything is there that `criteria.security = "high"` demands beside hardware virtualisation.
pub(super) fn high_security(spec: &Spec, machine: &MachineFacts) -> Result<(), PlanError> {
    if spec.virtualization.criteria.security != Level::High {
        return Ok(());
    }
    let isolation = spec.virtualization.isolation;
    if isolation != Isolation::MicroVM {
        return Err(PlanError::HighSecurityIsolation { isolation });
    }
    match machine.jail {
        Some(Strength::Full) => {}
        Some(weaker) => return Err(PlanError::HighSecurityNeedsJail { there: weaker.describe() }),
        None => return Err(PlanError::HighSecurityNeedsJail { there: "none" }),
    }
    if let Some(why) = &machine.group_missing {
        return Err(PlanError::HighSecurityNeedsLimits { why: why.clone() });
    }
    match &machine.scan_missing {
        Some(remedy) => Err(PlanError::HighSecurityNeedsScan { remedy: remedy.clone() }),
        None => Ok(()),
    }
}
