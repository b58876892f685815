//! What was added to counters, kept beside the rules that are judged.

use super::world::{Broken, Step, World};
use bytes::Bytes;
use flotilla_node::engine::keys::{self, RowKey};
use flotilla_node::model::{
    Effect, Element, Head, Type, decode_element, decode_head, parse_integer,
};
use flotilla_topology::ids::Origin;
use flotilla_topology::stamp::Stamp;
use std::collections::BTreeMap;

/// A counter: key, type, element.
type Name = (Bytes, Type, Bytes);

/// Everything that was ever added, by whom and when.
#[derive(Default)]
pub struct Added {
    sums: BTreeMap<(Name, Origin), (Stamp, i128)>,
    each: BTreeMap<Name, Vec<(Stamp, i128)>>,
}

impl Added {
    /// Notes what an effect that took effect has added.
    pub fn note(&mut self, effect: &Effect) {
        let (name, element): (Name, &Element) = match effect {
            Effect::Head { key, head, .. } => {
                ((key.clone(), Type::String, Bytes::new()), &head.string)
            }
            Effect::Element { key, ty, name, element, .. } => {
                ((key.clone(), *ty, name.clone()), element)
            }
        };
        for sum in &element.sums {
            let before = self.sums.insert((name.clone(), sum.slot), (sum.start, sum.sum));
            let went_on = before.filter(|(start, _)| *start == sum.start);
            let added = sum.sum - went_on.map_or(0, |(_, sum)| sum);
            self.each.entry(name.clone()).or_default().push((sum.stamp, added));
        }
    }

    /// What was added since a stamp.
    fn since(&self, name: &Name, stamp: Stamp) -> i128 {
        let each = self.each.get(name).into_iter().flatten();
        each.filter(|(at, _)| *at >= stamp).map(|(_, added)| added).sum()
    }
}

impl World {
    /// No counter shows what was added before its key was deleted. Where counters go down as well
    /// this says nothing.
    pub fn check_counters(&self) -> Step {
        if self.taste.mixes.iter().any(|mix| mix.down) {
            return Ok(());
        }
        let rows = self.oracle.rows();
        let mut heads: BTreeMap<Bytes, Head> = BTreeMap::new();
        for (row, value) in rows {
            let unreadable = "rows of the oracle are readable";
            let (name, element) = match keys::decode(row).expect(unreadable) {
                RowKey::Head { key, .. } => {
                    let head = decode_head(value).expect(unreadable);
                    heads.insert(key.clone(), head.clone());
                    ((key, Type::String, Bytes::new()), head.string)
                }
                RowKey::Element { key, ty, name, .. } => {
                    ((key, ty, name), decode_element(value).expect(unreadable))
                }
                _ => continue,
            };
            let Some(head) = heads.get(&name.0).filter(|head| head.ty() == Some(name.1)) else {
                continue;
            };
            let floor = head.floor;
            let shown = element.value(floor).and_then(|value| parse_integer(&value));
            let Some(shown) = shown else { continue };
            let base = element.register.as_ref().filter(|r| !floor.hides(r.stamp));
            let base = base.and_then(|register| parse_integer(register.value.as_ref()?));
            let most = i128::from(base.unwrap_or(0)) + self.oracle.added.since(&name, floor.stamp);
            if i128::from(shown) > most {
                let what =
                    format!("{name:?} shows {shown}, only {most} were added since {floor:?}");
                return Err(Broken { invariant: "counter_back", what });
            }
        }
        Ok(())
    }
}
