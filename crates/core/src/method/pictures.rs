//! Images that come to the language model as fewer positions, by what the vision tower has seen of them.

use std::fmt::Debug;

/// Notes of a vision tower about an image, from the layer whose output it gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Notes {
    /// Positions before the first patch: 1 where the class token has one. They always go on.
    pub lead: usize,
    /// The attention that each patch gets from the class token, the mean over the heads.
    pub attention: Vec<f32>,
    /// The key of each patch, the mean over the heads, `[patches, head_dim]`.
    pub keys: Vec<f32>,
}

impl Notes {
    /// Positions of the image.
    pub fn positions(&self) -> usize {
        self.lead + self.attention.len()
    }
}

/// The fate of an image's positions, which are numbered from 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chosen {
    /// Those that go on, ascending, at least one.
    pub rows: Vec<u32>,
    /// Others, each with the one of `rows` that the mean of all its others is added to, ascending.
    pub merged: Vec<(u32, u32)>,
    /// The attention of each position; 0 of one that is no patch.
    pub attention: Vec<f32>,
}

impl Chosen {
    /// The features that go on, `[rows, width]`, from those of all positions.
    pub fn gather(&self, features: &[f32], width: usize) -> Vec<f32> {
        let of = |row: u32| &features[row as usize * width..(row as usize + 1) * width];
        let mut gathered: Vec<f32> = self.rows.iter().flat_map(|row| of(*row)).copied().collect();
        let (mut sums, mut counts) = (vec![0f32; gathered.len()], vec![0usize; self.rows.len()]);
        for (from, into) in &self.merged {
            let Ok(at) = self.rows.binary_search(into) else { continue };
            counts[at] += 1;
            sums[at * width..(at + 1) * width].iter_mut().zip(of(*from)).for_each(|(sum, x)| *sum += x);
        }
        for (index, (x, sum)) in gathered.iter_mut().zip(sums).enumerate() {
            *x += sum / counts[index / width].max(1) as f32;
        }
        gathered
    }
}

/// Says which positions of images go on, before a layer of the language model has seen them.
pub trait Pictures: Send + Sync + Debug {
    /// How many of an image's positions go on, from 1 to all.
    fn kept(&self, positions: usize) -> usize;

    /// Which: as many as [`Pictures::kept`] says.
    fn choose(&self, notes: &Notes) -> Chosen;
}

/// The images of a prompt as they come to its first layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    /// The positions of the prompt that go on, text included, ascending, counted from its first one.
    pub rows: Vec<u32>,
    /// [`Chosen::attention`] of each position of the prompt; 0 of text.
    pub attention: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_added_to_what_goes_on() {
        let features: Vec<f32> = (0..12).map(|x| x as f32).collect();
        let chosen = Chosen { rows: vec![1, 4], merged: vec![(0, 4), (2, 1), (5, 4)], attention: vec![0.0; 6] };
        // 0 and 5 hold (0, 1) and (10, 11).
        assert_eq!(chosen.gather(&features, 2), [2.0 + 4.0, 3.0 + 5.0, 8.0 + 5.0, 9.0 + 6.0]);
        let none = Chosen { merged: Vec::new(), ..chosen };
        assert_eq!(none.gather(&features, 2), [2.0, 3.0, 8.0, 9.0]);
    }
}
