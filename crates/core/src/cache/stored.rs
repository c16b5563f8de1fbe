//! Lanes as bytes and back, for snapshots. Numbers are little-endian; entries are as they lie in memory, which is the same on every device.

use prefixkv_kernels::codec::{Codec, Deletion, Dtype, KvCodec, Levels, Scales};

use super::lane::Lane;
use super::memory::{Entries, Form, Memory};
use super::segment::{Dead, Segment};
use crate::error::{Error, Result};

/// Where bytes go.
pub trait Put {
    fn put(&mut self, bytes: &[u8]) -> Result<()>;

    fn put_u32(&mut self, number: u32) -> Result<()> {
        self.put(&number.to_le_bytes())
    }
}

/// Where bytes come from.
pub trait Get {
    /// Fills `to`. Errors where there are not so many.
    fn get(&mut self, to: &mut [u8]) -> Result<()>;

    /// Bytes that are left: no list is made longer than they can fill.
    fn left(&self) -> u64;

    /// The error for bytes that cannot be what they are to be.
    fn corrupt(&self, reason: String) -> Error;

    fn get_u8(&mut self) -> Result<u8> {
        let mut bytes = [0];
        self.get(&mut bytes)?;
        Ok(bytes[0])
    }

    fn get_u32(&mut self) -> Result<u32> {
        let mut bytes = [0; 4];
        self.get(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn get_u64(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.get(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A count of things of at least `least` bytes each, as many as there may still be.
    fn get_count(&mut self, least: u64, of: &str) -> Result<usize> {
        let count = self.get_u32()?;
        match u64::from(count).checked_mul(least) {
            Some(bytes) if bytes <= self.left() => Ok(count as usize),
            _ => Err(self.corrupt(format!("{count} {of}, and {} bytes are left", self.left()))),
        }
    }

    /// So many numbers of four bytes.
    fn get_words(&mut self, count: usize) -> Result<Vec<u32>> {
        if count as u64 > self.left() / 4 {
            return Err(self.corrupt(format!("{count} numbers, and {} bytes are left", self.left())));
        }
        let mut words = vec![0u32; count];
        self.get(bytemuck::cast_slice_mut(&mut words))?;
        words.iter_mut().for_each(|word| *word = u32::from_le(*word));
        Ok(words)
    }
}

/// Bytes of a segment beside its positions, scores and entries, and of a codec.
const SEGMENT: u64 = 2 * CODEC as u64 + 4 + 4 + 8 + 1;
const CODEC: usize = 6;

fn put_codec(codec: Codec) -> [u8; CODEC] {
    let dtype = match codec.dtype {
        Dtype::F32 => 0,
        Dtype::F16 => 1,
        Dtype::Bf16 => 2,
        Dtype::F8 => 3,
        Dtype::U8 => 4,
        Dtype::U4 => 5,
        Dtype::U2 => 6,
    };
    let levels = match codec.levels {
        Levels::Even => 0,
        Levels::Normal => 1,
        Levels::Found => 2,
    };
    let (scales, group, clip) = match codec.scales {
        Scales::None => (0, 0, 0),
        Scales::PerChannel { group, clip } => (1, group, clip),
        Scales::PerEntry { group, clip } => (2, group, clip),
        Scales::Apart { count, .. } => (3, count.into(), 0),
    };
    let [low, high] = group.to_le_bytes();
    [dtype, levels, scales, low, high, clip]
}

/// Codecs that stand by themselves: of levels that were found, the table would be elsewhere.
fn codec([dtype, levels, scales, low, high, clip]: [u8; CODEC]) -> Option<Codec> {
    let all = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::F8, Dtype::U8, Dtype::U4, Dtype::U2];
    let dtype = *all.get(usize::from(dtype))?;
    let levels = *[Levels::Even, Levels::Normal].get(usize::from(levels))?;
    let group = u16::from_le_bytes([low, high]);
    let scales = match scales {
        0 if group == 0 && clip == 0 => Scales::None,
        1 if clip <= 100 => Scales::PerChannel { group, clip },
        2 if clip <= 100 => Scales::PerEntry { group, clip },
        _ => return None,
    };
    Some(Codec { dtype, levels, scales })
}

impl<M: Memory> Segment<M> {
    fn save(&self, to: &mut dyn Put) -> Result<()> {
        let Form { codec: KvCodec { key, value, basis, .. }, capacity, .. } = self.sizes();
        if self.twin.is_some() || basis.is_some() || [key, value].iter().any(|codec| codec.levels == Levels::Found) {
            return Err(Error::Internal("entries that do not stand by themselves are to be saved".into()));
        }
        to.put(&put_codec(key))?;
        to.put(&put_codec(value))?;
        to.put_u32(capacity as u32)?;
        to.put_u32(self.len() as u32)?;
        to.put(&self.dead().0.to_le_bytes())?;
        to.put(&[u8::from(!self.scores().is_empty())])?;
        self.positions().iter().try_for_each(|position| to.put_u32(*position))?;
        self.scores().iter().try_for_each(|score| to.put(&score.to_le_bytes()))?;
        to.put(&self.entries().bytes(self.sizes())?)
    }

    /// A segment of `lane`, of positions before `end`.
    fn restore(lane: &Lane<M>, from: &mut dyn Get, end: u32) -> Result<Self> {
        let mut pair = [0; 2 * CODEC];
        from.get(&mut pair)?;
        let of = |half: usize| {
            let mut bytes = [0; CODEC];
            bytes.copy_from_slice(&pair[half * CODEC..(half + 1) * CODEC]);
            codec(bytes)
        };
        let (Some(key), Some(value)) = (of(0), of(1)) else {
            return Err(from.corrupt(format!("entries in an unknown format {pair:?}")));
        };
        let options = lane.options();
        let codec = KvCodec::new(key, value, options.codec.dual);
        codec.check(options.head_dim).map_err(|reason| from.corrupt(format!("entries that cannot be: {reason}")))?;
        let (capacity, len, dead) = (from.get_u32()? as usize, from.get_u32()? as usize, Dead(from.get_u64()?));
        let scored = from.get_u8()?;
        let groups = codec.deletion() == Deletion::Group;
        let marks = if groups { u64::MAX >> (u64::BITS as usize - len.clamp(1, Dead::MOST)) } else { 0 };
        let sized = match groups {
            true => capacity == codec.group() && capacity <= Dead::MOST && len == capacity,
            false => (1..=capacity).contains(&len),
        };
        // An entry takes a byte at least, so what follows cannot overflow.
        if !sized || capacity as u64 > from.left() || dead.0 & !marks != 0 || (groups && dead.0 == marks) {
            return Err(from.corrupt(format!("{len} entries in room for {capacity}, and marks {:x}", dead.0)));
        }
        if scored != u8::from(options.scored) {
            return Err(from.corrupt(format!("a mark {scored} of scores in a lane that is otherwise")));
        }
        let positions = from.get_words(len)?;
        if let Some(position) = positions.iter().find(|position| **position >= end) {
            return Err(from.corrupt(format!("an entry of position {position}, of {end}")));
        }
        let scores: Vec<f32> =
            from.get_words(if options.scored { len } else { 0 })?.into_iter().map(f32::from_bits).collect();
        if scores.iter().any(|score| score.is_nan()) {
            return Err(from.corrupt("a score that is no number".into()));
        }
        let heads = lane.heads().len();
        let form = Form { codec, heads, dim: options.head_dim, capacity, basis: None, gains: None };
        if form.bytes() as u64 > from.left() {
            return Err(from.corrupt(format!("{} bytes of entries, and {} are left", form.bytes(), from.left())));
        }
        let mut segment = lane.segment_in(codec, None, capacity)?;
        segment.extend(positions, options.scored)?;
        segment.scores.copy_from_slice(&scores);
        let mut bytes = vec![0; form.bytes()];
        from.get(&mut bytes)?;
        segment.fill(&bytes, dead)?;
        Ok(segment)
    }
}

impl<M: Memory> Lane<M> {
    /// Writes the entries; those of stores with bases, or of two lanes at once, are refused.
    pub fn save(&self, to: &mut dyn Put) -> Result<()> {
        if !self.bases.is_empty() {
            return Err(Error::Internal("entries in bases of their own are to be saved".into()));
        }
        to.put(&[u8::from(self.has_tail())])?;
        to.put_u32(self.limit())?;
        to.put_u32(self.segments.len() as u32)?;
        self.segments.iter().try_for_each(|segment| segment.save(to))
    }

    /// Fills an empty lane with what [`Lane::save`] has written of one with the same heads and options, of positions before `end`.
    pub fn restore(&mut self, from: &mut dyn Get, end: u32) -> Result<()> {
        let tail = match from.get_u8()? {
            mark @ 0..=1 => mark == 1,
            mark => return Err(from.corrupt(format!("a mark {mark} of a lane's tail"))),
        };
        let limit = from.get_u32()?;
        let segments = from.get_count(SEGMENT, "runs of entries")?;
        self.segments.reserve_exact(segments);
        for _ in 0..segments {
            let segment = Segment::restore(self, from, end)?;
            self.segments.push(segment);
        }
        let len: usize = self.segments.iter().map(Segment::alive).sum();
        self.set_counts(len as u32, tail && segments > 0, limit);
        if self.positions().windows(2).any(|pair| pair[0] == pair[1]) || len > limit as usize {
            return Err(from.corrupt(format!("{len} entries of one lane, some of one position or more than {limit}")));
        }
        Ok(())
    }
}
