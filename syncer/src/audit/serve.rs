//! The side that is asked: has the leaders of the groups that own the slots look, and hands on what
//! they show.

use super::Audits;
use super::pass::Part;
use super::wire::AuditMessage;
use crate::batch::Message;
use crate::inbound::owners;
use crate::leaders::{Leaders, MapWatch};
use crate::link::stream::Wire;
use crate::receiver::{Failure, RETRY_FIRST, RETRY_LAST};
use flotilla_node::group::digest::look::Cells;
use flotilla_node::group::digest::{DigestCall, Look, LookRequest};
use flotilla_node::transport::{Class, kinds};
use flotilla_topology::ids::{GroupId, Identity};
use flotilla_topology::slot::SlotRange;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// One question to a leader: it reads all rows of the slots.
const LOOK_DEADLINE: Duration = Duration::from_secs(20);
/// A group without a leader for so long cannot be asked now.
const LOOK_PATIENCE: Duration = Duration::from_secs(10);

/// An audit that another cluster's syncer wants to begin.
pub struct OpenedAudit {
    /// Who asks.
    pub from: Identity,
    /// Name of the namespace.
    pub namespace: String,
    /// The stream.
    pub wire: Wire,
}

/// Answers until the stream ends.
pub async fn run(opened: OpenedAudit, audits: Audits, leaders: Leaders, map: MapWatch) {
    let OpenedAudit { from, namespace, mut wire } = opened;
    tracing::debug!(%from, namespace, "is compared with");
    while let Ok(message) = wire.next().await {
        let Message::Audit(AuditMessage::Look { number, at_ms, cells }) = message else {
            let reason = "not for who answers an audit".to_owned();
            return wire.close_with(Message::Refused { reason });
        };
        // Closed only with the process.
        let Ok(_room) = audits.served.acquire().await else { return };
        let parts = match owners(&map, &namespace, cells.slots) {
            Ok(found) => parts(&leaders, found, at_ms, cells).await,
            Err(reason) => Err(reason),
        };
        wire.send(Message::Audit(match parts {
            Ok(parts) => AuditMessage::Holds { number, parts },
            Err(reason) => AuditMessage::NotNow { number, reason },
        }));
    }
}

/// One after the other: nobody is in a hurry.
async fn parts(
    leaders: &Leaders,
    groups: Vec<(GroupId, SlotRange)>,
    at_ms: u64,
    cells: Cells,
) -> Result<Vec<Part>, String> {
    let mut parts = Vec::with_capacity(groups.len());
    for (group, slots) in groups {
        let look = look(leaders, LookRequest { group, at_ms, cells }).await?;
        parts.push(Part { slots, look });
    }
    Ok(parts)
}

/// Has a group's leader look. The error is one line.
pub async fn look(leaders: &Leaders, request: LookRequest) -> Result<Look, String> {
    let (group, payload) = (request.group, DigestCall::Look(request).encode());
    let (began, mut pause) = (Instant::now(), RETRY_FIRST);
    loop {
        let payload = payload.clone();
        let asked = leaders.ask::<Look>(group, Class::Bulk, kinds::DIGEST, payload, LOOK_DEADLINE);
        match asked.await {
            Ok(look) => return Ok(look),
            Err(Failure::Refused(reason)) => return Err(reason),
            Err(Failure::Again) if began.elapsed() > LOOK_PATIENCE => {
                return Err(format!("no leader of group {group} answers"));
            }
            Err(Failure::Again) => sleep(pause).await,
        }
        pause = (pause * 2).min(RETRY_LAST);
    }
}
