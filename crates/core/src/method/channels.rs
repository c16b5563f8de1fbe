//! The order of the channels of every head and the clip of their codes, and the files that say which.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::budget::ModelKey;
use super::calibration::{CalibratedModel, MOST_LAYERS, bad, read};
use crate::error::{Error, Result};

/// `format` of a file with orders of channels.
pub const FORMAT: &str = "prefixkv-channels";
/// The version that is written and read.
pub const VERSION: u32 = 1;
/// Most heads of a layer and most channels of a head: limits on what comes from outside.
const MOST_HEADS: usize = 4096;
const MOST_CHANNELS: usize = 4096;

/// Which channels of a head share a scale, and how much of their range the codes cover, found before: `model.calibrateChannels` makes it,
/// `skvq({ calibration })` uses it.
///
/// ```ts
/// import { type ChannelsCalibration, image, load, skvq } from "prefixkv";
///
/// await using model = await load();
/// const messages = [{ role: "user", content: [image("scene.png"), "What color is the star?"] }];
/// const calibration: ChannelsCalibration = await model.calibrateChannels({ samples: [{ messages }], group: 16 });
/// const { memory } = await model.generate({ messages, cache: skvq({ calibration, window: 32 }), maxTokens: 8 });
/// console.log(calibration.layers[0]?.keys.clip2, memory.effectiveBits);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ChannelsCalibration {
    /// `"prefixkv-channels"`, which marks such a file.
    pub format: String,
    /// The version of the format: 1.
    pub version: u32,
    /// The model that it belongs to, with all layers of its language model; a size that is not said is not checked.
    pub model: CalibratedModel,
    /// Channels that share a scale, for which the orders were found.
    pub group: u64,
    /// First positions of a prompt that were left out, since they stay whole.
    pub sinks: u64,
    /// Prompts over which ranges and errors are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// Where it comes from, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Of every layer of the model.
    pub layers: Vec<ChannelsLayer>,
}

/// The channels of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ChannelsLayer {
    /// Of its keys.
    pub keys: ChannelsSide,
    /// Of its values.
    pub values: ChannelsSide,
}

/// The channels of the keys, or of the values, of a layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ChannelsSide {
    /// For each KV head its channels in the order in which they are stored, so that neighbours share a scale; empty for a layer that reads
    /// another's.
    pub order: Vec<Vec<u16>>,
    /// The part of a group's range that codes of 2 bits cover, in whole hundredths.
    pub clip2: f64,
    /// The same of 4 bits.
    pub clip4: f64,
}

impl ChannelsCalibration {
    /// Reads such a file.
    pub fn parse(value: &Value) -> Result<ChannelsCalibration> {
        let calibration: ChannelsCalibration = read(value, FORMAT, VERSION)?;
        calibration.check()?;
        Ok(calibration)
    }

    fn check(&self) -> Result<()> {
        let layers = self.model.layers;
        if layers == 0 || layers > MOST_LAYERS || self.layers.len() != layers {
            return Err(bad(format!(
                "{} layers of {layers}, expected all of 1 to {MOST_LAYERS} layers",
                self.layers.len()
            )));
        }
        for (index, layer) in self.layers.iter().enumerate() {
            for (name, side) in [("keys", &layer.keys), ("values", &layer.values)] {
                side.check().map_err(|reason| bad(format!("`{name}` of layer {index} has {reason}")))?;
            }
        }
        Ok(())
    }

    /// Refuses another model than the one that was calibrated. `model` has all layers.
    pub(super) fn check_model(&self, model: &ModelKey) -> Result<()> {
        self.model.check(model)?;
        let (heads, dim) = (model.shape.kv_heads, model.shape.head_dim);
        let fits = |side: &ChannelsSide| {
            side.order.is_empty() || (side.order.len() == heads && side.order.iter().all(|order| order.len() == dim))
        };
        match self.layers.iter().position(|layer| !fits(&layer.keys) || !fits(&layer.values)) {
            Some(layer) => Err(Error::Calibration {
                reason: format!(
                    "the orders of layer {layer} are not of {heads} KV heads of {dim} channels, as the model has; calibrate this model"
                ),
            }),
            None => Ok(()),
        }
    }
}

impl ChannelsSide {
    fn check(&self) -> std::result::Result<(), String> {
        let dim = self.order.first().map_or(0, Vec::len);
        if self.order.len() > MOST_HEADS || dim > MOST_CHANNELS {
            return Err(format!(
                "{} heads of {dim} channels, expected up to {MOST_HEADS} of {MOST_CHANNELS}",
                self.order.len()
            ));
        }
        for order in &self.order {
            let mut seen = vec![false; dim];
            let all = order
                .iter()
                .all(|channel| seen.get_mut(usize::from(*channel)).is_some_and(|seen| !std::mem::replace(seen, true)));
            if !all || order.len() != dim || dim == 0 {
                return Err("an order that is none of all channels of a head, each once".into());
            }
        }
        match [self.clip2, self.clip4].iter().find(|clip| percent(**clip).is_none()) {
            Some(clip) => Err(format!("a clip of {clip}, expected 0.01 to 1 in hundredths")),
            None => Ok(()),
        }
    }

    /// Whether its channels are in another order than the model's.
    pub(super) fn is_ordered(&self) -> bool {
        self.order.iter().any(|order| order.iter().enumerate().any(|(place, channel)| place != usize::from(*channel)))
    }
}

/// A clip in whole hundredths; None for another.
pub(super) fn percent(clip: f64) -> Option<u8> {
    let percent = clip * 100.0;
    ((1.0..=100.5).contains(&percent) && (percent - percent.round()).abs() < 1e-9).then_some(percent.round() as u8)
}

/// An order of the channels of a head in which alike ones share a group of `group`, by the least and the largest number of each: k-means
/// with clusters of one size. The published code of SKVQ clusters the channels of all heads of a layer, into clusters of any size.
pub(crate) fn order(ranges: &[(f32, f32)], group: usize) -> Vec<u16> {
    const TURNS: usize = 64;
    let dim = ranges.len();
    let points: Vec<[f64; 2]> = ranges.iter().map(|(low, high)| [f64::from(*low), f64::from(*high)]).collect();
    let clusters = dim / group.max(1);
    let identity = || (0..dim as u16).collect();
    if clusters < 2 || !dim.is_multiple_of(group) {
        return identity();
    }
    let wide = |point: &[f64; 2]| point[1] - point[0];
    let mut sorted: Vec<usize> = (0..dim).collect();
    sorted.sort_by(|a, b| wide(&points[*a]).total_cmp(&wide(&points[*b])).then(a.cmp(b)));
    // The cluster of each channel.
    let mut of = vec![0; dim];
    sorted.iter().enumerate().for_each(|(place, channel)| of[*channel] = place / group);
    let mut best = (f64::INFINITY, of.clone());
    for _ in 0..TURNS {
        let mut centers = vec![[0.0; 2]; clusters];
        for (point, cluster) in points.iter().zip(&of) {
            (0..2).for_each(|axis| centers[*cluster][axis] += point[axis] / group as f64);
        }
        let apart = |channel: usize, cluster: usize| -> f64 {
            (0..2).map(|axis| (points[channel][axis] - centers[cluster][axis]).powi(2)).sum()
        };
        let cost: f64 = (0..dim).map(|channel| apart(channel, of[channel])).sum();
        // Not for a last bit.
        if cost < best.0 * (1.0 - 1e-9) {
            best = (cost, of.clone());
        } else {
            break;
        }
        let mut all: Vec<(f64, usize, usize)> = (0..dim)
            .flat_map(|channel| (0..clusters).map(move |cluster| (channel, cluster)))
            .map(|(channel, cluster)| (apart(channel, cluster), channel, cluster))
            .collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let (mut placed, mut room) = (vec![false; dim], vec![group; clusters]);
        for (_, channel, cluster) in all {
            if !placed[channel] && room[cluster] > 0 {
                (placed[channel], of[channel]) = (true, cluster);
                room[cluster] -= 1;
            }
        }
    }
    let of = best.1;
    let mut order: Vec<u16> = (0..dim as u16).collect();
    // Clusters by their first channel, so that what is in order stays so.
    let first: Vec<usize> = (0..clusters).map(|cluster| of.iter().position(|of| *of == cluster).unwrap_or(0)).collect();
    order.sort_by_key(|channel| (first[of[usize::from(*channel)]], *channel));
    order
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn alike_channels_share_a_group() {
        let ranges =
            [(-1.0, 1.0), (-9.0, 9.0), (-1.1, 1.0), (-9.0, 8.0), (0.0, 9.0), (-0.9, 1.0), (0.0, 9.5), (-1.0, 0.9)];
        assert_eq!(order(&ranges, 4), [0, 2, 5, 7, 1, 3, 4, 6]);
        assert_eq!(order(&ranges, 2), [0, 2, 1, 3, 4, 6, 5, 7]);
        // One group, no whole number of groups, and numbers that are all the same, leave the order as it is.
        for (ranges, group) in [(&ranges[..], 8), (&ranges[..], 3), (&[(0.0, 0.0); 8], 4)] {
            assert_eq!(order(ranges, group), [0, 1, 2, 3, 4, 5, 6, 7]);
        }
    }

    #[test]
    fn an_order_is_of_all_channels_whatever_their_ranges() {
        for seed in 0..200usize {
            let number = |i: usize| (((i + 3) * 7919 + seed * 104_729) % 101) as f32 / 10.0;
            let ranges: Vec<(f32, f32)> = (0..64).map(|i| (-number(i), number(i + 64))).collect();
            for group in [8, 16, 32, 64] {
                let mut found = order(&ranges, group);
                found.sort_unstable();
                assert!(found.iter().enumerate().all(|(place, channel)| place == usize::from(*channel)));
            }
        }
    }

    fn file() -> Value {
        let side = json!({ "order": [[1, 0], [0, 1]], "clip2": 0.8, "clip4": 1 });
        json!({
            "format": FORMAT, "version": 1, "model": { "layers": 1 }, "group": 8, "sinks": 5,
            "layers": [{ "keys": side, "values": { "order": [], "clip2": 1, "clip4": 1 } }],
        })
    }

    #[test]
    fn broken_files_are_refused() {
        let found = ChannelsCalibration::parse(&file()).unwrap();
        assert!(found.layers[0].keys.is_ordered() && !found.layers[0].values.is_ordered());
        let mut broken = vec![json!("x"), json!([0.5]), json!({}), json!({ "format": "prefixkv-sharing" })];
        for order in [json!([[0, 0]]), json!([[0, 2]]), json!([[0, 1], [0]]), json!([[]]), json!([[0, -1]])] {
            let mut file = file();
            file["layers"][0]["keys"]["order"] = order;
            broken.push(file);
        }
        for clip in [json!(0), json!(1.01), json!(0.805), json!(null)] {
            let mut file = file();
            file["layers"][0]["values"]["clip4"] = clip;
            broken.push(file);
        }
        for (key, value) in
            [("version", json!(2)), ("model", json!({ "layers": 2 })), ("layers", json!([])), ("rows", json!([]))]
        {
            let mut file = file();
            file[key] = value;
            broken.push(file);
        }
        for value in broken {
            assert_eq!(ChannelsCalibration::parse(&value).expect_err(&value.to_string()).code(), "calibration");
        }
    }
}
