//! The small HTTP port of every process: `/metrics`, `/health`, and what the process adds.
//!
//! It has no authentication, so it belongs on loopback unless whoever runs it decides otherwise,
//! and nothing behind it changes anything. `/health` answers 200 or 503 with the same JSON, so that
//! a load balancer needs the status and a human the reasons.
//!
//! Metrics: [`install_metrics`] must run before the first metric is touched, since handles that
//! were made earlier count into the void.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// HTTP connections at one time; more wait in the kernel. Scrapers and a few dashboards.
pub const CONNECTIONS_MAX: usize = 256;

/// Requests that are running when the port closes get this long to end.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// How often histograms are emptied into their sums; without it their memory grows between scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Bounds of every histogram whose name ends in `_seconds`: from a memory access over the network
/// to a stall that somebody will ask about.
const SECONDS_BOUNDS: [f64; 20] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.016, 0.025, 0.05,
    0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Makes this process collect metrics; the handle renders them. Safe to call again.
pub fn install_metrics() -> PrometheusHandle {
    METRICS
        .get_or_init(|| {
            let recorder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BOUNDS)
                .expect("the list of bounds is not empty")
                .build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("metrics go to a recorder that this process installed elsewhere");
            }
            handle
        })
        .clone()
}

/// How a process is.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Health {
    /// Whether it should get traffic.
    pub ok: bool,
    /// What there is to say, in the process's own words.
    #[serde(flatten)]
    pub details: serde_json::Map<String, serde_json::Value>,
}

impl Health {
    /// From an object of details; anything else stands under `detail`.
    pub fn new(ok: bool, details: serde_json::Value) -> Health {
        let details = match details {
            serde_json::Value::Object(details) => details,
            other => serde_json::Map::from_iter([("detail".to_owned(), other)]),
        };
        Health { ok, details }
    }
}

type HealthOf = Arc<dyn Fn() -> Health + Send + Sync>;

/// The HTTP port of a process. Dropping it closes it.
pub struct Http {
    local_addr: SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Http {
    /// Serves `/metrics`, `/health` by calling `health` (which must not block), and the routes of
    /// `extra`, on `addr`.
    ///
    /// # Panics
    /// If `extra` has a route that is served already.
    pub async fn bind(
        addr: impl ToSocketAddrs,
        health: impl Fn() -> Health + Send + Sync + 'static,
        extra: Router,
    ) -> io::Result<Http> {
        let handle = install_metrics();
        let listener = TcpListener::bind(addr).await?;
        let local_addr = listener.local_addr()?;
        let health: HealthOf = Arc::new(health);
        let router = Router::new()
            .route("/metrics", get(metrics_text).with_state(handle.clone()))
            .route("/health", get(health_json).with_state(health))
            .merge(extra);
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(Limited::new(listener), router, handle, stop.clone()));
        Ok(Http { local_addr, stop, server })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops accepting and gives running requests a second.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let _ = tokio::time::timeout(DRAIN_MAX, &mut self.server).await;
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(
    listener: Limited,
    router: Router,
    handle: PrometheusHandle,
    stop: CancellationToken,
) {
    let upkeep = async {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            ticks.tick().await;
            handle.run_upkeep();
        }
    };
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    tokio::select! {
        ended = serving => if let Err(error) = ended {
            tracing::error!("the HTTP port failed: {error}");
        },
        () = upkeep => {}
    }
}

async fn metrics_text(State(handle): State<PrometheusHandle>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, handle.render()).into_response()
}

async fn health_json(State(health): State<HealthOf>) -> Response {
    let health = health();
    let status = if health.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health)).into_response()
}

/// A listener that accepts no more than [`CONNECTIONS_MAX`], so that HTTP clients cannot take the
/// files that the data path needs.
struct Limited {
    listener: TcpListener,
    room: Arc<Semaphore>,
}

impl Limited {
    fn new(listener: TcpListener) -> Limited {
        Limited { listener, room: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }
}

impl axum::serve::Listener for Limited {
    type Io = Admitted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Admitted, SocketAddr) {
        let room = self.room.clone().acquire_owned().await;
        // axum's own loop handles errors of accept with a pause.
        let (tcp, addr) = axum::serve::Listener::accept(&mut self.listener).await;
        (Admitted { tcp, _room: room.ok() }, addr)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection and the room that it takes.
struct Admitted {
    tcp: TcpStream,
    _room: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Admitted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn fetch(http: &Http, path: &str) -> String {
        let mut tcp = TcpStream::connect(http.local_addr()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn health_metrics_and_the_rest_are_served() {
        install_metrics();
        let well = Arc::new(AtomicBool::new(true));
        let seen = well.clone();
        let health = move || Health::new(seen.load(Ordering::SeqCst), json!({"groups": 3}));
        let extra = Router::new().route("/api/x", get(|| async { "extra" }));
        let http = Http::bind("127.0.0.1:0", health, extra).await.unwrap();

        let answer = fetch(&http, "/health").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with(r#"{"ok":true,"groups":3}"#), "{answer}");
        well.store(false, Ordering::SeqCst);
        assert!(fetch(&http, "/health").await.starts_with("HTTP/1.1 503"));

        metrics::counter!("flotilla_http_test_total").increment(3);
        metrics::histogram!("flotilla_http_test_seconds").record(0.003);
        let answer = fetch(&http, "/metrics").await;
        assert!(answer.contains("flotilla_http_test_total 3"), "{answer}");
        assert!(answer.contains(r#"flotilla_http_test_seconds_bucket{le="0.004"} 1"#), "{answer}");

        assert!(fetch(&http, "/api/x").await.ends_with("extra"));
        assert!(fetch(&http, "/nothing").await.starts_with("HTTP/1.1 404"));
        http.shutdown().await;
    }
}
