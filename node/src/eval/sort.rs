//! SORT and SORT_RO.
//!
//! What the patterns of BY and GET name is read together with the sorted key, so it must lie in the
//! same slot, whatever the elements are: a pattern's hash tag stands before its `*`, and is the key's.

use super::args::{Outcome, ReadBudget, Stop, integer, is};
use super::collection::{self, Budget};
use super::doubles;
use super::lists;
use super::txn::{Key, Txn};
use crate::model::Type;
use crate::resp::Reply;
use bytes::Bytes;
use flotilla_topology::slot::Slot;
use std::cmp::Ordering;

/// What one command may hold of elements and what they are sorted by, in bytes.
const SORT_BYTES_MAX: usize = 32 << 20;

/// What an element leads to.
#[derive(Debug)]
enum Pattern {
    /// To itself.
    Itself,
    /// To nothing: the pattern has no `*`.
    Nothing,
    /// To a string with a name around the element, or to a field of a hash.
    Key { before: Bytes, behind: Bytes, field: Option<Bytes> },
}

impl Pattern {
    fn parse(text: &Bytes) -> Pattern {
        // Redis looks for its signs as in a C string.
        let signs = text.split(|byte| *byte == 0).next().unwrap_or_default();
        if signs == b"#" {
            return Pattern::Itself;
        }
        let Some(star) = signs.iter().position(|byte| *byte == b'*') else {
            return Pattern::Nothing;
        };
        let arrow = signs[star + 1..].windows(2).position(|two| two == b"->");
        let arrow = arrow.map(|at| star + 1 + at).filter(|at| at + 2 < signs.len());
        Pattern::Key {
            before: text.slice(..star),
            behind: text.slice(star + 1..arrow.unwrap_or(text.len())),
            field: arrow.map(|at| text.slice(at + 2..)),
        }
    }

    /// Refuses one that may name keys in other slots.
    fn check(self, option: &str, key: &[u8]) -> Result<Pattern, Stop> {
        if let Pattern::Key { before, .. } = &self
            && (!has_hash_tag(before) || Slot::of(before) != Slot::of(key))
        {
            return Err(Stop::error(format!(
                "ERR {option} option of SORT denied when keys formed by the pattern may be in other \
                 slots than the sorted key: put its {{hash tag}} before the *"
            )));
        }
        Ok(self)
    }

    /// What an element leads to, if that is there.
    fn find(&self, txn: &Txn<'_>, element: &Bytes) -> Result<Option<Bytes>, Stop> {
        let (before, behind, field) = match self {
            Pattern::Itself => return Ok(Some(element.clone())),
            Pattern::Nothing => return Ok(None),
            Pattern::Key { before, behind, field } => (before, behind, field),
        };
        let key =
            txn.load(&Bytes::from([before, element, behind].map(|part| &part[..]).concat()))?;
        Ok(match field {
            None => key.string(),
            Some(field) if key.ty == Some(Type::Hash) => txn.field(&key, field)?,
            Some(_) => None,
        })
    }
}

/// Whether the slot of a name that begins so is settled.
fn has_hash_tag(beginning: &[u8]) -> bool {
    let Some(open) = beginning.iter().position(|byte| *byte == b'{') else { return false };
    beginning[open + 1..].iter().position(|byte| *byte == b'}').is_some_and(|len| len > 0)
}

/// What a command asks for.
#[derive(Debug, Default)]
struct Asked {
    descending: bool,
    /// By their bytes and not by numbers.
    alpha: bool,
    start: usize,
    count: Option<usize>,
    by: Option<Pattern>,
    /// As they come: a pattern of BY has no `*`.
    unsorted: bool,
    gets: Vec<Pattern>,
    target: Option<Bytes>,
}

impl Asked {
    fn parse(key: &[u8], mut options: &[Bytes], may_store: bool) -> Result<Asked, Stop> {
        let mut asked = Asked::default();
        while let [word, rest @ ..] = options {
            options = match rest {
                _ if is(word, "ASC") => {
                    asked.descending = false;
                    rest
                }
                _ if is(word, "DESC") => {
                    asked.descending = true;
                    rest
                }
                _ if is(word, "ALPHA") => {
                    asked.alpha = true;
                    rest
                }
                [start, count, rest @ ..] if is(word, "LIMIT") => {
                    let (start, count) = (integer(start)?, integer(count)?);
                    asked.start = usize::try_from(start).unwrap_or(0);
                    asked.count = usize::try_from(count).ok();
                    rest
                }
                [target, rest @ ..] if may_store && is(word, "STORE") => {
                    asked.target = Some(target.clone());
                    rest
                }
                [pattern, rest @ ..] if is(word, "BY") => {
                    let pattern = Pattern::parse(pattern).check("BY", key)?;
                    asked.unsorted |= !matches!(pattern, Pattern::Key { .. });
                    asked.by = Some(pattern);
                    rest
                }
                [pattern, rest @ ..] if is(word, "GET") => {
                    asked.gets.push(Pattern::parse(pattern).check("GET", key)?);
                    rest
                }
                _ => return Err(Stop::syntax()),
            };
        }
        Ok(asked)
    }

    /// A list and a sorted set have an order without being sorted; a set has none that could be stored.
    fn settle(&mut self, ty: Type) {
        if self.unsorted && ty == Type::Set && self.target.is_some() {
            (self.unsorted, self.alpha, self.by) = (false, true, None);
        }
    }

    /// The elements that are asked for, in order.
    fn elements(&self, txn: &Txn<'_>, key: &Key, ty: Type) -> Result<Vec<Bytes>, Stop> {
        let mut budget = ReadBudget::of("sort", SORT_BYTES_MAX);
        let mut take =
            |element: Bytes| budget.take(element.len() + size_of::<Item>()).map(|()| element);
        if self.unsorted && ty != Type::Set {
            let from = txn.in_order_from(key, self.start as u64, self.descending)?;
            let entries = from.take(self.count.unwrap_or(usize::MAX));
            let elements = entries.map(|entry| {
                let entry = entry?;
                take(match ty {
                    Type::List => txn.field(key, &entry.place)?.unwrap_or_default(),
                    _ => entry.member(),
                })
            });
            return elements.collect();
        }
        let elements = txn.fields(key).map(|element| {
            let (name, value) = element?;
            take(if ty == Type::List { value } else { name })
        });
        let mut elements: Vec<Bytes> = elements.collect::<Result<_, Stop>>()?;
        if !self.unsorted {
            elements = self.sorted(txn, elements, &mut budget)?;
        }
        let some = elements.into_iter().skip(self.start);
        Ok(some.take(self.count.unwrap_or(usize::MAX)).collect())
    }

    fn sorted(
        &self,
        txn: &Txn<'_>,
        elements: Vec<Bytes>,
        budget: &mut ReadBudget,
    ) -> Result<Vec<Bytes>, Stop> {
        let mut items = Vec::with_capacity(elements.len());
        for element in elements {
            let by = match &self.by {
                None => Some(element.clone()),
                Some(pattern) => pattern.find(txn, &element)?,
            };
            let item = if self.alpha {
                let bytes = by.as_ref().filter(|_| self.by.is_some()).map_or(0, Bytes::len);
                budget.take(bytes)?;
                Item { element, score: 0.0, text: by }
            } else {
                let score = by.map_or(Some(0.0), |text| doubles::weight(&text));
                let line = || "ERR One or more scores can't be converted into double".to_owned();
                Item { element, score: score.ok_or_else(|| Stop::error(line()))?, text: None }
            };
            items.push(item);
        }
        items.sort_by(|a, b| if self.descending { self.compare(b, a) } else { self.compare(a, b) });
        Ok(items.into_iter().map(|item| item.element).collect())
    }

    fn compare(&self, a: &Item, b: &Item) -> Ordering {
        match self.alpha {
            true => a.text.cmp(&b.text),
            // No score is NaN, and zeros are alike.
            false => {
                let scores = a.score.partial_cmp(&b.score).unwrap_or(Ordering::Equal);
                scores.then_with(|| a.element.cmp(&b.element))
            }
        }
    }

    /// What is told of elements, one after the other.
    fn values(
        &self,
        txn: &Txn<'_>,
        elements: Vec<Bytes>,
        mut budget: Budget,
    ) -> Result<Vec<Option<Bytes>>, Stop> {
        let itself = [Pattern::Itself];
        let gets = if self.gets.is_empty() { &itself } else { &self.gets[..] };
        let mut values = Vec::new();
        for element in elements {
            for get in gets {
                let value = get.find(txn, &element)?;
                budget.take(value.as_ref().map_or(0, Bytes::len))?;
                values.push(value);
            }
        }
        Ok(values)
    }
}

/// An element and what it is sorted by.
#[derive(Debug)]
struct Item {
    element: Bytes,
    score: f64,
    /// Nothing comes first.
    text: Option<Bytes>,
}

/// SORT, or SORT_RO if it may not store.
pub(super) fn sort(txn: &mut Txn<'_>, args: &[Bytes], may_store: bool) -> Outcome {
    let mut asked = Asked::parse(&args[1], &args[2..], may_store)?;
    let key = txn.load(&args[1])?;
    let elements = match key.ty {
        None => Vec::new(),
        Some(ty @ (Type::List | Type::Set | Type::SortedSet)) => {
            asked.settle(ty);
            asked.elements(txn, &key, ty)?
        }
        Some(_) => return Err(Stop::wrong_type()),
    };
    let Some(target) = &asked.target else {
        let values = asked.values(txn, elements, Budget::reply())?;
        return Ok(Reply::Array(values.into_iter().map(Reply::bulk_or_null).collect()));
    };
    let target = txn.load(target)?;
    let values = asked.values(txn, elements, Budget::write(&target))?;
    let place = |index| lists::position_of_index(index, txn.stamp());
    let elements = (0..).zip(values).map(|(at, value)| (place(at), value.unwrap_or_default()));
    let elements = elements.collect();
    collection::store(txn, target, Type::List, elements)
}
