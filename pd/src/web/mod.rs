//! PD's http port: one page, and the same as JSON. Everything here only reads.

mod overview;

mod peers;

use crate::driver::Door;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use flotilla_node::http::Health;
use flotilla_topology::api::{ClusterStatus, PdRequest, PdResponse};
use flotilla_topology::ids::ClusterId;
use overview::{Overview, Source, overview};
use peers::Peers;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The page asks nobody else for anything, and nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the handlers need.
pub(crate) struct Web {
    /// Name of this PD.
    name: String,
    /// Whose PD it is.
    cluster: ClusterId,
    cluster_name: String,
    door: Door,
    peers: Peers,
}

impl Web {
    /// `peers` are http addresses of other clusters' PDs by name of the cluster.
    pub(crate) fn new(
        name: String,
        cluster: ClusterId,
        cluster_name: String,
        door: Door,
        peers: &BTreeMap<String, Vec<String>>,
    ) -> Arc<Web> {
        Arc::new(Web { name, cluster, cluster_name, door, peers: Peers::new(peers) })
    }

    /// For a load balancer: a PD that follows is well, but only one that leads answers questions.
    pub(crate) fn health(&self) -> Health {
        let leader = match self.door.not_leader() {
            PdResponse::NotLeader { leader } => leader,
            _ => None,
        };
        let view = self.door.view();
        let details = json!({
            "leads": view.is_some(),
            "leader": leader,
            "epoch": view.as_ref().map(|view| view.map.epoch),
        });
        Health::new(view.is_some() || leader.is_some(), details)
    }

    /// The routes besides `/health` and `/metrics`.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route(
                "/",
                get(|| asset("text/html; charset=utf-8", include_str!("../page/index.html"))),
            )
            .route("/app.js", get(|| asset("text/javascript", include_str!("../page/app.js"))))
            .route("/style.css", get(|| asset("text/css", include_str!("../page/style.css"))))
            .route("/icon.svg", get(|| asset("image/svg+xml", include_str!("../page/icon.svg"))))
            .route("/api/v1/status", get(status))
            .route("/api/v1/map", get(map))
            .route("/api/v1/overview", get(everything))
            .with_state(self)
    }

    /// `Err` says who leads instead.
    async fn status(&self) -> Result<ClusterStatus, String> {
        match self.door.ask(PdRequest::Status).await {
            Some(PdResponse::Status { status }) => Ok(*status),
            Some(PdResponse::NotLeader { leader: Some(leader) }) => {
                Err(format!("the one at {leader} does"))
            }
            Some(PdResponse::NotLeader { leader: None }) => {
                Err("none does at the moment, look at its store".to_owned())
            }
            _ => Err("it has too much in hand".to_owned()),
        }
    }

    async fn overview(&self) -> Overview {
        let (status, error) = match self.status().await {
            Ok(status) => (Some(status), None),
            Err(error) => (None, Some(error)),
        };
        let mut sources = Vec::new();
        if let Some(status) = &status {
            for peer in &status.map.peers {
                sources.push(self.peers.source(peer).await);
            }
        }
        let (id, name) = (self.cluster, self.cluster_name.clone());
        sources.insert(0, Source { id, name, age_seconds: 0.0, error, status });
        overview(&self.name, sources)
    }
}

async fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    (headers, text).into_response()
}

async fn status(State(web): State<Arc<Web>>) -> Response {
    match web.status().await {
        Ok(status) => Json(status).into_response(),
        Err(error) => unavailable(&error),
    }
}

async fn map(State(web): State<Arc<Web>>) -> Response {
    match web.door.view() {
        Some(view) => Json(&*view.map).into_response(),
        None => unavailable("another PD leads, or none"),
    }
}

async fn everything(State(web): State<Arc<Web>>) -> Response {
    Json(web.overview().await).into_response()
}

fn unavailable(error: &str) -> Response {
    let body = Json(json!({ "error": format!("this PD does not lead: {error}") }));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}
