//! Which logs go, and when.

use super::Core;
use crate::daemon::call::Refusal;
use crate::daemon::view::DeploymentView;

impl Core {
    /// Has the spacecores of a deployment that is made begin with clean logs.
    pub(super) fn set_logs_aside(&mut self, deployment: &str) {
        let logs = self.records.logs();
        for spacecore in self.logged(deployment) {
            if let Err(error) = logs.set_aside(&spacecore) {
                let text = format!("goes on with the log of the one before it: {error}");
                self.events.note("log-kept", Some(deployment), Some(&spacecore), text);
            }
        }
        self.keep_logs_in_bounds();
    }

    /// Removes the logs of a deployment of which nothing runs any more.
    pub(super) fn remove_logs(&mut self, deployment: &str) {
        let logs = self.records.logs();
        for spacecore in self.logged(deployment) {
            if let Err(error) = logs.remove(&spacecore) {
                let text = format!("its log can't be removed: {error}");
                self.events.note("log-kept", Some(deployment), Some(&spacecore), text);
            }
        }
    }

    /// The same of one that is gone already; shown as it isn't any more.
    pub(super) fn remove_logs_of_gone(
        &mut self,
        deployment: &str,
        nothing_there: Refusal,
    ) -> Result<DeploymentView, Refusal> {
        if self.logged(deployment).is_empty() {
            return Err(nothing_there);
        }
        self.remove_logs(deployment);
        self.events.note("removed", Some(deployment), None, "its logs are gone".to_owned());
        Ok(DeploymentView {
            name: deployment.to_owned(),
            image: "-".to_owned(),
            isolation: "-".to_owned(),
            revision: 0,
            wanted_revision: 0,
            replicas: 0,
            ready: 0,
            state: "gone".to_owned(),
            trouble: None,
            ports: Vec::new(),
            spacecores: Vec::new(),
        })
    }

    /// Whose logs there are of a deployment's spacecores, and not of another's that have such names.
    fn logged(&self, deployment: &str) -> Vec<String> {
        let names = self.records.logs().names(deployment).into_iter();
        names.filter(|name| self.owner(name).is_none_or(|owner| owner == deployment)).collect()
    }

    pub(super) fn keep_logs_in_bounds(&self) {
        self.records.logs().keep_in_bounds(|name| self.owner(name).is_some());
    }
}
