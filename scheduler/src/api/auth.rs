//! Who may call what: one table, walked by a test.

use evenkeel_proto::identity::{Identity, Role, of_peer, of_request};
use tonic::{Request, Status};

/// What a method does to the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Looks only.
    Read,
    /// Changes something.
    Write,
}

/// Every method of `SchedulerService`.
pub const METHODS: [(&str, Access); 20] = [
    ("GetStatus", Access::Read),
    ("ListHosts", Access::Read),
    ("ListGuests", Access::Read),
    ("ListMigrations", Access::Read),
    ("WatchMigration", Access::Read),
    ("GetPlan", Access::Read),
    ("GetSnapshot", Access::Read),
    ("GetPolicy", Access::Read),
    ("GetPolicyHistory", Access::Read),
    ("ListEvents", Access::Read),
    ("FollowEvents", Access::Read),
    ("SetMode", Access::Write),
    ("SetPause", Access::Write),
    ("Resume", Access::Write),
    ("Migrate", Access::Write),
    ("CancelMigration", Access::Write),
    ("ApplyPolicy", Access::Write),
    ("ResolveGuest", Access::Write),
    ("SetIntent", Access::Write),
    ("ClearIntent", Access::Write),
];

/// Whether a role may use methods of this kind. Agents have no business here at all.
#[must_use]
pub fn allows(access: Access, role: Role) -> bool {
    match (access, role) {
        (_, Role::Operator) | (Access::Read, Role::Viewer | Role::Scheduler) => true,
        (Access::Write, Role::Viewer | Role::Scheduler) | (_, Role::Agent) => false,
    }
}

/// The caller, judged for `method`: the peer, or the operator behind a forwarding scheduler.
///
/// # Errors
/// `Unauthenticated` or `PermissionDenied`.
pub fn authorise<T>(method: &str, request: &Request<T>) -> Result<Identity, Status> {
    let caller = of_request(request)?;
    let access = METHODS
        .iter()
        .find(|(name, _)| *name == method)
        .map(|(_, access)| *access);
    let allowed = access.is_some_and(|access| allows(access, caller.role));
    if allowed {
        return Ok(caller);
    }
    let peer = of_peer(request)?;
    tracing::warn!(method, %caller, %peer, "refused: not permitted");
    Err(Status::permission_denied(format!(
        "{caller} may not call {method}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_covers_every_method_of_the_service() {
        let descriptors = evenkeel_proto::DESCRIPTORS;
        let text = String::from_utf8_lossy(descriptors);
        for (method, _) in METHODS {
            assert!(text.contains(method), "{method} is not in the descriptors");
        }
        let proto = include_str!("../../../proto/proto/evenkeel/v1/scheduler.proto");
        let declared = proto
            .lines()
            .filter(|line| line.trim_start().starts_with("rpc "))
            .count();
        assert_eq!(declared, METHODS.len());
    }

    #[test]
    fn viewers_look_operators_change_agents_do_neither() {
        for (method, access) in METHODS {
            assert!(allows(access, Role::Operator), "{method}");
            assert!(!allows(access, Role::Agent), "{method}");
            assert_eq!(
                allows(access, Role::Viewer),
                access == Access::Read,
                "{method}"
            );
            // A scheduler changes nothing on its own behalf: only for an operator it names.
            assert_eq!(
                allows(access, Role::Scheduler),
                access == Access::Read,
                "{method}"
            );
        }
    }
}
