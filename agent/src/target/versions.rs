//! Whether this host's libvirt and QEMU are older than those of a guest's source.
//!
//! A newer QEMU reads an older one's stream; the other way round nobody promises it. Machine types and streams
//! change with the first two numbers of a version: fixes within one series go both ways, or no fleet could be
//! mended host by host.

use evenkeel_proto::v1;
use evenkeel_types::Refusal;

use crate::journal::Refused;

/// Refuses a guest of a host that is newer than `own`. What is not known is no reason.
///
/// # Errors
/// `OlderVersion`, with both versions.
pub(super) fn not_older(own: &v1::Inventory, source: &v1::Inventory) -> Result<(), Refused> {
    let pairs = [
        ("QEMU", &own.hypervisor_version, &source.hypervisor_version),
        ("libvirt", &own.libvirt_version, &source.libvirt_version),
    ];
    for (what, here, there) in pairs {
        if let (Some(ours), Some(theirs)) = (series(here), series(there))
            && ours < theirs
        {
            let detail = format!("{what} here is {here:?}, older than the source's {there:?}");
            return Err((Refusal::OlderVersion, detail));
        }
    }
    Ok(())
}

/// The first two numbers of `9.0.0` or `QEMU 7.2.22`.
fn series(version: &str) -> Option<(u32, u32)> {
    let numbers = version.rsplit(' ').next()?;
    let mut parts = numbers.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_older_series_is_refused() {
        let host = |qemu: &str, libvirt: &str| v1::Inventory {
            hypervisor_version: qemu.into(),
            libvirt_version: libvirt.into(),
            ..v1::Inventory::default()
        };
        let own = host("QEMU 7.2.22", "9.0.0");
        let from = |qemu, libvirt| not_older(&own, &host(qemu, libvirt)).is_ok();
        assert!(from("QEMU 7.2.23", "9.0.1"));
        assert!(from("QEMU 6.9.1", "8.10.0"));
        assert!(!from("QEMU 7.10.0", "9.0.0"));
        assert!(!from("QEMU 7.2.22", "9.1.0"));
        assert!(from("", "unknown"), "what is not known is no reason");
    }
}
