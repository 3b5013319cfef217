//! Asks agents to measure guests that the plan wants to move, each from a task of its own.
//!
//! Nothing waits for the answers: they are looked at when the next plan is there, and what was measured comes with
//! the hosts' reports. A failure is no trouble: the guest is priced by what else is known of it.

use evenkeel_planner::Plan;
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::{Controller, QUEUE};
use crate::core::measuring::{Candidate, Measured, Measuring};
use crate::execute::agents::measure;

/// Who is being measured, and the answers of the tasks that ask.
#[derive(Debug)]
pub(super) struct Measurements {
    measuring: Measuring,
    tell: mpsc::Sender<(Candidate, Measured)>,
    told: mpsc::Receiver<(Candidate, Measured)>,
}

impl Default for Measurements {
    fn default() -> Self {
        let (tell, told) = mpsc::channel(QUEUE);
        Self {
            measuring: Measuring::default(),
            tell,
            told,
        }
    }
}

impl Controller {
    /// Has some of the guests measured that a plan wants to move.
    pub(super) fn measure_candidates(&mut self, plan: &Plan, now_ms: i64) {
        while let Ok((asked, came)) = self.measurements.told.try_recv() {
            let measuring = &mut self.measurements.measuring;
            measuring.note(&asked, came, &self.fleet, now_ms);
        }
        let measuring = &mut self.measurements.measuring;
        for asked in measuring.choose(&self.fleet, &self.assessment, plan, now_ms) {
            self.ask_to_measure(asked);
        }
    }

    fn ask_to_measure(&mut self, asked: Candidate) {
        let client = self.client_of(&asked.host);
        let tell = self.measurements.tell.clone();
        tokio::spawn(async move {
            let measured = match client {
                Ok(client) => measure(client, &asked.guest).await,
                Err(detail) => Err(Status::unavailable(detail)),
            };
            let came = outcome(&measured);
            let Candidate { host, guest } = &asked;
            match measured {
                Ok(curve) => {
                    let points = curve.points.len();
                    tracing::debug!(%host, %guest, points, "a guest was measured");
                }
                Err(status) => {
                    let (code, detail) = (status.code(), status.message());
                    tracing::debug!(%host, %guest, ?code, detail, "a guest was not measured");
                }
            }
            // The loop is gone only when the process ends.
            drop(tell.send((asked, came)).await);
        });
    }
}

fn outcome<T>(measured: &Result<T, Status>) -> Measured {
    match measured {
        Ok(_) => Measured::Done,
        Err(status) if status.code() == Code::Unimplemented => Measured::Lacking,
        Err(_) => Measured::Failed,
    }
}
