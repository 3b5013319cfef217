//! `MeasureDirtyRate`: when it may be done, and how its failures are told.

use evenkeel_proto::v1;
use evenkeel_types::GuestId;
use tonic::{Code, Status};

use super::Api;
use crate::dirtying::NotMeasured;
use crate::hypervisor::{Hypervisor, HypervisorError};
use crate::journal::Records;
use crate::peer::Peers;

impl<H: Hypervisor, R: Records, P: Peers> Api<H, R, P> {
    /// Measures a guest unless a migration touches this host: what it does beside one is no measure of what it
    /// does alone. Given up when the daemon ends.
    pub(super) async fn measure_guest(&self, guest: &GuestId) -> Result<v1::DirtyCurve, Status> {
        let hands = &self.hands;
        let calm = || hands.driver.running.count() == 0 && hands.target.promised().0 == 0;
        let measured = tokio::select! {
            measured = hands.meter.measure(guest, calm) => measured,
            () = self.stopping.cancelled() => {
                return Err(Status::unavailable("this agent is stopping"));
            }
        };
        measured.map_err(|why| Status::new(code(&why), why.to_string()))
    }
}

fn code(why: &NotMeasured) -> Code {
    match why {
        NotMeasured::Occupied => Code::ResourceExhausted,
        NotMeasured::Unfit(_) => Code::FailedPrecondition,
        NotMeasured::Late => Code::DeadlineExceeded,
        NotMeasured::Hypervisor(HypervisorError::NoSuchGuest { .. }) => Code::NotFound,
        NotMeasured::Hypervisor(
            HypervisorError::Unreachable { .. } | HypervisorError::Failed { .. },
        ) => Code::Unavailable,
    }
}
