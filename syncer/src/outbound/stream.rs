//! The stream of one group to one peer, as the loop of the outgoing side waits for it.

use super::Route;
use crate::batch::Message;
use crate::link::LinkError;
use crate::link::dial::Link;
use crate::link::stream::Wire;

/// Opens the stream of a group, and hears where the receiver is.
pub(super) async fn open(link: &Link, route: &Route) -> Result<(Wire, Message), LinkError> {
    let lost = |error: quinn::ConnectionError| LinkError::Lost(error.to_string());
    let (send, receive) = link.connection.open_bi().await.map_err(lost)?;
    let bytes =
        metrics::counter!("flotilla_link_sent_bytes_total", "peer" => route.peer_name.clone());
    let mut wire = Wire::start(send, receive, move |sent| bytes.increment(sent as u64));
    let Route { namespace, group, slots, .. } = route.clone();
    wire.send(Message::Open { namespace, group, slots });
    let first = wire.next().await?;
    Ok((wire, first))
}

/// Waits for a stream that is being opened, if one is.
pub(super) async fn opened(
    opening: &mut Option<tokio::task::JoinHandle<Result<(Wire, Message), LinkError>>>,
) -> Result<(Wire, Message), LinkError> {
    match opening {
        Some(task) => task.await.unwrap_or_else(|error| Err(LinkError::Lost(error.to_string()))),
        None => std::future::pending().await,
    }
}

/// Waits for the next message of a stream, if there is one.
pub(super) async fn next(wire: &mut Option<Wire>) -> Result<Message, LinkError> {
    match wire {
        Some(wire) => wire.next().await,
        None => std::future::pending().await,
    }
}
