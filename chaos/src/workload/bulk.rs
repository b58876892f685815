//! Many commands quickly: pipelined, one for each number of a range, repeated until each was
//! answered. For commands that may be carried out more than once.

use super::client::{Outcome, error_means};
use crate::resp::{Client, Value};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Complaints that are kept.
const COMPLAINTS_MAX: usize = 20;
/// How long one exchange may take.
const EXCHANGE_PATIENCE: Duration = Duration::from_secs(20);
/// Pause before what was refused is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How to send.
#[derive(Debug, Clone)]
pub struct Bulk {
    /// `host:port` of the nodes; clients are spread over them.
    pub addresses: Vec<String>,
    /// Clients, each with one batch under way.
    pub clients: usize,
    /// Commands in a batch.
    pub batch: u64,
    /// How long a batch may go on being refused.
    pub patience: Duration,
}

impl Bulk {
    /// Eight clients with a hundred commands each.
    pub fn new(addresses: &[String], patience: Duration) -> Bulk {
        Bulk { addresses: addresses.to_vec(), clients: 8, batch: 100, patience }
    }

    /// Batches of about a mebibyte, when commands are of this size.
    pub fn sized(self, bytes: usize) -> Bulk {
        let batch = ((1 << 20) / bytes.max(1)) as u64;
        Bulk { batch: batch.clamp(1, self.batch), ..self }
    }

    /// Sends a command for each number, and repeats what is refused or gets no reply. `judge` looks
    /// at each reply and may complain. Returns the first complaints; an error when a batch is refused
    /// for too long, or answered with what no server should say.
    pub async fn each(
        &self,
        numbers: Range<u64>,
        command: impl Fn(u64) -> Vec<String>,
        judge: impl Fn(u64, &Value) -> Option<String>,
    ) -> Result<Vec<String>, String> {
        let next = AtomicU64::new(numbers.start);
        let clients = (0..self.clients)
            .map(|place| self.client(place, (&next, numbers.end), &command, &judge));
        let all = futures::future::try_join_all(clients).await?;
        Ok(all.into_iter().flatten().take(COMPLAINTS_MAX).collect())
    }

    /// The same for writes, whose replies do not matter.
    pub async fn write(
        &self,
        numbers: Range<u64>,
        command: impl Fn(u64) -> Vec<String>,
    ) -> Result<(), String> {
        self.each(numbers, command, |_, _| None).await.map(|_| ())
    }

    async fn client(
        &self,
        place: usize,
        (next, end): (&AtomicU64, u64),
        command: &impl Fn(u64) -> Vec<String>,
        judge: &impl Fn(u64, &Value) -> Option<String>,
    ) -> Result<Vec<String>, String> {
        let mut complaints = Vec::new();
        let mut connection = None;
        let mut addresses = self.addresses.iter().cycle().skip(place);
        loop {
            let first = next.fetch_add(self.batch, Relaxed);
            if first >= end {
                return Ok(complaints);
            }
            let mut left: Vec<u64> = (first..end.min(first + self.batch)).collect();
            let deadline = Instant::now() + self.patience;
            while !left.is_empty() {
                let commands: Vec<Vec<String>> =
                    left.iter().map(|number| command(*number)).collect();
                let why = match exchange(&mut connection, &mut addresses, &commands).await {
                    Ok(replies) => {
                        let (again, why) = sort(&left, &replies, judge, &mut complaints)?;
                        left = again;
                        why
                    }
                    Err(why) => Some(why),
                };
                let Some(why) = why else { continue };
                connection = None;
                if Instant::now() > deadline {
                    return Err(format!("{} for {:?}: {why}", command(left[0])[0], self.patience));
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

async fn exchange<'a>(
    connection: &mut Option<Client>,
    addresses: &mut impl Iterator<Item = &'a String>,
    commands: &[Vec<String>],
) -> Result<Vec<Value>, String> {
    let mut client = match connection.take() {
        Some(client) => client,
        None => {
            let address = addresses.next().ok_or("no node to ask")?;
            let client = Client::connect(address, EXCHANGE_PATIENCE).await;
            client.map_err(|error| error.to_string())?
        }
    };
    let replies = client.pipeline(commands).await.map_err(|error| error.to_string())?;
    *connection = Some(client);
    Ok(replies)
}

/// What must be sent again, and why.
fn sort(
    numbers: &[u64],
    replies: &[Value],
    judge: &impl Fn(u64, &Value) -> Option<String>,
    complaints: &mut Vec<String>,
) -> Result<(Vec<u64>, Option<String>), String> {
    let (mut again, mut why) = (Vec::new(), None);
    for (number, reply) in numbers.iter().zip(replies) {
        if let Value::Error(error) = reply {
            if let Outcome::Unexpected(error) = error_means(error) {
                return Err(error);
            }
            again.push(*number);
            why = reply.text();
        } else if let Some(complaint) = judge(*number, reply)
            && complaints.len() < COMPLAINTS_MAX
        {
            complaints.push(complaint);
        }
    }
    Ok((again, why))
}

/// A text of so many bytes that hardly compresses: the same for the same number, and no other.
pub fn text(number: u64, bytes: usize) -> String {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        for shift in (0..60).step_by(6) {
            text.push(char::from(b'0' + ((state >> shift) & 63) as u8));
        }
    }
    text.truncate(bytes);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeRedis;

    fn set(number: u64) -> Vec<String> {
        vec!["SET".into(), format!("k{number}"), text(number, 9)]
    }

    #[tokio::test]
    async fn everything_arrives_though_connections_end_and_nodes_refuse() {
        let redis = FakeRedis::default();
        redis.drop_every.store(997, Relaxed);
        redis.refuse_every.store(101, Relaxed);
        let bulk = Bulk::new(&[redis.listen().await], Duration::from_secs(20));
        bulk.write(0..3000, set).await.unwrap();
        let get = |number| vec!["GET".to_owned(), format!("k{number}")];
        let judge = |number, reply: &Value| {
            (reply.text() != Some(text(number, 9))).then(|| format!("{number}: {reply:?}"))
        };
        assert_eq!(bulk.each(0..3000, get, judge).await, Ok(vec![]));
        let complaints = bulk.each(2990..3010, get, judge).await.unwrap();
        assert_eq!(complaints.len(), 10, "{complaints:?}");
    }

    #[tokio::test]
    async fn it_gives_up_on_who_always_refuses_and_on_what_nobody_should_say() {
        let redis = FakeRedis::default();
        redis.refuse_every.store(1, Relaxed);
        let bulk = Bulk::new(&[redis.listen().await], Duration::from_millis(100));
        let why = bulk.write(0..10, set).await.unwrap_err();
        assert!(why.contains("TRYAGAIN"), "{why}");
        redis.refuse_every.store(0, Relaxed);
        let why = bulk.write(0..10, |_| vec!["EXPLODE".into(), "k".into()]).await.unwrap_err();
        assert!(why.contains("unknown command"), "{why}");
    }

    #[test]
    fn texts_have_their_size_and_differ() {
        assert_eq!(text(7, 100).len(), 100);
        assert_eq!(text(7, 100), text(7, 100));
        assert_ne!(text(7, 100), text(8, 100));
    }
}
