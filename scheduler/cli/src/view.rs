//! What commands show, as data: the documents of `-o json`.
//!
//! Each names its schema; fields carry their units and are only ever added. What is not known is null.
//! Generated messages are turned into these and go no further.

mod change;
mod doctor;
mod drain;
mod event;
mod guest;
mod host;
mod migration;
mod number;
pub mod offline;
mod plan;
mod status;

pub use change::{
    MigrationChange, ModeChange, PauseChange, PolicyApplied, PolicyCheck, PolicyDiff, PolicyFault,
    PolicyHistory, PolicyPlace, PolicyRevision, PolicyShown, Resolved, UnfulfilledRule,
};
pub use doctor::{Check, CheckResult, Doctor};
pub use drain::{
    Drain, DrainEnd, HostIntent, Intent, IntentsChange, Obstacle, RollEnd, RollFailure,
};
pub use event::{Event, EventLine, Events};
pub use guest::{Guest, GuestDetail, Guests};
pub use host::{Host, HostDetail, Hosts, Pressure};
pub use migration::{Migration, MigrationDetail, Migrations, Phase, Prediction, Progress, Trigger};
pub use number::{float, permille};
pub use plan::{AppliedPlan, AppliedStep, Blocked, HostChange, Plan, Step};
pub use status::{Pause, Status};

use jiff::Timestamp;

/// Empty on the wire means that there is none.
fn some_text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// 0 on the wire means that there is none.
fn some_time(milliseconds: i64) -> Option<Timestamp> {
    let time = (milliseconds > 0).then(|| Timestamp::from_millisecond(milliseconds));
    time.and_then(Result::ok)
}
