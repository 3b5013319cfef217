//! Disks on the wire: descriptions and the bytes of a copy, from another agent and so not believed.

use std::time::Duration;

use evenkeel_proto::convert::{BadField, bad_field};
use evenkeel_proto::v1;
use evenkeel_types::OrderId;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::malformed;
use crate::hypervisor::disks::{DiskImage, LocalDisk, Piece};
use crate::incoming::Arrival;

/// Disks of one guest; libvirt's own limit is higher, no real guest's is.
const MOST_DISKS: usize = 64;
/// Images below one disk.
const MOST_LAYERS: usize = 64;
/// Longest path that Linux knows.
const MOST_PATH: usize = 4096;
/// A sender that is silent for so long is gone, or its libvirt hangs.
const SILENCE: Duration = Duration::from_secs(60);

/// Reads the disks of a request.
///
/// # Errors
/// Which field does not hold what it must.
pub(super) fn disks(messages: &[v1::LocalDisk]) -> Result<Vec<LocalDisk>, BadField> {
    if messages.len() > MOST_DISKS {
        return Err(bad("disks", &messages.len().to_string()));
    }
    messages.iter().map(disk).collect()
}

fn bad(field: &'static str, given: &str) -> BadField {
    bad_field("PrepareRequest", field, given)
}

fn disk(message: &v1::LocalDisk) -> Result<LocalDisk, BadField> {
    if message.name.is_empty() || message.backing.len() > MOST_LAYERS {
        return Err(bad("disks.name", &message.name));
    }
    let image_message = message.image.clone().unwrap_or_default();
    Ok(LocalDisk {
        name: message.name.clone(),
        image: image(&image_message)?,
        allocation_bytes: message.allocation_bytes,
        backing: message
            .backing
            .iter()
            .map(image)
            .collect::<Result<_, _>>()?,
    })
}

fn image(message: &v1::DiskImage) -> Result<DiskImage, BadField> {
    let path = &message.path;
    let plain = std::path::Path::new(path)
        .components()
        .all(|part| !matches!(part, std::path::Component::ParentDir));
    if !path.starts_with('/') || path.len() > MOST_PATH || !plain || path.contains('\0') {
        return Err(bad("disks.image.path", path));
    }
    if !matches!(message.format.as_str(), "raw" | "qcow2") {
        return Err(bad("disks.image.format", &message.format));
    }
    Ok(DiskImage {
        path: path.clone(),
        format: message.format.clone(),
        capacity_bytes: message.capacity_bytes,
    })
}

/// The order and the path that a copy begins with.
///
/// # Errors
/// When the stream does not begin with them.
pub(super) async fn opening(
    stream: &mut Streaming<v1::DiskPiece>,
) -> Result<(OrderId, String), Status> {
    let first = stream.message().await?.unwrap_or_default();
    let order = first.order_id.parse().map_err(|e| malformed(&e))?;
    Ok((order, first.path))
}

/// Hands the pieces on, until the stream ends; one that breaks ends without saying so.
pub(super) async fn forward(mut stream: Streaming<v1::DiskPiece>, arrivals: mpsc::Sender<Arrival>) {
    loop {
        let next = tokio::time::timeout(SILENCE, stream.message()).await;
        let arrival = match next {
            Ok(Ok(Some(piece))) => match piece.content {
                Some(v1::disk_piece::Content::Data(data)) => Arrival::Piece(Piece::Data(data)),
                Some(v1::disk_piece::Content::HoleBytes(bytes)) => {
                    Arrival::Piece(Piece::Hole(bytes))
                }
                None => continue,
            },
            Ok(Ok(None)) => Arrival::End,
            Ok(Err(_)) | Err(_) => return,
        };
        let over = matches!(arrival, Arrival::End);
        if arrivals.send(arrival).await.is_err() || over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_makes_no_sense_is_refused_by_field() {
        let message = |path: &str, format: &str| v1::LocalDisk {
            name: "vda".into(),
            image: Some(v1::DiskImage {
                path: path.into(),
                format: format.into(),
                capacity_bytes: 1,
            }),
            ..v1::LocalDisk::default()
        };
        assert!(disks(&[message("/srv/a", "raw")]).is_ok());
        for (path, format, field) in [
            ("srv/a", "raw", "disks.image.path"),
            ("/srv/../etc/shadow", "raw", "disks.image.path"),
            ("/srv/a\0", "raw", "disks.image.path"),
            ("/srv/a", "vmdk", "disks.image.format"),
        ] {
            assert_eq!(disks(&[message(path, format)]).unwrap_err().field, field);
        }
        let many = vec![message("/srv/a", "raw"); MOST_DISKS + 1];
        assert_eq!(disks(&many).unwrap_err().field, "disks");
    }
}
