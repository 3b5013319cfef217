//! Flags of `place`.

use clap::Args;

use super::{Source, label};

/// Flags of `place`.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// Its virtual CPUs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub vcpus: u32,
    /// Its memory, such as 16GiB
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub memory: u64,
    /// The CPU that it will use, cores [default: what the fleet's guests use per vCPU]
    #[arg(long, value_name = "CORES")]
    pub cpu_demand: Option<f64>,
    /// The name it will have: rules may select it by that
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub name: String,
    /// The group it will belong to
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// A label it will have; may be given again
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// A network that its host must have; may be given again
    #[arg(long = "network", value_name = "NETWORK")]
    pub networks: Vec<String>,
    /// Storage that its host must reach, as snapshots name it; may be given again
    #[arg(long, value_name = "STORAGE")]
    pub storage: Vec<String>,
    /// A CPU class that takes it; may be given again [default: any]
    #[arg(long = "cpu-class", value_name = "CLASS")]
    pub cpu_classes: Vec<String>,
    /// Where to read.
    #[command(flatten)]
    pub source: Source,
}

/// Units of memory in MiB. Decimal ones are no units of memory.
const UNITS: [(&str, u64); 3] = [("MiB", 1), ("GiB", 1024), ("TiB", 1024 * 1024)];

/// MiB of a size such as "512MiB" or "16GiB".
fn memory(text: &str) -> Result<u64, String> {
    let size = UNITS.iter().find_map(|(unit, mib)| {
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(*mib).filter(|size| *size > 0)
    });
    size.ok_or_else(|| "expected a whole number and MiB, GiB or TiB, such as 16GiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_needs_a_binary_unit_and_is_something() {
        assert_eq!(memory("512MiB"), Ok(512));
        assert_eq!(memory("16 GiB"), Ok(16_384));
        assert_eq!(memory("2TiB"), Ok(2_097_152));
        for bad in [
            "16",
            "16GB",
            "0GiB",
            "-1GiB",
            "1.5GiB",
            "",
            "GiB",
            "99999999999999999TiB",
        ] {
            assert!(memory(bad).is_err(), "{bad}");
        }
    }
}
