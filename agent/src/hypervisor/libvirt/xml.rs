//! Reads what matters out of a guest's definition. Pure: text in, value out.
//!
//! Definitions come from libvirt, but also from another host's agent: both are foreign, so size and number of
//! nodes are limited, and what is not understood becomes a hindrance rather than being passed over.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_types::GuestId;
use roxmltree::{Document, Node, ParsingOptions};

/// Larger than any definition that libvirt would accept.
const MOST_BYTES: usize = 4 << 20;
/// A guest with hundreds of devices has some ten thousand nodes.
const MOST_NODES: u32 = 100_000;
/// What is kept of names in metadata, in characters.
const MOST_NAME: usize = 128;
/// Images in one chain that are looked at; libvirt itself stops at 200.
const MOST_LAYERS: usize = 200;
/// Tags that are kept of a guest.
const MOST_TAGS: usize = 32;
/// Namespace of `<evenkeel:guest>`.
const NAMESPACE: &str = "https://evenkeel.dev/xmlns/guest/1";
/// Parts of the namespaces under which other managers mark their guests.
const FOREIGN_MANAGERS: [&str; 5] = [
    "openstack.org",
    "ovirt.org",
    "clusterlabs",
    "pacemaker",
    "kubevirt",
];

/// Why a definition could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum DefinitionError {
    /// It is larger than any real one.
    #[error("definition of {bytes} bytes is too large")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It is no XML.
    #[error("definition is not well-formed")]
    Xml(#[source] roxmltree::Error),
    /// It names no guest.
    #[error("definition has no {what}")]
    Missing {
        /// The element.
        what: &'static str,
    },
}

/// Where a disk's contents are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DiskSource {
    /// A file on a file system of the host.
    File(String),
    /// A block device of the host.
    Block(String),
    /// Over the network, by QEMU itself: the protocol.
    Network(String),
    /// A volume of a pool of libvirt's.
    Volume {
        /// The pool's name.
        pool: String,
    },
    /// An empty drive.
    Empty,
    /// Anything else: it is on this host and nowhere else, as far as is known.
    Other,
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    /// Its name in the guest, `vda`.
    pub(super) target: String,
    /// Where its contents are.
    pub(super) source: DiskSource,
    /// Where the images are that it is an overlay of, as far as libvirt tells: it does of a running guest.
    pub(super) backing: Vec<DiskSource>,
    /// A CD or floppy: its contents are not part of the guest.
    pub(super) removable: bool,
    /// Whether the guest cannot write to it.
    pub(super) read_only: bool,
    /// Whether several guests are meant to write to it.
    pub(super) shareable: bool,
    /// What tells it from every other disk of its storage; empty: nothing known.
    pub(super) identity: String,
    /// `raw`, `qcow2` … as the definition says, never as the contents look: those are the guest's.
    pub(super) format: Option<String>,
}

impl Disk {
    /// Every image that must be reached where the guest runs.
    pub(super) fn sources(&self) -> impl Iterator<Item = &DiskSource> {
        std::iter::once(&self.source).chain(&self.backing)
    }
}

/// What a migration must know of a guest.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Definition {
    pub(super) name: String,
    pub(super) uuid: Option<GuestId>,
    /// `kvm`, `qemu`
    pub(super) virt_type: Option<String>,
    pub(super) arch: Option<String>,
    pub(super) machine: Option<String>,
    pub(super) emulator: Option<String>,
    /// The `<cpu>` element as written.
    pub(super) cpu: Option<String>,
    /// Kernel, firmware and the like: files that must be at the target under the same path.
    pub(super) files: Vec<String>,
    pub(super) disks: Vec<Disk>,
    /// Bridges by name, libvirt's networks as `network:NAME`, macvtap as `direct:NIC`.
    pub(super) networks: Vec<String>,
    /// What hinders a live migration, without what only the host can tell (whether a disk is local).
    pub(super) hindrances: BTreeSet<&'static str>,
    /// What hinders a move while it is shut off: state in files of the host that libvirt then leaves behind.
    pub(super) left_behind: BTreeSet<&'static str>,
    pub(super) cpu_limit_cores: Option<f64>,
    pub(super) group: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) priority: i32,
    pub(super) opted_out: bool,
}

impl Definition {
    /// Reads a definition.
    ///
    /// # Errors
    /// When it is too large, no XML, or names no guest.
    pub(super) fn parse(text: &str) -> Result<Self, DefinitionError> {
        if text.len() > MOST_BYTES {
            return Err(DefinitionError::TooLarge { bytes: text.len() });
        }
        let options = ParsingOptions {
            nodes_limit: MOST_NODES,
            ..ParsingOptions::default()
        };
        let document = Document::parse_with_options(text, options).map_err(DefinitionError::Xml)?;
        let root = document.root_element();
        let name = child_text(root, "name").ok_or(DefinitionError::Missing { what: "name" })?;
        let os = child(root, "os");
        let os_type = os.and_then(|os| child(os, "type"));
        let devices = child(root, "devices");
        let mut definition = Self {
            name,
            uuid: child_text(root, "uuid").and_then(|uuid| uuid.parse().ok()),
            virt_type: root.attribute("type").map(str::to_owned),
            arch: attribute(os_type, "arch"),
            machine: attribute(os_type, "machine"),
            emulator: devices.and_then(|d| child_text(d, "emulator")),
            cpu: child(root, "cpu").and_then(|cpu| text.get(cpu.range()).map(str::to_owned)),
            files: os.map(firmware_files).unwrap_or_default(),
            cpu_limit_cores: cpu_limit(root),
            ..Self::default()
        };
        placement_hindrances(root, &mut definition.hindrances);
        let nvram = os.and_then(|os| child(os, "nvram"));
        definition.left_behind.extend(nvram.map(|_| "nvram"));
        for device in devices.into_iter().flat_map(|d| d.children()) {
            definition.add_device(device);
        }
        definition.networks.sort();
        definition.networks.dedup();
        definition.read_metadata(root);
        Ok(definition)
    }

    fn add_device(&mut self, device: Node<'_, '_>) {
        let kind = device.attribute("type").unwrap_or_default();
        match device.tag_name().name() {
            "disk" => self.add_disk(device, kind),
            "interface" => self.add_interface(device, kind),
            "hostdev" => {
                let mediated = kind == "mdev";
                self.hinder(if mediated {
                    "mediated_device"
                } else {
                    "host_device"
                });
            }
            "filesystem" => {
                let driver = attribute(child(device, "driver"), "type");
                let virtiofs = driver.as_deref() == Some("virtiofs");
                self.hinder(if virtiofs {
                    "virtiofs"
                } else {
                    "shared_directory"
                });
            }
            "shmem" => self.hinder("shared_memory"),
            "redirdev" | "smartcard" => self.hinder("redirected_device"),
            "tpm" => {
                let backend = attribute(child(device, "backend"), "type");
                if backend.as_deref() == Some("emulator") {
                    self.left_behind.insert("tpm_state");
                } else {
                    self.hinder("host_device");
                }
            }
            "serial" | "parallel" | "console" if kind == "dev" => self.hinder("host_device"),
            "memory" if matches!(device.attribute("model"), Some("nvdimm" | "virtio-pmem")) => {
                self.hinder("local_memory_device");
            }
            // Video, input, controllers, channels …: QEMU's own, it migrates them.
            _ => {}
        }
    }

    fn hinder(&mut self, hindrance: &'static str) {
        self.hindrances.insert(hindrance);
    }

    fn add_disk(&mut self, disk: Node<'_, '_>, kind: &str) {
        match kind {
            "nvme" | "vhostuser" | "vhostvdpa" => self.hinder("host_device"),
            _ => {}
        }
        self.disks.push(Disk {
            target: attribute(child(disk, "target"), "dev").unwrap_or_default(),
            source: image(disk, kind),
            backing: backing(disk),
            removable: matches!(disk.attribute("device"), Some("cdrom" | "floppy")),
            read_only: child(disk, "readonly").is_some(),
            shareable: child(disk, "shareable").is_some(),
            identity: child(disk, "source").map_or_else(String::new, identity),
            format: attribute(child(disk, "driver"), "type"),
        });
    }

    fn add_interface(&mut self, interface: Node<'_, '_>, kind: &str) {
        let source = child(interface, "source");
        let said = |name| source.and_then(|s| s.attribute(name)).unwrap_or_default();
        match kind {
            "bridge" => self.networks.push(said("bridge").to_owned()),
            "network" => self.networks.push(format!("network:{}", said("network"))),
            "direct" => self.networks.push(format!("direct:{}", said("dev"))),
            "hostdev" | "vdpa" => self.hinder("host_device"),
            "vhostuser" => self.hinder("vhost_user"),
            // User-mode and null networks need nothing of the host.
            "user" | "null" => {}
            _ => self.hinder("unknown_interface"),
        }
    }

    fn read_metadata(&mut self, root: Node<'_, '_>) {
        let marks = child(root, "metadata").into_iter();
        let marks = marks.flat_map(|m| m.children()).filter(Node::is_element);
        let (mut foreign, mut adopted) = (false, false);
        for mark in marks.take(1000) {
            let namespace = mark.tag_name().namespace().unwrap_or_default();
            if namespace == NAMESPACE && mark.tag_name().name() == "guest" {
                adopted |= mark.attribute("adopt") == Some("yes");
                self.read_own_mark(mark);
            }
            foreign |= FOREIGN_MANAGERS.iter().any(|m| namespace.contains(m));
        }
        if foreign && !adopted {
            self.hinder("foreign_manager");
        }
    }

    /// `<evenkeel:guest group= priority= move="never"><evenkeel:tag name= value=/></evenkeel:guest>`
    fn read_own_mark(&mut self, mark: Node<'_, '_>) {
        self.group = mark.attribute("group").map(shortened);
        // Out of range is taken as none: a guest must not become the most important one by a typing error.
        self.priority = mark
            .attribute("priority")
            .and_then(|p| p.trim().parse().ok())
            .unwrap_or(0);
        self.opted_out = mark.attribute("move") == Some("never");
        let tags = mark.children().filter(|n| n.tag_name().name() == "tag");
        for tag in tags.take(MOST_TAGS) {
            if let Some(name) = tag.attribute("name") {
                let value = tag.attribute("value").or_else(|| tag.text());
                self.labels
                    .insert(shortened(name), shortened(value.unwrap_or_default()));
            }
        }
    }
}

/// Where the image is that a `<disk>` or a `<backingStore>` names.
fn image(node: Node<'_, '_>, kind: &str) -> DiskSource {
    let source = child(node, "source");
    let said = |name| source.and_then(|s| s.attribute(name)).map(str::to_owned);
    match kind {
        _ if source.is_none() => DiskSource::Empty,
        "file" => said("file").map_or(DiskSource::Empty, DiskSource::File),
        "block" => said("dev").map_or(DiskSource::Empty, DiskSource::Block),
        "network" => said("protocol").map_or(DiskSource::Other, DiskSource::Network),
        "volume" => said("pool").map_or(DiskSource::Other, |pool| DiskSource::Volume { pool }),
        _ => DiskSource::Other,
    }
}

/// A file or device by its path, a volume by its name, an image on the network by its server and name.
fn identity(source: Node<'_, '_>) -> String {
    let said = |node: Node<'_, '_>, name: &str| shortened(node.attribute(name).unwrap_or_default());
    if let Some(path) = source.attribute("file").or(source.attribute("dev")) {
        return path.to_owned();
    }
    if source.attribute("volume").is_some() {
        return format!("{}/{}", said(source, "pool"), said(source, "volume"));
    }
    let (protocol, name) = (said(source, "protocol"), said(source, "name"));
    if protocol.is_empty() {
        return String::new();
    }
    let host = child(source, "host");
    let part = |name: &str| host.map_or_else(String::new, |host| said(host, name));
    let server = if part("socket").is_empty() {
        format!("{}:{}", part("name"), part("port"))
    } else {
        part("socket")
    };
    format!("{protocol}://{server}/{name}")
}

/// The images below a disk's own. A `<backingStore>` without a type ends the chain; one that names no image
/// is unknown, and so is what lies too deep.
fn backing(disk: Node<'_, '_>) -> Vec<DiskSource> {
    let mut images = vec![];
    let mut layer = child(disk, "backingStore");
    while let Some((node, kind)) = layer.and_then(|node| Some((node, node.attribute("type")?))) {
        if images.len() == MOST_LAYERS {
            images.push(DiskSource::Other);
            break;
        }
        let image = image(node, kind);
        let unknown = image == DiskSource::Empty;
        images.push(if unknown { DiskSource::Other } else { image });
        layer = child(node, "backingStore");
    }
    images
}

fn shortened(text: &str) -> String {
    text.trim().chars().take(MOST_NAME).collect()
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children()
        .find(|n| n.is_element() && n.tag_name().name() == name)
}

fn child_text(node: Node<'_, '_>, name: &str) -> Option<String> {
    let text = child(node, name)?.text()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn attribute(node: Option<Node<'_, '_>>, name: &str) -> Option<String> {
    node?.attribute(name).map(str::to_owned)
}

fn firmware_files(os: Node<'_, '_>) -> Vec<String> {
    ["loader", "kernel", "initrd", "dtb"]
        .into_iter()
        .filter_map(|name| child_text(os, name))
        .collect()
}

/// Pinning ties a guest to this machine's cores, which mean nothing on another.
fn placement_hindrances(root: Node<'_, '_>, hindrances: &mut BTreeSet<&'static str>) {
    let tune = child(root, "cputune");
    let pinned = tune.is_some_and(|t| child(t, "vcpupin").is_some());
    let in_set = child(root, "vcpu").is_some_and(|v| v.attribute("cpuset").is_some());
    if pinned || in_set {
        hindrances.insert("cpu_pinned");
    }
    let numa = child(root, "numatune").and_then(|n| child(n, "memory"));
    if numa.is_some_and(|m| m.attribute("nodeset").is_some()) {
        hindrances.insert("numa_pinned");
    }
    let cpu = child(root, "cpu");
    let passthrough = cpu.and_then(|c| c.attribute("mode")) == Some("host-passthrough");
    if passthrough && cpu.and_then(|c| c.attribute("migratable")) == Some("off") {
        hindrances.insert("cpu_not_migratable");
    }
}

/// What `<cputune>` lets the guest use at most, cores.
fn cpu_limit(root: Node<'_, '_>) -> Option<f64> {
    /// What libvirt takes when no period is given, µs.
    const PERIOD_US: f64 = 100_000.0;
    let tune = child(root, "cputune")?;
    let number = |name: &str| child_text(tune, name)?.parse::<f64>().ok();
    let share = |quota: &str, period: &str| {
        let quota = number(quota).filter(|&q| q > 0.0 && q.is_finite())?;
        let period = number(period).filter(|&p| p > 0.0 && p.is_finite());
        Some(quota / period.unwrap_or(PERIOD_US))
    };
    let vcpu = child(root, "vcpu");
    let current = vcpu
        .and_then(|v| v.attribute("current"))
        .or_else(|| vcpu.and_then(|v| v.text()));
    let vcpus: f64 = current.and_then(|v| v.trim().parse().ok()).unwrap_or(1.0);
    let of_vcpus = share("quota", "period").map(|per_vcpu| per_vcpu * vcpus);
    let of_all = share("global_quota", "global_period");
    match (of_vcpus, of_all) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests;
