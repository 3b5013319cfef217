//! What is counted of a migration that has ended.

use evenkeel_proto::v1;

use super::{FAILED, Metrics, REFUSED, ms_to_seconds};

impl Metrics {
    /// A migration that was settled.
    pub fn settled(&self, journal: &v1::Journal) {
        let order = journal.order.clone().unwrap_or_default();
        let state = journal.state.clone().unwrap_or_default();
        let result = result_of(state.phase());
        self.moves
            .ended
            .with_label_values(&[order.trigger.as_str(), result])
            .inc();
        let phase = match result {
            "refused" => Some(REFUSED),
            "failed" => Some(FAILED),
            _ => None,
        };
        if let Some(phase) = phase {
            self.moves
                .failures
                .with_label_values(&[phase, state.reason.as_str()])
                .inc();
        }
        let took = ms_to_seconds(journal.ended_at_ms - journal.started_at_ms);
        self.moves
            .duration
            .with_label_values(&[result])
            .observe(took);
        if result == "done" {
            self.completed(
                &journal.progress.unwrap_or_default(),
                &order.prediction.unwrap_or_default(),
            );
        }
    }

    fn completed(&self, progress: &v1::CopyProgress, predicted: &v1::Prediction) {
        let none: [&str; 0] = [];
        let downtime = ms_to_seconds(i64::try_from(progress.downtime_ms).unwrap_or(i64::MAX));
        let copy = ms_to_seconds(i64::try_from(progress.elapsed_ms).unwrap_or(i64::MAX));
        let bytes = big(progress.transferred_bytes);
        self.moves
            .downtime
            .with_label_values(&none)
            .observe(downtime);
        self.moves.bytes.with_label_values(&none).observe(bytes);
        let pairs = [
            ("copy_seconds", copy, predicted.copy_seconds),
            ("downtime_seconds", downtime, predicted.downtime_seconds),
            ("bytes", bytes, big(predicted.bytes)),
        ];
        for (quantity, measured, predicted) in pairs {
            if predicted > 0.0 && measured > 0.0 {
                self.moves
                    .prediction_error
                    .with_label_values(&[quantity])
                    .observe(measured / predicted);
            }
        }
    }
}

fn result_of(phase: v1::MigrationPhase) -> &'static str {
    use v1::MigrationPhase as Phase;
    match phase {
        Phase::Done => "done",
        Phase::Refused => "refused",
        Phase::Cancelled => "cancelled",
        Phase::Unspecified
        | Phase::Ordered
        | Phase::Preparing
        | Phase::Running
        | Phase::Switching
        | Phase::Unknown
        | Phase::Failed => "failed",
    }
}

/// Bytes as a float: exact enough for a histogram.
fn big(bytes: u64) -> f64 {
    let (high, low) = (bytes >> 32, bytes & 0xffff_ffff);
    let part = |n: u64| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    part(high) * 4_294_967_296.0 + part(low)
}
