//! What this host offers to guests, and whether it would take a given one.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use evenkeel_types::{GuestId, Refusal};
use roxmltree::Document;

use super::link::Session;
use super::raw::{CpuPlace, LookupTarget, RawResult};
use super::state;
use super::storage::{Place, Storage};
use super::xml::{Definition, Disk, DiskSource};
use crate::hypervisor::{Coming, GuestTraits, HostFacts};
use evenkeel_types::Presence;

/// Interfaces of a host that are looked at.
const MOST_INTERFACES: usize = 4096;
/// Beginnings of the names of interfaces that belong to guests or containers.
const NOT_THE_HOSTS: [&str; 8] = [
    "lo", "vnet", "tap", "macvtap", "macvlan", "veth", "docker", "virbr",
];

type Verdict = Result<(), (Refusal, String)>;

fn no(refusal: Refusal, detail: impl Into<String>) -> Verdict {
    Err((refusal, detail.into()))
}

/// Facts for the inventory.
pub(super) fn facts(session: &Session) -> RawResult<HostFacts> {
    let connection = &session.control;
    let (libvirt_version, hypervisor_version) = connection.versions()?;
    let capabilities = Capabilities::read(&connection.capabilities()?);
    Ok(HostFacts {
        libvirt_version,
        hypervisor_version,
        host_uuid: capabilities.host_uuid,
        cpu_class: capabilities.cpu_class,
        cpus: connection.cpus()?,
        networks: networks(session)?.into_iter().collect(),
        storage: Storage::look(&connection.active_pools()?).identities(),
    })
}

/// Traits of a guest that is here.
pub(super) fn traits(session: &Session, id: &GuestId) -> RawResult<Option<GuestTraits>> {
    let Some(domain) = session.control.lookup(LookupTarget::Uuid(id.as_str()))? else {
        return Ok(None);
    };
    let (text, live) = (domain.definition()?, domain.live_definition()?);
    // Interfaces are as they were written, disks as they are: what a disk is an overlay of was found out.
    let read = Definition::parse(&text).and_then(|definition| {
        let disks = Definition::parse(&live)?.disks;
        Ok(Definition {
            disks,
            ..definition
        })
    });
    let definition = match read {
        Ok(definition) => definition,
        Err(error) => {
            tracing::warn!(guest = %id, %error, "a definition cannot be read; its guest stays where it is");
            return Ok(Some(GuestTraits {
                hindrances: vec!["unreadable_definition".into()],
                ..GuestTraits::default()
            }));
        }
    };
    let host_storage = Storage::look(&session.control.active_pools()?);
    let (mut hindrances, mut left_behind) = (definition.hindrances, definition.left_behind);
    if domain.has_saved_state().unwrap_or(false) {
        left_behind.insert("saved_state");
    }
    let mut storage = BTreeSet::new();
    let mut local_bytes = 0_u64;
    let mut written = BTreeSet::new();
    for disk in &definition.disks {
        let owned = !(disk.read_only || disk.shareable || disk.removable);
        if let (Place::Shared(place), true) = (host_storage.place(&disk.source), owned)
            && !disk.identity.is_empty()
        {
            written.insert(format!("{place} {}", disk.identity));
        }
        let mut local = false;
        for source in disk.sources() {
            match host_storage.place(source) {
                Place::Shared(identity) => drop(storage.insert(identity)),
                Place::Nothing => {}
                Place::Local => local = true,
            }
        }
        match (local, disk.removable) {
            (false, _) => {}
            (true, true) => drop(hindrances.insert("local_media")),
            (true, false) => {
                hindrances.insert("local_disk");
                // A disk whose size cannot be told is still a local disk.
                let bytes = domain.disk_bytes(&disk.target).unwrap_or(0);
                local_bytes = local_bytes.saturating_add(bytes);
            }
        }
    }
    if domain.snapshots().unwrap_or(0) > 0 {
        hindrances.insert("snapshots");
    }
    Ok(Some(GuestTraits {
        hindrances: hindrances.into_iter().map(str::to_owned).collect(),
        offline_hindrances: left_behind.into_iter().map(str::to_owned).collect(),
        networks: definition.networks,
        storage: storage.into_iter().collect(),
        written_disks: written.into_iter().collect(),
        local_disk_mib: local_bytes.div_ceil(1 << 20),
        cpu_limit_cores: definition.cpu_limit_cores,
        group: definition.group,
        labels: definition.labels,
        priority: definition.priority,
        opted_out: definition.opted_out,
    }))
}

/// Whether a guest with this definition could come here. The first "no" is told.
pub(super) fn admits(session: &Session, text: &str, coming: &Coming) -> RawResult<Verdict> {
    let definition = match Definition::parse(text) {
        Ok(definition) => definition,
        Err(error) => return Ok(no(Refusal::Unsupported, error.to_string())),
    };
    let checks = [
        clash(session, &definition, coming)?,
        machine(session, &definition)?,
        cpu(session, &definition)?,
        network(session, &definition)?,
        storage(session, &definition, coming)?,
        files(&definition),
    ];
    Ok(checks.into_iter().collect())
}

/// A guest of that name or UUID may be here only as the shut-off definition that it left behind itself; one
/// that comes shut off not even so, for its definition is what comes.
fn clash(session: &Session, wanted: &Definition, coming: &Coming) -> RawResult<Verdict> {
    let Some(id) = &wanted.uuid else {
        return Ok(no(Refusal::Unsupported, "definition has no valid uuid"));
    };
    let connection = &session.control;
    if let Some(here) = connection.lookup(LookupTarget::Uuid(id.as_str()))? {
        let (state, reason) = here.state()?;
        if state::presence(state, reason) != Presence::ShutOff {
            return Ok(no(
                Refusal::NameClash,
                format!("guest {id} has a process here"),
            ));
        }
        if coming.shut_off {
            let detail = format!("guest {id} is defined here already");
            return Ok(no(Refusal::NameClash, detail));
        }
        let name = here.name();
        if name != wanted.name {
            let detail = format!("uuid {id} is defined here under the name {name:?}");
            return Ok(no(Refusal::NameClash, detail));
        }
    }
    if let Some(here) = connection.lookup(LookupTarget::Name(&wanted.name))? {
        let other = here.uuid().unwrap_or_default();
        if other != id.as_str() {
            let detail = format!("name {:?} is taken here by {other}", wanted.name);
            return Ok(no(Refusal::NameClash, detail));
        }
    }
    Ok(Ok(()))
}

fn machine(session: &Session, wanted: &Definition) -> RawResult<Verdict> {
    let capabilities = Capabilities::read(&session.control.capabilities()?);
    let (arch, machine) = match (&wanted.arch, &wanted.machine) {
        (Some(arch), Some(machine)) => (arch, machine),
        _ => {
            return Ok(no(
                Refusal::UnknownMachineType,
                "definition names no machine type",
            ));
        }
    };
    let known = capabilities
        .machines
        .contains(&(arch.clone(), machine.clone()));
    if known {
        return Ok(Ok(()));
    }
    Ok(no(
        Refusal::UnknownMachineType,
        format!("machine type {machine:?} of {arch} is not known here"),
    ))
}

fn cpu(session: &Session, wanted: &Definition) -> RawResult<Verdict> {
    let Some(cpu) = &wanted.cpu else {
        return Ok(Ok(()));
    };
    // libvirt compares models only. That a passed-through CPU is the same is what `cpu_class` says.
    if cpu.contains("host-passthrough") || cpu.contains("'maximum'") {
        return Ok(Ok(()));
    }
    let place = CpuPlace {
        emulator: wanted.emulator.as_deref(),
        arch: wanted.arch.as_deref(),
        machine: wanted.machine.as_deref(),
        virt_type: wanted.virt_type.as_deref(),
    };
    Ok(match session.control.can_run_cpu(&place, cpu) {
        Ok(true) => Ok(()),
        Ok(false) => no(
            Refusal::IncompatibleCpu,
            "this host's CPU lacks something of the guest's",
        ),
        Err(error) => no(
            Refusal::IncompatibleCpu,
            format!("the CPU cannot be compared: {}", error.message),
        ),
    })
}

fn network(session: &Session, wanted: &Definition) -> RawResult<Verdict> {
    let here = networks(session)?;
    let missing = wanted.networks.iter().find(|name| !here.contains(*name));
    Ok(missing.map_or(Ok(()), |name| {
        no(
            Refusal::MissingNetwork,
            format!("{name:?} is missing or inactive here"),
        )
    }))
}

fn storage(session: &Session, wanted: &Definition, coming: &Coming) -> RawResult<Verdict> {
    let here = Storage::look(&session.control.active_pools()?);
    let known = here.identities();
    let awaited = |disk: &&Disk| !coming.copied.contains(&disk.target);
    for disk in wanted.disks.iter().filter(awaited) {
        let reached = |source: &&DiskSource| match here.place(source) {
            Place::Shared(identity) => known.contains(&identity),
            Place::Nothing => true,
            Place::Local => false,
        };
        if let Some(source) = disk.sources().find(|source| !reached(source)) {
            let detail = format!(
                "disk {:?} ({source:?}) is not on shared storage here",
                disk.target
            );
            return Ok(no(Refusal::MissingStorage, detail));
        }
    }
    Ok(Ok(()))
}

/// Emulator, kernel and firmware must be here under the same path. One that the agent may not look at is
/// left to libvirt.
fn files(wanted: &Definition) -> Verdict {
    let gone = |path: &str| matches!(fs::metadata(path), Err(error) if error.kind() == ErrorKind::NotFound);
    if let Some(emulator) = wanted.emulator.as_deref().filter(|path| gone(path)) {
        let detail = format!("emulator {emulator:?} is not here");
        return no(Refusal::UnknownMachineType, detail);
    }
    match wanted.files.iter().find(|path| gone(path)) {
        Some(path) => no(Refusal::MissingStorage, format!("{path:?} is not here")),
        None => Ok(()),
    }
}

/// Bridges by name, libvirt's active networks as `network:NAME`, interfaces as `direct:NIC`.
fn networks(session: &Session) -> RawResult<BTreeSet<String>> {
    let mut all = interfaces(Path::new("/sys/class/net"));
    let active = session.control.active_networks()?;
    all.extend(active.iter().filter_map(|xml| usable_network(xml)));
    Ok(all)
}

/// A network's name; `None`: it hands out host devices, which do not migrate.
fn usable_network(xml: &str) -> Option<String> {
    let document = Document::parse(xml).ok()?;
    let root = document.root_element();
    let child = |name: &str| root.children().find(|n| n.tag_name().name() == name);
    let mode = child("forward").and_then(|f| f.attribute("mode"));
    let name = child("name")?.text()?.trim();
    (mode != Some("hostdev")).then(|| format!("network:{name}"))
}

fn interfaces(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries
        .take(MOST_INTERFACES)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| {
            let is_bridge = directory.join(&name).join("bridge").exists();
            let is_guests = NOT_THE_HOSTS.iter().any(|start| name.starts_with(start));
            // Open vSwitch's bridges look like plain interfaces: those are listed under both names.
            match (is_bridge, is_guests) {
                (true, _) => Some(vec![name]),
                (false, true) => None,
                (false, false) => Some(vec![format!("direct:{name}"), name]),
            }
        })
        .flatten()
        .collect()
}

/// What the capabilities XML says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Capabilities {
    host_uuid: String,
    cpu_class: String,
    /// (architecture, machine type)
    machines: BTreeSet<(String, String)>,
}

impl Capabilities {
    /// Reads them; what is not there stays empty, and an empty set of machines admits nobody.
    fn read(xml: &str) -> Self {
        let Ok(document) = Document::parse(xml) else {
            return Self::default();
        };
        let text = |path: &[&str]| {
            let mut node = document.root_element();
            for name in path {
                node = node.children().find(|n| n.tag_name().name() == *name)?;
            }
            node.text().map(|t| t.trim().to_owned())
        };
        let known = |path: &[&str]| text(path).unwrap_or_else(|| "unknown".into());
        let mut machines = BTreeSet::new();
        let arches = document.descendants().filter(|n| {
            n.tag_name().name() == "arch"
                && n.parent().is_some_and(|p| p.tag_name().name() == "guest")
        });
        for arch in arches {
            let name = arch.attribute("name").unwrap_or_default();
            for machine in arch
                .descendants()
                .filter(|n| n.tag_name().name() == "machine")
            {
                machines.insert((
                    name.to_owned(),
                    machine.text().unwrap_or_default().trim().to_owned(),
                ));
            }
        }
        Self {
            host_uuid: text(&["host", "uuid"]).unwrap_or_default(),
            cpu_class: format!(
                "{}/{}/{}",
                known(&["host", "cpu", "arch"]),
                known(&["host", "cpu", "vendor"]),
                known(&["host", "cpu", "model"])
            ),
            machines,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_name_the_host_its_cpu_and_its_machines() {
        let read = Capabilities::read(
            "<capabilities><host><uuid>u-1</uuid><cpu><arch>x86_64</arch><model>Skylake</model>\
             <vendor>Intel</vendor></cpu></host><guest><arch name='x86_64'><machine>pc</machine>\
             <domain type='kvm'><machine>q35</machine></domain></arch></guest></capabilities>",
        );
        assert_eq!(read.host_uuid, "u-1");
        assert_eq!(read.cpu_class, "x86_64/Intel/Skylake");
        let machines: Vec<_> = read.machines.iter().map(|(_, m)| m.as_str()).collect();
        assert_eq!(machines, ["pc", "q35"]);
        assert_eq!(Capabilities::read("no xml"), Capabilities::default());
    }

    #[test]
    fn networks_of_host_devices_are_not_offered() {
        let network = |mode: &str| {
            usable_network(&format!(
                "<network><name>n</name><forward mode='{mode}'/></network>"
            ))
        };
        assert_eq!(network("nat").as_deref(), Some("network:n"));
        assert_eq!(network("hostdev"), None);
        assert_eq!(usable_network("<network>"), None);
    }
}
