//! Working memory between its uses. A step asks for the same sizes in every layer, and a call of the driver for each would take as long as a
//! small kernel.

use std::collections::VecDeque;

/// Bytes that are kept, at most: those of a step of 48 sequences of a 7B model, not those of its prompts.
const MOST: usize = 32 << 20;

/// An allocation that nothing uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) address: u64,
    pub(super) room: usize,
}

/// Blocks in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Kept {
    blocks: VecDeque<Block>,
    bytes: usize,
}

/// Bytes that are allocated for `bytes`: at most an eighth more, so that a workspace that grows with a lane finds its last one again.
pub(super) fn room(bytes: usize) -> usize {
    let step = (bytes.max(1).next_power_of_two() / 16).max(256);
    bytes.max(1).next_multiple_of(step)
}

impl Kept {
    /// A block of exactly `room` bytes, the latest: it is the likeliest to be in the device's cache.
    pub(super) fn take(&mut self, room: usize) -> Option<Block> {
        let index = self.blocks.iter().rposition(|block| block.room == room)?;
        let block = self.blocks.remove(index)?;
        self.bytes -= block.room;
        Some(block)
    }

    /// Keeps a block; gives those for which there is no room any more, the oldest.
    pub(super) fn put(&mut self, block: Block) -> Vec<Block> {
        self.bytes += block.room;
        self.blocks.push_back(block);
        let mut gone = Vec::new();
        while self.bytes > MOST {
            let Some(oldest) = self.blocks.pop_front() else { break };
            self.bytes -= oldest.room;
            gone.push(oldest);
        }
        gone
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    pub(super) fn take_all(&mut self) -> Vec<Block> {
        self.bytes = 0;
        self.blocks.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_little_more_than_asked_for_and_few() {
        for bytes in (0..100_000).chain([1 << 20, (1 << 20) + 1, 7_654_321, MOST]) {
            let room = room(bytes);
            assert!(
                room >= bytes && room <= bytes.max(2048) / 8 + bytes + 256 && room.is_multiple_of(256),
                "{bytes}: {room}"
            );
            assert_eq!(super::room(room), room, "{bytes}");
        }
    }

    #[test]
    fn the_latest_block_of_a_size_is_taken_and_the_oldest_of_all_goes() {
        let mut kept = Kept::default();
        let block = |address: u64, room: usize| Block { address, room };
        for address in 1..=4 {
            assert!(kept.put(block(address, 512)).is_empty());
        }
        assert_eq!(kept.take(256), None);
        assert_eq!(kept.take(512), Some(block(4, 512)));
        assert_eq!(kept.put(block(9, MOST - 1024)), [block(1, 512)]);
        assert_eq!(
            kept.put(block(10, 2 * MOST)),
            [block(2, 512), block(3, 512), block(9, MOST - 1024), block(10, 2 * MOST)]
        );
        assert!(kept.put(block(11, 256)).is_empty());
        assert_eq!(kept.take_all(), [block(11, 256)]);
        assert_eq!((kept.take(256), kept.bytes), (None, 0));
    }
}
