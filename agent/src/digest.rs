//! A disk's checksum that does not depend on where its file has holes.
//!
//! SHA-256 over the number and the contents of every block that is not all zero, and over the length. What is
//! sparse costs nothing to sum up, and a hole equals zeroes that were written.

use crate::hypervisor::disks::Piece;
use ring::digest::{Context, SHA256};

/// Bytes of a block.
const BLOCK: usize = 64 << 10;
/// The same, for counting.
const BLOCK_BYTES: u64 = 64 << 10;

/// Length in bytes, and the sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// Bytes, holes included.
    pub length: u64,
    /// SHA-256.
    pub sha256: Vec<u8>,
}

/// A checksum under way.
pub struct Digest {
    context: Context,
    /// Of the block that is not whole yet.
    block: Vec<u8>,
    index: u64,
    length: u64,
}

impl Default for Digest {
    fn default() -> Self {
        Self {
            context: Context::new(&SHA256),
            block: Vec::with_capacity(BLOCK),
            index: 0,
            length: 0,
        }
    }
}

impl Digest {
    /// Takes the next run of bytes.
    pub fn take(&mut self, piece: &Piece) {
        match piece {
            Piece::Data(data) => self.data(data),
            Piece::Hole(bytes) => self.hole(*bytes),
        }
    }

    fn data(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let room = BLOCK.saturating_sub(self.block.len());
            let (now, later) = data.split_at(room.min(data.len()));
            self.block.extend_from_slice(now);
            data = later;
            self.close_block_if_whole();
        }
    }

    fn hole(&mut self, bytes: u64) {
        let mut left = bytes;
        if !self.block.is_empty() {
            left = self.zeroes(left);
        }
        let whole = left / BLOCK_BYTES;
        self.index = self.index.saturating_add(whole);
        self.length = self.length.saturating_add(whole * BLOCK_BYTES);
        self.zeroes(left % BLOCK_BYTES);
    }

    /// Fills the block with zeroes, as far as it goes; answers how many are left over.
    fn zeroes(&mut self, bytes: u64) -> u64 {
        let room = BLOCK.saturating_sub(self.block.len());
        let now = usize::try_from(bytes).map_or(room, |bytes| bytes.min(room));
        self.block.resize(self.block.len().saturating_add(now), 0);
        self.close_block_if_whole();
        bytes.saturating_sub(u64::try_from(now).unwrap_or(u64::MAX))
    }

    fn close_block_if_whole(&mut self) {
        if self.block.len() >= BLOCK {
            self.close_block();
        }
    }

    fn close_block(&mut self) {
        if self.block.iter().any(|byte| *byte != 0) {
            self.context.update(&self.index.to_le_bytes());
            self.context.update(&self.block);
        }
        let bytes = u64::try_from(self.block.len()).unwrap_or(u64::MAX);
        self.length = self.length.saturating_add(bytes);
        self.index = self.index.saturating_add(1);
        self.block.clear();
    }

    /// The sum of all that was taken.
    #[must_use]
    pub fn finish(mut self) -> Sum {
        if !self.block.is_empty() {
            self.close_block();
        }
        self.context.update(&self.length.to_le_bytes());
        Sum {
            length: self.length,
            sha256: self.context.finish().as_ref().to_vec(),
        }
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Digest")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(pieces: &[Piece]) -> Sum {
        let mut digest = Digest::default();
        pieces.iter().for_each(|piece| digest.take(piece));
        digest.finish()
    }

    #[test]
    fn a_change_of_one_byte_of_place_or_of_length_shows() {
        let of = |data: &[u8]| sum(&[Piece::Data(data.to_vec())]);
        let mut bytes = vec![0; 3 * BLOCK];
        bytes[BLOCK + 5] = 1;
        let whole = of(&bytes);
        bytes[BLOCK + 5] = 2;
        assert_ne!(of(&bytes), whole);
        bytes[BLOCK + 5] = 0;
        bytes[5] = 1;
        assert_ne!(of(&bytes), whole, "the same block elsewhere");
        assert_ne!(sum(&[Piece::Hole(1)]), sum(&[Piece::Hole(2)]));
        assert_eq!(sum(&[Piece::Hole(1 << 50)]).length, 1 << 50);
    }

    proptest! {
        #[test]
        fn cuts_and_holes_do_not_matter(
            runs in prop::collection::vec((any::<bool>(), 0..200_000_usize), 0..6),
            cut in 1..70_000_usize,
        ) {
            let piece = |(zero, length): (bool, usize)| if zero {
                Piece::Hole(length.try_into().unwrap())
            } else {
                Piece::Data((0..length).map(|n| u8::try_from(n % 7).unwrap()).collect())
            };
            let pieces: Vec<_> = runs.into_iter().map(piece).collect();
            let bytes: Vec<u8> = pieces.iter().flat_map(|piece| match piece {
                Piece::Data(data) => data.clone(),
                Piece::Hole(bytes) => vec![0; usize::try_from(*bytes).unwrap()],
            }).collect();
            let plain: Vec<_> = bytes.chunks(cut).map(|c| Piece::Data(c.to_vec())).collect();
            prop_assert_eq!(sum(&pieces), sum(&plain));
        }
    }
}
