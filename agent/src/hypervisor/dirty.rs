//! How much of its memory a guest changes within a time, as the hypervisor samples it.

use evenkeel_types::GuestId;

use super::HypervisorError;

/// A hypervisor that can watch a sample of a guest's pages. The guest is neither paused nor slowed down by it.
pub trait DirtySamples {
    /// Begins to watch a running guest for `seconds` (1 to 60); returns at once. A guest that is paused is taken,
    /// too, and changes nothing: callers see to its state.
    ///
    /// # Errors
    /// When the guest is not here or not running, is being watched already, or the hypervisor does not answer.
    fn start_dirty_sample(&self, guest: &GuestId, seconds: u32) -> Result<(), HypervisorError>;

    /// Memory that changed during the sample of `seconds` that was begun last, MiB, each page counted once;
    /// `None`: it is still under way.
    ///
    /// # Errors
    /// When the guest is not here, somebody else's sample of another length has come in between, or the hypervisor
    /// does not answer.
    fn dirty_sample(&self, guest: &GuestId, seconds: u32) -> Result<Option<f64>, HypervisorError>;
}
