//! Changes of JSON values.

use serde_json::{Map, Value, json};

use crate::mutate;
use crate::random::Random;

/// Changes one place of a value.
pub fn change(value: &mut Value, words: &[&str], random: &mut Random) {
    let donor = random.below(count(value));
    let copy = nth(value, &mut { donor }).cloned().unwrap_or_default();
    // Every node is as likely as another, or every branch: else a large table would draw all changes.
    let node = match random.one_in(3) {
        true => nth_mut(value, &mut random.below(count(value))),
        false => Some(descend(value, random)),
    };
    if let Some(node) = node {
        change_node(node, copy, words, random);
    }
}

fn descend<'a>(value: &'a mut Value, random: &mut Random) -> &'a mut Value {
    let children = match &*value {
        Value::Array(items) => items.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    };
    if children == 0 || random.one_in(5) {
        return value;
    }
    let at = random.below(children);
    match value {
        Value::Array(items) => descend(&mut items[at], random),
        Value::Object(map) => match map.values_mut().nth(at) {
            Some(child) => descend(child, random),
            None => unreachable!("an object has as many values as it has entries"),
        },
        leaf => leaf,
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

fn nth<'a>(value: &'a Value, left: &mut usize) -> Option<&'a Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter().find_map(|item| nth(item, left)),
        Value::Object(map) => map.values().find_map(|item| nth(item, left)),
        _ => None,
    }
}

fn nth_mut<'a>(value: &'a mut Value, left: &mut usize) -> Option<&'a mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth_mut(item, left)),
        Value::Object(map) => map.values_mut().find_map(|item| nth_mut(item, left)),
        _ => None,
    }
}

fn change_node(node: &mut Value, copy: Value, words: &[&str], random: &mut Random) {
    match (random.below(10), &mut *node) {
        (0..3, Value::String(text)) => {
            let mut bytes = std::mem::take(text).into_bytes();
            for _ in 0..1 + random.below(3) {
                mutate::bytes(&mut bytes, copy.as_str().unwrap_or_default().as_bytes(), words, random);
            }
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        (0..3, Value::Number(number)) => {
            let near = number.as_f64().unwrap_or_default();
            *node = match random.below(4) {
                0 => json!(near as i64 - 1),
                1 => json!((near as i64).saturating_add(1)),
                2 => json!(near * 1000.0),
                _ => json!(-near),
            };
        }
        (0..5, Value::Object(map)) => change_object(map, copy, words, random),
        (0..5, Value::Array(items)) if !items.is_empty() => {
            let at = random.below(items.len());
            match random.below(5) {
                0 => drop(items.remove(at)),
                1 => items.insert(at, copy),
                2 => items.clear(),
                3 => items.swap(0, at),
                _ => {
                    let item = items[at].clone();
                    items.extend(std::iter::repeat_n(item, 1 << random.below(9)));
                }
            }
        }
        (5, _) => *node = copy,
        _ => *node = extreme(words, random),
    }
}

fn change_object(map: &mut Map<String, Value>, copy: Value, words: &[&str], random: &mut Random) {
    let keys: Vec<String> = map.keys().cloned().collect();
    if random.one_in(3) || keys.is_empty() {
        let name = if words.is_empty() { "" } else { random.pick(words) };
        map.insert(name.to_owned(), if random.one_in(2) { copy } else { extreme(words, random) });
        return;
    }
    let key = random.pick(&keys);
    let value = map.shift_remove(key).unwrap_or_default();
    match random.below(3) {
        0 => {}
        1 => drop(map.insert(random.pick(&keys).clone(), value)),
        _ => drop(map.insert(format!("{key}{}", char::from(b'a' + random.below(26) as u8)), value)),
    }
}

fn extreme(words: &[&str], random: &mut Random) -> Value {
    match random.below(26) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(false),
        3 => json!(-1),
        4 => json!(0),
        5 => json!(1),
        6 => json!(2),
        7 => json!(i32::MAX),
        8 => json!(u32::MAX),
        9 => json!(1u64 << 53),
        10 => json!(i64::MIN),
        11 => json!(u64::MAX),
        12 => json!(1e308),
        13 => json!(1e-310),
        14 => json!(-0.0),
        15 => json!(0.5),
        16 => json!(""),
        17 => json!("\0\u{feff}\u{10ffff}e\u{301}"),
        18 => json!("a".repeat(1 << random.below(17))),
        19 => json!([]),
        20 => json!({}),
        21 => (0..1 + random.below(120)).fold(json!(0), |inner, _| json!([inner])),
        22 => json!(vec![random.draw() as u16; 1 << random.below(10)]),
        23 => json!(random.draw() as u32),
        _ if !words.is_empty() => json!(random.pick(words)),
        _ => json!("x"),
    }
}
