//! Which storage is the same on two hosts, and which is this host's alone.
//!
//! A pool's name proves nothing: `default` is a local directory on every host. Identities are made of what
//! stands behind a path: a shared file system by type, export and mount point; a LUN by its world-wide name.
//! What is not known to be shared is local.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use roxmltree::Document;

use super::xml::DiskSource;

/// What every host reaches: network disks are opened by QEMU itself, and `Prepare` finds out if it cannot.
/// Always listed, so that a host without shared storage does not look like one without restrictions.
pub(super) const NETWORK: &str = "network";

/// File systems that several hosts mount at once, as libvirt's own check for safe migrations knows them.
const SHARED_FILE_SYSTEMS: [&str; 15] = [
    "nfs",
    "nfs4",
    "ceph",
    "cifs",
    "smb3",
    "afs",
    "gfs2",
    "ocfs2",
    "gpfs",
    "acfs",
    "lustre",
    "beegfs",
    "fuse.glusterfs",
    "fuse.ceph-fuse",
    "fuse.quobyte",
];
/// Pools whose volumes QEMU opens over the network.
const NETWORK_POOLS: [&str; 5] = ["rbd", "gluster", "sheepdog", "iscsi-direct", "vstorage"];
/// Mounts, LUNs and pools that are looked at; a host with more has its surplus unknown, so: not shared.
const MOST: usize = 4096;

/// Where a disk's contents are, for a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Reached from every host that lists this identity.
    Shared(String),
    /// On this host alone, as far as is known.
    Local,
    /// Nothing to be moved: an empty drive.
    Nothing,
}

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    point: String,
    kind: String,
    source: String,
}

impl Mount {
    fn identity(&self) -> Option<String> {
        let shared = SHARED_FILE_SYSTEMS.contains(&self.kind.as_str());
        let kind = if self.kind == "nfs4" {
            "nfs"
        } else {
            &self.kind
        };
        // The mount point belongs to it: libvirt opens the same path at the target.
        shared.then(|| format!("{kind}:{}@{}", self.source, self.point))
    }
}

/// What storage a host sees at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Storage {
    mounts: Vec<Mount>,
    /// Places of libvirt's pools by name.
    pools: BTreeMap<String, Place>,
    /// World-wide names of LUNs, `wwn-0x…`.
    luns: Vec<String>,
}

impl Storage {
    /// Looks at the mounts, the LUNs and the given pools (XML) of this host. What cannot be read is not there.
    pub(super) fn look(pools: &[String]) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let luns = fs::read_dir("/dev/disk/by-id").into_iter().flatten();
        let luns = luns
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| is_world_wide(name) && !name.contains("-part"))
            .take(MOST)
            .collect();
        Self::from_texts(&mounts, pools, luns)
    }

    fn from_texts(mountinfo: &str, pools: &[String], luns: Vec<String>) -> Self {
        let mut storage = Self {
            mounts: mountinfo.lines().take(MOST).filter_map(mount).collect(),
            pools: BTreeMap::new(),
            luns,
        };
        let pools = pools.iter().take(MOST).filter_map(|xml| storage.pool(xml));
        storage.pools = pools.collect();
        storage
    }

    /// Every identity that this host reaches, sorted.
    pub(super) fn identities(&self) -> Vec<String> {
        let mounts = self.mounts.iter().filter_map(Mount::identity);
        let pools = self.pools.values().filter_map(|place| match place {
            Place::Shared(identity) => Some(identity.clone()),
            Place::Local | Place::Nothing => None,
        });
        let luns = self.luns.iter().map(|lun| format!("lun:{lun}"));
        let mut all: Vec<_> = mounts.chain(pools).chain(luns).collect();
        all.push(NETWORK.to_owned());
        all.sort();
        all.dedup();
        all
    }

    /// Where a disk is.
    pub(super) fn place(&self, source: &DiskSource) -> Place {
        match source {
            DiskSource::File(path) => self.place_of_file(path),
            DiskSource::Block(device) => place_of_block(device),
            DiskSource::Network(_) => Place::Shared(NETWORK.to_owned()),
            DiskSource::Volume { pool } => self.pools.get(pool).cloned().unwrap_or(Place::Local),
            DiskSource::Empty => Place::Nothing,
            DiskSource::Other => Place::Local,
        }
    }

    fn place_of_file(&self, path: &str) -> Place {
        let below = |m: &&Mount| Path::new(path).starts_with(&m.point);
        // Of several mounts on one point the last covers the others.
        let mount = self
            .mounts
            .iter()
            .filter(below)
            .max_by_key(|m| m.point.len());
        let identity = mount.and_then(Mount::identity);
        identity.map_or(Place::Local, Place::Shared)
    }

    fn pool(&self, xml: &str) -> Option<(String, Place)> {
        let document = Document::parse(xml).ok()?;
        let root = document.root_element();
        let kind = root.attribute("type")?;
        let find = |name: &str| root.descendants().find(|n| n.tag_name().name() == name);
        let name = find("name")?.text()?.trim().to_owned();
        let place = if NETWORK_POOLS.contains(&kind) {
            Place::Shared(NETWORK.to_owned())
        } else {
            let target = find("target")?;
            let path = target.children().find(|n| n.tag_name().name() == "path")?;
            self.place_of_file(path.text()?.trim())
        };
        Some((name, place))
    }
}

fn is_world_wide(name: &str) -> bool {
    name.starts_with("wwn-") || name.starts_with("dm-uuid-mpath-")
}

/// A LUN by its world-wide name is looked for by that name at the target; `/dev/sdb` may be anything there.
fn place_of_block(device: &str) -> Place {
    let name = device.strip_prefix("/dev/disk/by-id/");
    match name.filter(|name| is_world_wide(name) && !name.contains("-part")) {
        Some(name) => Place::Shared(format!("lun:{name}")),
        None => Place::Local,
    }
}

/// One line of mountinfo: `36 35 98:0 /root /point options shared:1 - type source options`.
fn mount(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let mut back = back.split(' ');
    Some(Mount {
        point: unescaped(front.split(' ').nth(4)?),
        kind: back.next()?.to_owned(),
        source: unescaped(back.next()?),
    })
}

/// The kernel writes blanks, tabs, line ends and backslashes as three octal digits.
fn unescaped(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (code, plain)| {
        text.replace(code, plain)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOUNTS: &str = "\
21 1 8:1 / / rw - ext4 /dev/sda1 rw
30 21 0:40 / /srv/nfs rw shared:5 - nfs4 filer:/export/vm rw,addr=10.0.0.9
31 21 0:41 / /srv/nfs/scratch rw - tmpfs tmpfs rw
32 21 0:42 / /srv/with\\040blank rw - ceph 10.0.0.1,10.0.0.2:/vm rw
broken line";

    fn storage() -> Storage {
        let pools = [
            "<pool type='dir'><name>default</name><target><path>/var/lib/libvirt/images</path></target></pool>",
            "<pool type='netfs'><name>vm</name><target><path>/srv/nfs</path></target></pool>",
            "<pool type='rbd'><name>rbd</name><source><name>p</name></source></pool>",
            "<pool type='dir'>",
        ];
        let luns = vec!["wwn-0x5000".to_owned()];
        Storage::from_texts(MOUNTS, &pools.map(str::to_owned), luns)
    }

    fn place(source: DiskSource) -> Place {
        storage().place(&source)
    }

    #[test]
    fn what_is_not_known_to_be_shared_is_local() {
        let shared = |text: &str| Place::Shared(text.into());
        let file = |path: &str| place(DiskSource::File(path.into()));
        let volume = |pool: &str| place(DiskSource::Volume { pool: pool.into() });
        let block = |device: &str| place(DiskSource::Block(device.into()));
        assert_eq!(file("/var/lib/libvirt/images/a.qcow2"), Place::Local);
        assert_eq!(
            file("/srv/nfs/a.qcow2"),
            shared("nfs:filer:/export/vm@/srv/nfs")
        );
        assert_eq!(file("/srv/nfs/scratch/a.qcow2"), Place::Local);
        assert_eq!(file("/srv/nfs-not/a.qcow2"), Place::Local);
        assert_eq!(
            file("/srv/with blank/a"),
            shared("ceph:10.0.0.1,10.0.0.2:/vm@/srv/with blank")
        );
        assert_eq!(volume("default"), Place::Local);
        assert_eq!(volume("vm"), shared("nfs:filer:/export/vm@/srv/nfs"));
        assert_eq!(volume("rbd"), shared(NETWORK));
        assert_eq!(volume("unheard-of"), Place::Local);
        assert_eq!(block("/dev/sdb"), Place::Local);
        assert_eq!(block("/dev/vg/lv"), Place::Local);
        assert_eq!(
            block("/dev/disk/by-id/wwn-0x5000"),
            shared("lun:wwn-0x5000")
        );
        assert_eq!(block("/dev/disk/by-id/wwn-0x5000-part1"), Place::Local);
        assert_eq!(place(DiskSource::Network("nbd".into())), shared(NETWORK));
        assert_eq!(place(DiskSource::Other), Place::Local);
        assert_eq!(place(DiskSource::Empty), Place::Nothing);
    }

    #[test]
    fn a_host_lists_what_it_reaches_and_is_never_unrestricted() {
        assert_eq!(Storage::default().identities(), [NETWORK]);
        assert_eq!(
            storage().identities(),
            [
                "ceph:10.0.0.1,10.0.0.2:/vm@/srv/with blank",
                "lun:wwn-0x5000",
                NETWORK,
                "nfs:filer:/export/vm@/srv/nfs",
            ]
        );
    }

    proptest! {
        #[test]
        fn no_mount_table_makes_it_panic(text in "[ -~\n]{0,300}", path in "[ -~]{0,40}") {
            let storage = Storage::from_texts(&text, std::slice::from_ref(&text), vec![]);
            let _ = storage.place(&DiskSource::File(path));
        }
    }
}
