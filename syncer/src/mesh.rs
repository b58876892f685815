//! Whether all clusters know each other. A cluster ships what was born in it and nothing else, so there
//! must be links between any two: who does not know another one lacks its writes, and collects what
//! that one has not seen.
//!
//! Each tells with every answer to a ping whom it knows. Who is new here is not let in before it and
//! all peers that count know each other, as far as they were heard. Who was let in goes on when
//! somebody forgets it later: to stop it would lose more.

use crate::leaders::Leaders;
use flotilla_node::group::remote::CursorsRequest;
use flotilla_node::transport::kinds;
use flotilla_topology::api::View;
use flotilla_topology::ids::{ClusterId, GroupId, LogId, Origin};
use flotilla_topology::slot::SlotRange;
use std::sync::Arc;
use std::time::Duration;

/// One question to a leader.
const ASK_DEADLINE: Duration = Duration::from_secs(2);

/// A peer, and whom it knows.
pub struct Seen {
    /// It.
    pub id: ClusterId,
    /// Its name.
    pub name: String,
    /// Whether it counts here, or was given up.
    pub counts: bool,
    /// Whom it knows, once it was heard.
    pub knows: Option<Vec<(ClusterId, View)>>,
}

/// What is missing between a cluster and the others that count, if anything; one line.
pub fn gap(seen: &[Seen], cluster: ClusterId) -> Option<String> {
    let new = seen.iter().find(|peer| peer.id == cluster)?;
    let lacks = |who: &Seen, whom: &Seen| {
        who.knows.as_ref().is_some_and(|knows| knows.iter().all(|(known, _)| *known != whom.id))
    };
    let others = || seen.iter().filter(|peer| peer.counts && peer.id != cluster);
    let there = others().map(|other| (other, new));
    let back = others().map(|other| (new, other));
    there.chain(back).find(|(who, whom)| lacks(who, whom)).map(|(who, whom)| {
        format!(
            "partial mesh: `{}` does not know `{}` (cluster {}): `flotilla link add {}` there",
            who.name, whom.name, whom.id, whom.name
        )
    })
}

/// Tells of a cluster what is missing between it and the others.
#[derive(Clone)]
pub struct Mesh(Arc<dyn Fn(ClusterId) -> Option<String> + Send + Sync>);

impl Mesh {
    /// As somebody sees it.
    pub fn new(gap: impl Fn(ClusterId) -> Option<String> + Send + Sync + 'static) -> Mesh {
        Mesh(Arc::new(gap))
    }

    /// Why a group of another cluster is not let in, if it is new to these groups here.
    pub async fn refuses(
        &self,
        leaders: &Leaders,
        (origin, source): (Origin, GroupId),
        targets: &[(GroupId, SlotRange)],
    ) -> Option<String> {
        let reason = self.0(origin.cluster)?;
        for (group, _) in targets {
            let asked = CursorsRequest { group: *group, origin, source_groups: vec![source] };
            let payload = asked.encode();
            let cursors: Result<Vec<LogId>, String> =
                leaders.ask_until_answered(*group, kinds::CURSORS, payload, ASK_DEADLINE).await;
            match cursors {
                Ok(cursors) if cursors.iter().all(|cursor| *cursor == LogId::default()) => {}
                Ok(_) => return None,
                Err(reason) => return Some(reason),
            }
        }
        Some(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(id: u8, counts: bool, knows: Option<&[u8]>) -> Seen {
        let knows = knows.map(|ids| ids.iter().map(|id| (ClusterId(*id), View::Counts)).collect());
        Seen { id: ClusterId(id), name: format!("c{id}"), counts, knows }
    }

    #[test]
    fn a_gap_is_named_whoever_has_it() {
        let of = |seen: &[Seen], id: u8| gap(seen, ClusterId(id)).unwrap_or_default();
        let whole = [seen(2, true, Some(&[1, 3])), seen(3, true, Some(&[1, 2]))];
        assert_eq!((of(&whole, 2), of(&whole, 3), of(&whole, 9)), Default::default());

        let old = [seen(2, true, Some(&[1])), seen(3, true, Some(&[1, 2]))];
        assert!(of(&old, 3).contains("`c2` does not know `c3`"), "{}", of(&old, 3));
        let new = [seen(2, true, Some(&[1, 3])), seen(3, true, Some(&[1]))];
        assert!(of(&new, 3).contains("`c3` does not know `c2`"), "{}", of(&new, 3));

        let silent = [seen(2, true, None), seen(3, true, None)];
        assert_eq!(of(&silent, 3), "", "nobody is suspected before it was heard");
        let given_up = [seen(2, false, Some(&[1])), seen(3, true, Some(&[1]))];
        assert_eq!(of(&given_up, 3), "", "who is fenced does not count");
    }
}
