//! The line that the service manager shows of this replica.

use super::Controller;

impl Controller {
    pub(super) fn status(&self) -> String {
        let mut words = vec![self.standing()];
        if self.fleet.complete {
            words.push(format!(
                "{} hosts, {} migrations under way",
                self.assessment.snapshot.hosts.len(),
                self.fleet.open_migrations().len()
            ));
        }
        if !*self.parts.store.health().borrow() {
            words.push("etcd does not answer".to_owned());
        }
        let holds = &self.assessment.holds;
        if self.led_epoch.is_some() && !holds.is_empty() {
            let names: Vec<&str> = holds.iter().map(crate::core::Hold::as_str).collect();
            words.push(format!("held back: {}", names.join(", ")));
        }
        words.join("; ")
    }

    /// What this replica is to the others.
    fn standing(&self) -> String {
        match (self.led_epoch, self.fleet.leader()) {
            (Some(epoch), _) => format!("leads, epoch {epoch}"),
            (None, Some((_, leader))) => format!("stands by, {} leads", leader.name),
            (None, None) if self.fleet.complete => "stands by, nobody leads".to_owned(),
            (None, None) => "has not read the fleet from etcd yet".to_owned(),
        }
    }
}
