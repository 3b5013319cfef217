//! libvirt's storage volumes as [`Disks`].
//!
//! Only files in the directory of an active pool are dealt with: what libvirt cannot make, it cannot copy.
//! What a raw file seems to hold is never believed: its contents are the guest's, who could write there what
//! looks like an overlay of any file of the host.

use std::path::Path;

use evenkeel_types::{GuestId, Refusal};
use roxmltree::{Document, Node};

use super::link::Session;
use super::raw::{
    Connection, Domain, ERR_NO_DOMAIN, LookupTarget, Pool, RawError, RawResult, RawVolume,
};
use super::storage::{Place, Storage};
use super::xml::{Definition, Disk, DiskSource};
use super::{LibvirtHypervisor, move_definition};
use crate::hypervisor::disks::{DiskImage, Disks, LocalDisk, Piece, Spot, Volume};
use crate::hypervisor::{CallGate, HypervisorError};

/// Images below one disk that are looked at; libvirt itself stops at 200.
const MOST_LAYERS: usize = 32;
/// Formats whose files are copied: of both the size is known and an empty one can be made.
const FORMATS: [&str; 2] = ["raw", "qcow2"];

type Found<T> = Result<T, (Refusal, String)>;

/// A path's pool and the name below it.
fn pool_of<'a>(connection: &Connection, path: &'a str) -> RawResult<Option<(Pool, &'a str)>> {
    let path = Path::new(path);
    let parts = path.parent().zip(path.file_name());
    let parts = parts.and_then(|(directory, name)| directory.to_str().zip(name.to_str()));
    let Some((directory, name)) = parts.filter(|_| path.is_absolute()) else {
        return Ok(None);
    };
    Ok(connection.pool_of(directory)?.map(|pool| (pool, name)))
}

fn spot(connection: &Connection, path: &str) -> RawResult<Option<Spot>> {
    let Some((pool, name)) = pool_of(connection, path)? else {
        return Ok(None);
    };
    pool.refresh();
    let volume = pool.volume(name)?;
    let volume = volume.map(|volume| volume.xml()).transpose()?;
    let volume = volume
        .map(|xml| {
            let unread = || RawError::ours("libvirt describes a volume in a way that is not known");
            described(&xml).ok_or_else(unread)
        })
        .transpose()?;
    Ok(Some(Spot {
        pool: pool.name(),
        pool_bytes: pool.bytes()?,
        volume,
    }))
}

fn volume(connection: &Connection, path: &str) -> RawResult<RawVolume> {
    let missing = || RawError::ours("there is no such volume");
    let (pool, name) = pool_of(connection, path)?.ok_or_else(missing)?;
    match pool.volume(name)? {
        Some(volume) => Ok(volume),
        None => {
            pool.refresh();
            pool.volume(name)?.ok_or_else(missing)
        }
    }
}

/// What a volume's description says.
fn described(xml: &str) -> Option<Volume> {
    let document = Document::parse(xml).ok()?;
    let child = |node: Node<'_, '_>, name: &str| {
        let found = node.children().find(|n| n.tag_name().name() == name);
        found.map(|n| n.id())
    };
    let below = |path: &[&str]| {
        let mut node = document.root_element();
        for name in path {
            node = document.get_node(child(node, name)?)?;
        }
        Some(node)
    };
    let text = |path: &[&str]| below(path)?.text().map(|text| text.trim().to_owned());
    let format = below(&["target", "format"]).and_then(|n| n.attribute("type"));
    Some(Volume {
        image: DiskImage {
            path: text(&["target", "path"])?,
            format: format.unwrap_or("raw").to_owned(),
            capacity_bytes: text(&["capacity"])?.parse().ok()?,
        },
        allocation_bytes: text(&["allocation"])?.parse().ok()?,
        backing: text(&["backingStore", "path"]),
        modified: text(&["target", "timestamps", "mtime"]).unwrap_or_default(),
    })
}

/// The description of a volume that is to be made.
fn description(name: &str, image: &DiskImage, backing: Option<&DiskImage>) -> String {
    let below = backing.map(|image| {
        format!(
            "<backingStore><path>{}</path><format type='{}'/></backingStore>",
            escaped(&image.path),
            escaped(&image.format)
        )
    });
    format!(
        "<volume><name>{}</name><capacity unit='bytes'>{}</capacity><allocation>0</allocation>\
         <target><format type='{}'/></target>{}</volume>",
        escaped(name),
        image.capacity_bytes,
        escaped(&image.format),
        below.unwrap_or_default()
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&apos;")
}

/// The local disks of a guest.
fn local_disks(session: &Session, domain: &Domain) -> RawResult<Found<Vec<LocalDisk>>> {
    let connection = &session.control;
    let definition = match Definition::parse(&domain.live_definition()?) {
        Ok(definition) => definition,
        Err(error) => return Ok(Err((Refusal::Unmovable, error.to_string()))),
    };
    let storage = Storage::look(&connection.active_pools()?);
    let local = |disk: &&Disk| {
        let here = |source: &DiskSource| storage.place(source) == Place::Local;
        !disk.removable && disk.sources().any(here)
    };
    let mut disks = vec![];
    for disk in definition.disks.iter().filter(local) {
        match local_disk(connection, &storage, domain, disk)? {
            Ok(disk) => disks.push(disk),
            Err(why) => {
                let detail = format!("disk {} cannot be copied: {why}", disk.target);
                return Ok(Err((Refusal::Unmovable, detail)));
            }
        }
    }
    Ok(Ok(disks))
}

fn local_disk(
    connection: &Connection,
    storage: &Storage,
    domain: &Domain,
    disk: &Disk,
) -> RawResult<Result<LocalDisk, String>> {
    let DiskSource::File(path) = &disk.source else {
        return Ok(Err("it is not a file".into()));
    };
    if storage.place(&disk.source) != Place::Local {
        return Ok(Err(format!(
            "{path} is shared, but an image below it is not"
        )));
    }
    if disk.read_only {
        return Ok(Err("the guest cannot write to it".into()));
    }
    let format = disk.format.as_deref().unwrap_or("raw");
    if !FORMATS.contains(&format) {
        return Ok(Err(format!("its format is {format}")));
    }
    let volume = match here(connection, path)? {
        Ok(volume) => volume,
        Err(why) => return Ok(Err(why)),
    };
    let below = volume.backing.filter(|_| format != "raw");
    let backing = match layers(connection, storage, below)? {
        Ok(backing) => backing,
        Err(why) => return Ok(Err(why)),
    };
    // Of a running guest QEMU knows best.
    let capacity_bytes = domain.disk_bytes(&disk.target);
    Ok(Ok(LocalDisk {
        name: disk.target.clone(),
        image: DiskImage {
            path: path.clone(),
            format: format.to_owned(),
            capacity_bytes: capacity_bytes.unwrap_or(volume.image.capacity_bytes),
        },
        allocation_bytes: volume.allocation_bytes,
        backing,
    }))
}

/// The volume that must be at a path.
fn here(connection: &Connection, path: &str) -> RawResult<Result<Volume, String>> {
    Ok(match spot(connection, path)? {
        None => Err(format!(
            "no active storage pool has the directory of {path}"
        )),
        Some(spot) => spot.volume.ok_or_else(|| format!("{path} is not there")),
    })
}

/// The images below a disk, the nearest first, down to what is shared.
fn layers(
    connection: &Connection,
    storage: &Storage,
    mut below: Option<String>,
) -> RawResult<Result<Vec<DiskImage>, String>> {
    let mut all = vec![];
    while let Some(path) = below.take() {
        if storage.place(&DiskSource::File(path.clone())) != Place::Local {
            break;
        }
        if all.len() >= MOST_LAYERS {
            return Ok(Err(format!("more than {MOST_LAYERS} images are below it")));
        }
        let volume = match here(connection, &path)? {
            Ok(volume) => volume,
            Err(why) => return Ok(Err(why)),
        };
        below = volume.backing;
        all.push(volume.image);
    }
    Ok(Ok(all))
}

fn users(session: &Session, path: &str, but: &GuestId) -> RawResult<Vec<String>> {
    let mut names = vec![];
    for domain in session.control.all_guests()? {
        if domain.uuid().as_deref() == Some(but.as_str()) {
            continue;
        }
        let definition = match domain.live_definition() {
            Ok(definition) => definition,
            // It went away meanwhile.
            Err(error) if error.code == ERR_NO_DOMAIN => continue,
            Err(error) => return Err(error),
        };
        let uses = |source: &DiskSource| matches!(source, DiskSource::File(own) if own == path);
        let uses = match Definition::parse(&definition) {
            Ok(definition) => definition.disks.iter().any(|d| d.sources().any(uses)),
            // What cannot be read may use anything.
            Err(_) => definition.contains(path),
        };
        if uses {
            names.push(domain.name());
        }
    }
    Ok(names)
}

impl Disks for LibvirtHypervisor {
    fn local_disks(&self, guest: &GuestId) -> Result<Found<Vec<LocalDisk>>, HypervisorError> {
        let answer = self.call(|session| {
            let found = session.control.lookup(LookupTarget::Uuid(guest.as_str()))?;
            found
                .map(|domain| local_disks(session, &domain))
                .transpose()
        })?;
        answer.ok_or_else(|| HypervisorError::NoSuchGuest {
            guest: guest.clone(),
        })
    }

    fn spot(&self, path: &str) -> Result<Option<Spot>, HypervisorError> {
        self.call(|session| spot(&session.control, path))
    }

    fn users(&self, path: &str, but: &GuestId) -> Result<Vec<String>, HypervisorError> {
        self.call(|session| users(session, path, but))
    }

    fn make_volume(
        &self,
        image: &DiskImage,
        backing: Option<&DiskImage>,
    ) -> Result<(), HypervisorError> {
        self.call(|session| {
            let missing = || RawError::ours("there is no such pool");
            let (pool, name) = pool_of(&session.control, &image.path)?.ok_or_else(missing)?;
            pool.make(&description(name, image, backing))
        })
    }

    fn remove_volume(&self, path: &str) -> Result<(), HypervisorError> {
        self.call(|session| {
            let Some((pool, name)) = pool_of(&session.control, path)? else {
                return Err(RawError::ours("there is no such pool"));
            };
            pool.refresh();
            match pool.volume(name)? {
                Some(volume) => volume.remove(),
                None => Ok(()),
            }
        })
    }

    fn read_volume(
        &self,
        path: &str,
        take: &mut dyn FnMut(Piece) -> bool,
    ) -> Result<(), HypervisorError> {
        // A stream waits for its bytes; whoever shares its connection waits with it.
        self.call(|_| {
            let own = Connection::open(&self.uri)?;
            volume(&own, path)?.read(&own, take)
        })
    }

    fn write_volume(
        &self,
        path: &str,
        give: &mut dyn FnMut() -> Result<Option<Piece>, HypervisorError>,
    ) -> Result<(), HypervisorError> {
        let mut broken = None;
        let written = self.call(|_| {
            let own = Connection::open(&self.uri)?;
            volume(&own, path)?.write(&own, &mut || {
                give().map_err(|error| {
                    broken = Some(error);
                    RawError::ours("what was to be written broke off")
                })
            })
        });
        match broken {
            Some(error) => Err(error),
            None => written,
        }
    }

    fn autostart(&self, guest: &GuestId) -> Result<bool, HypervisorError> {
        self.on_guest(guest, Domain::autostart)
    }

    fn set_autostart(&self, guest: &GuestId) -> Result<(), HypervisorError> {
        self.on_guest(guest, Domain::set_autostart)
    }

    fn move_definition(
        &self,
        guest: &GuestId,
        peer_uri: &str,
        gate: &CallGate,
    ) -> Result<(), HypervisorError> {
        self.call(|session| {
            let target = LookupTarget::Uuid(guest.as_str());
            let own = Connection::open(&self.uri)?;
            match own.lookup(target)? {
                Some(domain) => move_definition(&session.control, &domain, peer_uri, gate),
                None => Err(RawError::ours("the guest is not here")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volumes_description_is_read() {
        let volume = described(
            "<volume type='file'><name>d</name><key>/srv/d</key><capacity unit='bytes'>64</capacity>\
             <allocation unit='bytes'>12</allocation><target><path>/srv/d</path><format type='qcow2'/>\
             <timestamps><atime>1.0</atime><mtime>17.25</mtime></timestamps></target>\
             <backingStore><path>/srv/b</path><format type='raw'/></backingStore></volume>",
        );
        let image = DiskImage {
            path: "/srv/d".into(),
            format: "qcow2".into(),
            capacity_bytes: 64,
        };
        let expected = Volume {
            image,
            allocation_bytes: 12,
            backing: Some("/srv/b".into()),
            modified: "17.25".into(),
        };
        assert_eq!(volume, Some(expected));
        assert_eq!(described("<volume/>"), None);
        assert_eq!(described("no xml"), None);
    }

    #[test]
    fn a_path_with_signs_of_xml_stays_one_name() {
        let image = DiskImage {
            path: "/srv/a".into(),
            format: "qcow2".into(),
            capacity_bytes: 1,
        };
        let below = DiskImage {
            path: "/srv/<&'>".into(),
            ..image.clone()
        };
        let xml = description("it's<x>", &image, Some(&below));
        let document = Document::parse(&xml).unwrap();
        let text = |name: &str| {
            let node = document.descendants().find(|n| n.has_tag_name(name));
            node.and_then(|n| n.text()).map(str::to_owned)
        };
        assert_eq!(text("name").as_deref(), Some("it's<x>"));
        assert_eq!(text("path").as_deref(), Some("/srv/<&'>"));
    }
}
