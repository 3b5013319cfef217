//! Handles of storage pools and volumes, and the streams that carry a volume's bytes.

use std::ffi::{c_char, c_longlong};
use std::ptr::NonNull;

use virt::storage_pool::StoragePool;
use virt::storage_vol::StorageVol;
use virt::sys;

use super::handle::Handle;
use super::{Connection, RawError, RawResult, c_text, counted};
use crate::hypervisor::disks::Piece;

/// Bytes taken of a stream at one time; libvirt's own packets are smaller.
const PIECE: usize = 256 << 10;
/// What libvirt answers instead of a count where a hole begins.
const AT_HOLE: i32 = -3;
/// `VIR_ERR_NO_STORAGE_VOL`
const ERR_NO_VOLUME: i32 = 50;
/// `VIR_ERR_NO_STORAGE_POOL`
const ERR_NO_POOL: i32 = 49;

/// An active pool.
#[derive(Debug)]
pub(in super::super) struct Pool(Handle<StoragePool>);

/// A volume of one.
#[derive(Debug)]
pub(in super::super) struct RawVolume(Handle<StorageVol>);

impl Connection {
    /// The active pool whose directory this is.
    ///
    /// # Errors
    /// libvirt's, but not "no such pool".
    pub(in super::super) fn pool_of(&self, directory: &str) -> RawResult<Option<Pool>> {
        c_text(directory)?;
        match self.handle.lookup_storage_pool_by_target_path(directory) {
            Ok(pool) => {
                let pool = Pool(Handle::new(pool));
                Ok(pool.0.is_active()?.then_some(pool))
            }
            Err(error) => match RawError::from(error) {
                error if error.code == ERR_NO_POOL => Ok(None),
                error => Err(error),
            },
        }
    }
}

impl Pool {
    /// Its name.
    pub(in super::super) fn name(&self) -> String {
        self.0.name().unwrap_or_default()
    }

    /// Looks at the directory again: files that others made are known only then. A pool that is at work on a
    /// volume says no, and what it knew stands.
    pub(in super::super) fn refresh(&self) {
        if let Err(error) = self.0.refresh(0) {
            tracing::debug!(pool = self.name(), %error, "pool not refreshed");
        }
    }

    /// Bytes in all, and free.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn bytes(&self) -> RawResult<(u64, u64)> {
        let info = self.0.info()?;
        Ok((info.capacity, info.available))
    }

    /// The volume of that name.
    ///
    /// # Errors
    /// libvirt's, but not "no such volume".
    pub(in super::super) fn volume(&self, name: &str) -> RawResult<Option<RawVolume>> {
        c_text(name)?;
        match self.0.lookup_storage_vol_by_name(name) {
            Ok(volume) => Ok(Some(RawVolume(Handle::new(volume)))),
            Err(error) => match RawError::from(error) {
                error if error.code == ERR_NO_VOLUME => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Makes a volume as the XML says.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn make(&self, xml: &str) -> RawResult<()> {
        drop(Handle::new(StorageVol::create_xml(&self.0, xml, 0)?));
        Ok(())
    }
}

impl RawVolume {
    /// Its description.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn xml(&self) -> RawResult<String> {
        Ok(self.0.xml_desc(0)?)
    }

    /// Removes it.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn remove(&self) -> RawResult<()> {
        Ok(self.0.delete(0)?)
    }

    /// Reads it on `connection`, which has to be its own: until its end, or until `take` wants no more.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn read(
        &self,
        connection: &Connection,
        take: &mut dyn FnMut(Piece) -> bool,
    ) -> RawResult<()> {
        let stream = Stream::new(connection)?;
        // Raw: virt cannot receive holes, and its `finish` may panic.
        // SAFETY: live handles of one connection.
        counted(unsafe {
            sys::virStorageVolDownload(
                self.0.as_ptr(),
                stream.raw(),
                0,
                0,
                sys::VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM,
            )
        })?;
        let mut buffer = vec![0_u8; PIECE];
        loop {
            let go_on = match stream.receive(&mut buffer)? {
                Received::End => return stream.finish(),
                Received::Data(count) => take(Piece::Data(
                    buffer.get(..count).unwrap_or_default().to_vec(),
                )),
                Received::Hole(0) => true,
                Received::Hole(bytes) => take(Piece::Hole(bytes)),
            };
            if !go_on {
                return Ok(());
            }
        }
    }

    /// Writes it on `connection`, which has to be its own, until `give` has no more.
    ///
    /// # Errors
    /// libvirt's, or what `give` said.
    pub(in super::super) fn write(
        &self,
        connection: &Connection,
        give: &mut dyn FnMut() -> RawResult<Option<Piece>>,
    ) -> RawResult<()> {
        let stream = Stream::new(connection)?;
        // Raw: virt cannot send holes, and its `finish` may panic.
        // SAFETY: live handles of one connection.
        counted(unsafe {
            sys::virStorageVolUpload(
                self.0.as_ptr(),
                stream.raw(),
                0,
                0,
                sys::VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM,
            )
        })?;
        while let Some(piece) = give()? {
            match piece {
                Piece::Data(data) => stream.send(&data)?,
                Piece::Hole(bytes) => stream.send_hole(bytes)?,
            }
        }
        stream.finish()
    }
}

/// What came out of a stream.
enum Received {
    Data(usize),
    Hole(u64),
    End,
}

/// A stream that blocks; aborted when dropped unfinished.
struct Stream {
    stream: NonNull<sys::virStream>,
    over: bool,
}

impl Stream {
    fn new(connection: &Connection) -> RawResult<Self> {
        // SAFETY: the connection is open.
        let stream = unsafe { sys::virStreamNew(connection.raw(), 0) };
        let stream = NonNull::new(stream).ok_or_else(RawError::last)?;
        Ok(Self {
            stream,
            over: false,
        })
    }

    fn raw(&self) -> sys::virStreamPtr {
        self.stream.as_ptr()
    }

    fn receive(&self, buffer: &mut [u8]) -> RawResult<Received> {
        // SAFETY: a live handle; the buffer is as long as is said.
        let count = unsafe {
            sys::virStreamRecvFlags(
                self.raw(),
                buffer.as_mut_ptr().cast::<c_char>(),
                buffer.len(),
                sys::VIR_STREAM_RECV_STOP_AT_HOLE,
            )
        };
        if count != AT_HOLE {
            let count = usize::try_from(counted(count)?)?;
            return Ok(if count == 0 {
                Received::End
            } else {
                Received::Data(count)
            });
        }
        let mut bytes: c_longlong = 0;
        // SAFETY: a live handle; the place to write to is ours.
        counted(unsafe { sys::virStreamRecvHole(self.raw(), &raw mut bytes, 0) })?;
        Ok(Received::Hole(u64::try_from(bytes)?))
    }

    fn send(&self, data: &[u8]) -> RawResult<()> {
        let mut rest = data;
        while !rest.is_empty() {
            // SAFETY: a live handle; the bytes are as many as is said.
            let sent = counted(unsafe {
                sys::virStreamSend(self.raw(), rest.as_ptr().cast::<c_char>(), rest.len())
            })?;
            rest = rest.get(usize::try_from(sent)?..).unwrap_or_default();
        }
        Ok(())
    }

    fn send_hole(&self, bytes: u64) -> RawResult<()> {
        let bytes = c_longlong::try_from(bytes)?;
        // SAFETY: a live handle.
        counted(unsafe { sys::virStreamSendHole(self.raw(), bytes, 0) }).map(drop)
    }

    fn finish(mut self) -> RawResult<()> {
        self.over = true;
        // SAFETY: a live handle.
        counted(unsafe { sys::virStreamFinish(self.raw()) }).map(drop)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.over {
            // SAFETY: a live handle. What it says no longer matters.
            unsafe { sys::virStreamAbort(self.raw()) };
        }
        // SAFETY: the only owner; not used afterwards.
        unsafe { sys::virStreamFree(self.raw()) };
    }
}
